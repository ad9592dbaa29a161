//! What goes to the journal: ends of binds, strangers, flows. Nothing here holds up a packet or a bind.

use std::collections::HashMap;
use std::time::Duration;

use edgeward_identity::{BootTime, SpiffeId};
use edgeward_tunnel::bind::code::Code;
use edgeward_tunnel::bind::driver::Event as BindEvent;
use edgeward_tunnel::filter::DropReason;
use edgeward_tunnel::node::Refusal;

use super::Driver;
use crate::enforce::decide::Anchor;
use crate::enforce::posture::{self, Guard, Sum};

/// A refusal of the same peer for the same reason is recorded once within this time.
const REFUSAL_EVERY: Duration = Duration::from_secs(600);
/// Most refusals remembered; over it they are recorded every time.
const MAX_REFUSALS: usize = 4096;

/// Most rules of each guard that have metrics of their own; status and records tell of all.
const MAX_RULE_METRICS: usize = 1024;

/// Refusals that were recorded a while ago.
#[derive(Debug, Default)]
pub(super) struct Refusals(HashMap<(SpiffeId, Code), BootTime>);

impl Refusals {
    /// Whether this one is to be recorded.
    fn is_news(&mut self, peer: &SpiffeId, code: Code, now: BootTime) -> bool {
        self.0.retain(|_, at| now.since(*at) < REFUSAL_EVERY);
        let key = (peer.clone(), code);
        if self.0.contains_key(&key) {
            return false;
        }
        if self.0.len() < MAX_REFUSALS {
            self.0.insert(key, now);
        }
        true
    }
}

impl Driver {
    pub(super) fn record_bind(&mut self, event: BindEvent) {
        let (now, wall) = (self.view.clock.boottime(), self.view.clock.now());
        match event {
            BindEvent::Opened(opened) => {
                tracing::info!(peer = %opened.peer, epoch = opened.epoch, "bind open");
            }
            BindEvent::Adrift { peer, ending } => {
                tracing::info!(%peer, code = %ending.code, reason = ending.reason, "bind's connection is gone; its tunnel lives until the lease ends");
            }
            BindEvent::Ended {
                peer,
                ending,
                was_open,
            } => {
                tracing::info!(%peer, code = %ending.code, reason = ending.reason, was_open, "bind ended");
                // Who loses glare or is taken over has not lost anything.
                // Nor has who was not bound before it was of no use any more.
                let in_vain = ending.code == Code::Idle && !was_open;
                let housekeeping = in_vain || matches!(ending.code, Code::Glare | Code::Superseded);
                let news = was_open || self.refusals.is_news(&peer, ending.code, now);
                if news && !housekeeping {
                    let event = self.records.bind_ended(wall, &peer, &ending, was_open);
                    self.recorder.record_after(event);
                }
            }
            BindEvent::DialFailed { peer, reason } => {
                tracing::debug!(%peer, reason, "peer not reached");
            }
            BindEvent::Stranger {
                from,
                claimed,
                reason,
            } => {
                let event = self.records.stranger(wall, from, &claimed, &reason);
                self.recorder.record_after(event);
            }
        }
    }

    /// What was decided since the last report, into the journal.
    pub(super) async fn report(&self) {
        self.sum_up_tunnel();
        let posture = &self.control.posture;
        posture.write(&*self.recorder, &self.records).await;
    }

    fn sum_up_tunnel(&self) {
        let anchor = Anchor {
            wall: self.view.clock.now(),
            boot: self.view.clock.boottime(),
        };
        let posture = &self.control.posture;
        let picture = self.scene.picture();
        let (denials, mut denials_lost) = self.control.tunnel.filter().take_denials();
        let (allowed, mut allowed_lost) = self.scene.decider().take_allowed();
        for denial in &denials {
            let sum = Sum {
                count: denial.count,
                first: anchor.wall_of(denial.first),
                last: anchor.wall_of(denial.last),
            };
            match self.name_of(denial.peer) {
                Some(peer) => posture.add(posture::of_denial(&picture, &peer, denial), sum),
                None => denials_lost = denials_lost.saturating_add(denial.count),
            }
        }
        for verdicts in &allowed {
            let sum = Sum::of(verdicts.count, anchor.wall);
            match self.name_of(verdicts.peer) {
                Some(peer) => posture.add(posture::of_allowed(&picture, &peer, verdicts), sum),
                None => allowed_lost = allowed_lost.saturating_add(verdicts.count),
            }
        }
        for (allow, count) in [(false, denials_lost), (true, allowed_lost)] {
            posture.add_others(Guard::Tunnel, allow, Sum::of(count, anchor.wall));
        }
    }

    /// What the tunnel counted, for Prometheus.
    pub(super) fn count(&self) {
        let tunnel = &self.control.tunnel;
        let filter = tunnel.filter();
        let flows = u32::try_from(filter.flow_count()).unwrap_or(u32::MAX);
        metrics::gauge!("edgeward_flows").set(flows);
        for reason in DropReason::ALL {
            metrics::counter!("edgeward_filter_dropped_total", "reason" => reason.as_str())
                .absolute(filter.dropped(reason));
        }
        self.count_rules();
        let refusals = tunnel.node().refusals();
        for refusal in Refusal::ALL {
            metrics::counter!("edgeward_wireguard_refused_total", "reason" => refusal.as_str())
                .absolute(refusals.get(refusal));
        }
        let shell = tunnel.counters();
        metrics::counter!("edgeward_tunnel_quic_dropped_total").absolute(shell.quic_dropped);
        metrics::counter!("edgeward_tunnel_device_errors_total").absolute(shell.device_errors);
        metrics::counter!("edgeward_tunnel_send_failures_total").absolute(shell.send_failures);
    }

    /// What passed and what was denied by each rule, at the tunnel and on LAN interfaces.
    fn count_rules(&self) {
        let count = |guard: Guard, rule: String, packets: u64, bytes: u64, denied: u64| {
            let labels = [("guard", guard.as_str().to_owned()), ("rule", rule)];
            metrics::counter!("edgeward_rule_packets_total", &labels).absolute(packets);
            metrics::counter!("edgeward_rule_bytes_total", &labels).absolute(bytes);
            metrics::counter!("edgeward_rule_denied_packets_total", &labels).absolute(denied);
        };
        let tunnel = self.control.tunnel.filter().rule_counts();
        for of in tunnel.into_iter().take(MAX_RULE_METRICS) {
            let rule = of.rule.to_string();
            count(Guard::Tunnel, rule, of.packets, of.bytes, of.denied);
        }
        let lan = self.control.lan.get(self.view.clock.boottime());
        for (rule, of) in lan.rules.into_iter().take(MAX_RULE_METRICS) {
            count(Guard::Lan, rule, of.packets, of.bytes, of.denied);
        }
    }

    fn name_of(&self, number: edgeward_tunnel::node::PeerId) -> Option<SpiffeId> {
        self.control.books.lock().name(number).cloned()
    }
}
