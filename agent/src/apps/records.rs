//! What the guard saw, summed up for the audit log: by file and reason, a bounded number at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use edgeward_audit::{Event, EventKind};
use edgeward_guard::book::{Asked, Reason};
use edgeward_guard::control::{Action, Saw};
use edgeward_identity::{Clock, SpiffeId};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::enforce::Recorder;

/// Most different rows that wait to be written; what has no room is counted.
pub const MAX_ROWS: usize = 1024;
/// How often they are written.
pub const INTERVAL: Duration = Duration::from_secs(10);

/// Makes and records events in the name of this node.
pub struct Teller {
    pub node: SpiffeId,
    pub clock: Arc<dyn Clock>,
    pub recorder: Arc<dyn Recorder>,
}

/// What is measured of enforcement.
#[async_trait]
pub trait Noticed: Send + Sync {
    /// How applications are controlled from now on; empty: not at all.
    async fn level(&self, word: &'static str);
    /// A file of this content was kept from being opened or executed.
    async fn denied(&self, digest: &str);
}

/// The rows that wait.
pub struct Records {
    teller: Arc<Teller>,
    noticed: Arc<dyn Noticed>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    rows: BTreeMap<Row, Sum>,
    /// What found no room, here or on the way.
    others: u64,
}

/// What makes two sights the same for the audit log. Content decides, never a path: that one is for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    would: bool,
    exec: bool,
    reason: &'static str,
    digest: Option<String>,
    /// Only where there is no digest: else a file under many names would fill the table.
    path: Option<String>,
}

#[derive(Clone, Debug)]
struct Sum {
    count: u64,
    /// Of the first sight.
    path: String,
    program: String,
}

impl Teller {
    pub fn event(&self, kind: EventKind) -> Event {
        Event::new(self.clock.now(), self.node.clone(), kind)
    }

    /// For what only happened, or was taken away.
    pub fn tell(&self, event: Event) {
        self.recorder.record_after(event);
    }
}

impl Records {
    pub fn new(teller: Arc<Teller>, noticed: Arc<dyn Noticed>) -> Self {
        Self {
            teller,
            noticed,
            waiting: Mutex::default(),
        }
    }

    pub fn saw(&self, saw: &Saw) {
        let digest = saw.digest.map(|digest| digest.to_string());
        let row = Row {
            would: saw.action == Action::WouldDeny,
            exec: saw.asked == Asked::Exec,
            reason: word(saw.reason),
            path: digest.is_none().then(|| saw.path.clone()),
            digest,
        };
        let mut waiting = self.waiting.lock();
        if let Some(sum) = waiting.rows.get_mut(&row) {
            sum.count += 1;
        } else if waiting.rows.len() < MAX_ROWS {
            let sum = Sum {
                count: 1,
                path: saw.path.clone(),
                program: saw.program.clone(),
            };
            waiting.rows.insert(row, sum);
        } else {
            waiting.others += 1;
        }
    }

    pub fn lost(&self, count: u64) {
        let mut waiting = self.waiting.lock();
        waiting.others = waiting.others.saturating_add(count);
    }

    pub fn restarted(&self, refused: usize) {
        let event = self.teller.event(EventKind::AppGuardRestarted);
        self.teller.tell(event.detail("refused", refused));
    }

    pub fn shut(&self, ended: bool) {
        tracing::error!(
            "the guard refuses everything on the application volume: restart it once you know why its watch died"
        );
        let event = self.teller.event(EventKind::AppGuardShut);
        self.teller.tell(event.detail("apps_ended", ended));
    }

    /// Makes events of what waits.
    pub async fn write(&self) {
        let Waiting { rows, others } = std::mem::take(&mut *self.waiting.lock());
        for (row, sum) in rows {
            self.teller.tell(self.event(&row, &sum));
            if let (Some(digest), false) = (&row.digest, row.would) {
                self.noticed.denied(digest).await;
            }
        }
        if others > 0 {
            let event = self.teller.event(EventKind::AppDenied).denied("others");
            self.teller.tell(event.detail("count", others));
        }
    }

    pub async fn run(self: Arc<Self>, token: CancellationToken) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                () = token.cancelled() => break,
                () = tokio::time::sleep(INTERVAL) => self.write().await,
            }
        }
        self.write().await;
        Ok(())
    }

    fn event(&self, row: &Row, sum: &Sum) -> Event {
        let event = match row.would {
            true => self.teller.event(EventKind::AppWouldDeny).code(row.reason),
            false => self.teller.event(EventKind::AppDenied).denied(row.reason),
        };
        let event = event
            .detail("count", sum.count)
            .detail("asked", if row.exec { "exec" } else { "open" })
            .detail("reason", row.reason)
            .detail("path", &sum.path)
            .detail("program", &sum.program);
        match &row.digest {
            Some(digest) => event.detail("digest", digest),
            None => event,
        }
    }
}

/// Stable.
fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::Changed => "changed",
        Reason::NoBook => "no-book",
        Reason::NotListed => "not-listed",
        Reason::NotRegular => "not-regular",
        Reason::NotSealed => "not-sealed",
        Reason::Overload => "overload",
        Reason::TooSlow => "too-slow",
        Reason::Unreadable => "unreadable",
    }
}

#[cfg(test)]
pub(in crate::apps) mod tests;
