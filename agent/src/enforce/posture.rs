//! Posture from the edge: what was denied and allowed here, summed up by rule and source for the audit log.
//!
//! Every guard adds to one table ([`Posture::add`]): the tunnel's filter, the kernel's LAN sets, the gateway (requests,
//! handshakes, bytes that are no protocol), `ext_authz`. Once each interval `Posture::write` makes events of it, a
//! bounded number at a time. Nothing is lost by that: what does not fit into the table is folded into a row of its
//! own that only counts, what was not written waits, and a sum leaves the table only when the journal has it.

mod tunnel;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use edgeward_identity::{AttestationState, SpiffeId, Tier, Timestamp};
use edgeward_policy::Mac;
use parking_lot::Mutex;

use super::Recorder;
use super::records::Records;

pub use tunnel::{of_allowed, of_denial};

/// Most different rows that wait to be written, allowed and denied each.
pub const MAX_ROWS: usize = 4096;
/// Most of them about one source: a scan from one place does not push others out of the table.
pub const MAX_ROWS_PER_SOURCE: usize = 128;
/// Most events that one writing makes; further rows wait for the next one.
pub const MAX_EVENTS: usize = 256;

/// Where something was decided. The words are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Guard {
    /// The filter of the tunnel: packets for denials, verdicts for what is allowed.
    Tunnel,
    /// The kernel's sets on LAN interfaces: packets.
    Lan,
    /// The gateway: connections and requests.
    Gateway,
    /// A proxy that asked: requests.
    ExtAuthz,
}

/// Who asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    Known(SpiffeId),
    /// An operator, and the node whose tunnel he came through.
    Through {
        id: SpiffeId,
        node: SpiffeId,
    },
    /// Somebody who proved nothing.
    Stranger(Option<IpAddr>),
}

/// What makes two decisions the same for the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    pub allow: bool,
    pub guard: Guard,
    pub from: Source,
    /// Whose interface it is.
    pub to: SpiffeId,
    /// IP protocol number; 0 where it is not known.
    pub protocol: u8,
    pub port: u16,
    /// `service/interface`, where policy names one.
    pub interface: Option<Arc<str>>,
    /// The action that was asked for, where an interface has several.
    pub action: Option<Arc<str>>,
    /// The class of the request, or what was wrong with it: never its content.
    pub request: Option<Arc<str>>,
    /// A stable word.
    pub reason: Arc<str>,
    /// The rule that decided, or for a denial by default the nearest one.
    pub rule: Option<Arc<str>>,
    pub state: Option<AttestationState>,
    pub tier: Option<Tier>,
    pub address: Option<IpAddr>,
    pub mac: Option<Mac>,
    pub destination: Option<IpAddr>,
}

/// How often, and from when to when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    pub count: u64,
    pub first: Timestamp,
    pub last: Timestamp,
}

/// The table. Shared by everybody who decides.
#[derive(Debug, Default)]
pub struct Posture {
    waiting: Mutex<Waiting>,
    limits: Limits,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    rows: usize,
    rows_per_source: usize,
    events: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    rows: HashMap<Row, Sum>,
    allowed: usize,
    by_source: HashMap<Source, usize>,
    /// What had no room, by guard and verdict.
    others: HashMap<(Guard, bool), Sum>,
}

/// A sum on its way to the journal.
#[derive(Clone, Debug)]
enum Entry {
    Row(Box<Row>, Sum),
    Others(Guard, bool, Sum),
}

impl Guard {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tunnel => "tunnel",
            Self::Lan => "lan",
            Self::Gateway => "gateway",
            Self::ExtAuthz => "ext_authz",
        }
    }

    /// What is counted.
    pub fn unit(self, allow: bool) -> &'static str {
        match (self, allow) {
            (Self::Tunnel, true) => "verdicts",
            (Self::Tunnel | Self::Lan, _) => "packets",
            (Self::Gateway | Self::ExtAuthz, _) => "requests",
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rows: MAX_ROWS,
            rows_per_source: MAX_ROWS_PER_SOURCE,
            events: MAX_EVENTS,
        }
    }
}

impl Sum {
    pub fn once(at: Timestamp) -> Self {
        Self::of(1, at)
    }

    pub fn of(count: u64, at: Timestamp) -> Self {
        Self {
            count,
            first: at,
            last: at,
        }
    }

    fn join(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }
}

impl Posture {
    /// Counts decisions of one kind. Does not block and does no I/O.
    pub fn add(&self, row: Row, sum: Sum) {
        if sum.count == 0 {
            return;
        }
        count_metric(row.guard, row.allow, sum.count);
        self.waiting.lock().put(row, sum, self.limits);
    }

    /// Counts decisions about which no more is known than how many: what a guard's own bounded table had no room for.
    pub fn add_others(&self, guard: Guard, allow: bool, sum: Sum) {
        if sum.count == 0 {
            return;
        }
        count_metric(guard, allow, sum.count);
        self.waiting.lock().fold(guard, allow, sum);
    }

    /// Writes what waits to the journal, denials first. What the journal does not take stays.
    pub(super) async fn write(&self, recorder: &dyn Recorder, records: &Records) {
        let mut entries = self.waiting.lock().take(self.limits.events).into_iter();
        while let Some(entry) = entries.next() {
            let event = match &entry {
                Entry::Row(row, sum) => records.decided(row, sum),
                Entry::Others(guard, allow, sum) => records.others(*guard, *allow, sum),
            };
            if let Err(refused) = recorder.record_kept(event).await {
                tracing::warn!(%refused, "sums of decisions are kept until the journal takes them");
                let mut waiting = self.waiting.lock();
                for entry in std::iter::once(entry).chain(entries) {
                    waiting.give_back(entry, self.limits);
                }
                break;
            }
        }
        let waiting = u32::try_from(self.waiting.lock().rows.len()).unwrap_or(u32::MAX);
        metrics::gauge!("edgeward_posture_rows").set(waiting);
    }

    /// As [`Posture::write`], in the name of a node.
    #[cfg(test)]
    pub(crate) async fn write_as(&self, node: &SpiffeId, recorder: &dyn Recorder) {
        let node = node.clone();
        self.write(recorder, &Records { node }).await;
    }

    /// Rows that wait.
    #[cfg(test)]
    pub(crate) fn rows(&self) -> Vec<(Row, Sum)> {
        let waiting = self.waiting.lock();
        let rows = waiting.rows.iter();
        rows.map(|(row, sum)| (row.clone(), *sum)).collect()
    }

    /// Whether nothing waits.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.rows.is_empty() && waiting.others.is_empty()
    }
}

impl Waiting {
    fn put(&mut self, row: Row, sum: Sum, limits: Limits) {
        if let Some(known) = self.rows.get_mut(&row) {
            known.join(sum);
            return;
        }
        // Denials and what is allowed have room of their own.
        let alike = match row.allow {
            true => self.allowed,
            false => self.rows.len().saturating_sub(self.allowed),
        };
        let of_source = self.by_source.get(&row.from).copied().unwrap_or(0);
        if alike >= limits.rows || of_source >= limits.rows_per_source {
            self.fold(row.guard, row.allow, sum);
            return;
        }
        self.allowed += usize::from(row.allow);
        *self.by_source.entry(row.from.clone()).or_default() += 1;
        self.rows.insert(row, sum);
    }

    fn fold(&mut self, guard: Guard, allow: bool, sum: Sum) {
        self.others
            .entry((guard, allow))
            .and_modify(|known| known.join(sum))
            .or_insert(sum);
    }

    /// Takes up to `most` entries out: denials before what is allowed, then those that wait longest.
    fn take(&mut self, most: usize) -> Vec<Entry> {
        let others = self.others.drain();
        let mut taken: Vec<Entry> = others
            .map(|((guard, allow), sum)| Entry::Others(guard, allow, sum))
            .collect();
        let mut rows: Vec<(Row, Sum)> = self.rows.drain().collect();
        rows.sort_by_key(|(row, sum)| (row.allow, sum.first));
        let later = rows.split_off(rows.len().min(most.saturating_sub(taken.len())));
        taken.extend(
            rows.into_iter()
                .map(|(row, sum)| Entry::Row(Box::new(row), sum)),
        );
        self.allowed = 0;
        self.by_source.clear();
        for (row, sum) in later {
            // There was room for it, and there is more now.
            self.allowed += usize::from(row.allow);
            *self.by_source.entry(row.from.clone()).or_default() += 1;
            self.rows.insert(row, sum);
        }
        taken
    }

    fn give_back(&mut self, entry: Entry, limits: Limits) {
        match entry {
            Entry::Row(row, sum) => self.put(*row, sum, limits),
            Entry::Others(guard, allow, sum) => self.fold(guard, allow, sum),
        }
    }
}

fn count_metric(guard: Guard, allow: bool, count: u64) {
    let verdict = if allow { "allow" } else { "deny" };
    metrics::counter!("edgeward_decisions_total", "guard" => guard.as_str(), "verdict" => verdict)
        .increment(count);
}

#[cfg(test)]
mod tests;
