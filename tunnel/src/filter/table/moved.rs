//! Flows taken out of the table for another process, and taken in from one.

use std::sync::Arc;

use edgeward_identity::BootTime;
use foldhash::HashMap;

use super::super::handover::{MovedFlow, MovedFlows};
use super::{Ask, Flow, Flows, Key, MAX_FLOWS, MAX_FLOWS_PER_PEER, number_of};
use crate::node::PeerId;

/// No policy has this epoch: the next packet asks.
const STALE: u64 = u64::MAX;

impl Flows {
    pub(in crate::filter) fn export(
        &self,
        ask: &Ask<'_>,
        generation_of: impl Fn(PeerId) -> Option<u64>,
    ) -> MovedFlows {
        let mut moved = MovedFlows::default();
        let mut places: HashMap<Arc<str>, u32> = HashMap::default();
        for (key, flow) in &self.flows {
            if !flow.allow || ask.now >= flow.idle_until {
                continue;
            }
            let Some((fresh, rule, valid_until)) =
                self.standing(key.peer, flow, ask, generation_of(key.peer))
            else {
                continue;
            };
            let next = u32::try_from(moved.rules.len()).unwrap_or(u32::MAX);
            let place = *places.entry(Arc::clone(&rule)).or_insert_with(|| {
                moved.rules.push(rule);
                next
            });
            moved.flows.push(MovedFlow {
                peer: key.peer,
                rule: place,
                key: flow.key,
                opened: flow.opened,
                fresh,
                answered: flow.answered,
                closed: flow.closed,
                valid_until,
                idle_until: flow.idle_until,
                packets: flow.packets,
                bytes: flow.bytes,
            });
        }
        moved
    }

    /// Whether its verdict holds, by which rule, and until when; `None` if it is denied by now.
    fn standing(
        &self,
        peer: PeerId,
        flow: &Flow,
        ask: &Ask<'_>,
        armed: Option<u64>,
    ) -> Option<(bool, Arc<str>, BootTime)> {
        let rule = Arc::clone(&self.rules.get(flow.rule)?.rule);
        let Some(generation) = armed else {
            return Some((false, rule, flow.valid_until));
        };
        let fresh =
            flow.epoch == ask.epoch && flow.generation == generation && ask.now < flow.valid_until;
        if fresh {
            return Some((true, rule, flow.valid_until));
        }
        let verdict = ask.decide.decide(&flow.key, peer, flow.opened, ask.now);
        let allowed = verdict.allow && ask.now < verdict.valid_until;
        allowed.then_some((true, verdict.rule, verdict.valid_until))
    }

    pub(in crate::filter) fn import(
        &mut self,
        moved: MovedFlows,
        epoch: u64,
        now: BootTime,
        generation_of: impl Fn(PeerId) -> Option<u64>,
    ) -> usize {
        let MovedFlows { rules, flows } = moved;
        let rules: Vec<usize> = rules
            .iter()
            .map(|rule| number_of(&mut self.rules, &mut self.rule_numbers, rule))
            .collect();
        let mut left_out = 0;
        for flow in flows {
            let key = Key::new(&flow.key, flow.peer, flow.opened);
            let known = self.flows.contains_key(&key);
            let rule = usize::try_from(flow.rule).ok().and_then(|n| rules.get(n));
            let (Some(rule), false) = (rule, known) else {
                continue;
            };
            if now >= flow.idle_until {
                continue;
            }
            let share = self.shares.entry(flow.peer).or_default();
            if self.flows.len() >= MAX_FLOWS || share.allowed >= MAX_FLOWS_PER_PEER {
                left_out += 1;
                continue;
            }
            share.allowed += 1;
            let armed = generation_of(flow.peer).filter(|_| flow.fresh);
            let flow = Flow {
                key: flow.key,
                opened: flow.opened,
                generation: armed.unwrap_or_default(),
                epoch: armed.map_or(STALE, |_| epoch),
                allow: true,
                rule: *rule,
                valid_until: flow.valid_until,
                idle_until: flow.idle_until,
                answered: flow.answered,
                closed: flow.closed,
                packets: flow.packets,
                bytes: flow.bytes,
            };
            self.flows.insert(key, flow);
        }
        left_out
    }
}
