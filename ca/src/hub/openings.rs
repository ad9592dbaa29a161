//! What operators opened for a while, as slices carry it: approvals in force, and grants that open nothing any more.

use std::collections::BTreeMap;

use edgeward_identity::{SpiffeId, Timestamp};
use edgeward_policy::{CompiledPolicy, Slice, SliceApproval, SliceBreakGlass};

use super::slices::cut_slice;
use super::{Hub, HubFault};
use crate::approvals::in_force;
use crate::store::approvals::ApprovalRow;
use crate::store::operators::Operator;

/// As it was read from the store.
#[derive(Debug, Default)]
pub(super) struct Openings {
    approvals: Vec<ApprovalRow>,
    operators: Vec<Operator>,
    /// Numbers of void grants by node and by name, sorted.
    void: BTreeMap<(String, String), Vec<u64>>,
}

impl Openings {
    /// Approvals in force under one policy.
    pub(super) fn approved(&self, policy: &CompiledPolicy, now: Timestamp) -> Vec<SliceApproval> {
        in_force(
            &self.approvals,
            &self.operators,
            |rule| policy.approval_terms(rule),
            now,
        )
    }

    /// Puts into a slice what concerns its node.
    pub(super) fn put_into(&self, slice: &mut Slice, approved: &[SliceApproval]) {
        let concerns = |approval: &&SliceApproval| {
            let asked_here = slice
                .interfaces
                .iter()
                .flat_map(|interface| &interface.rows)
                .any(|row| row.approval && row.rule == approval.rule);
            let goes = approval.subject == slice.node
                || slice
                    .devices
                    .iter()
                    .any(|device| device.id == approval.subject);
            let asked_there = goes
                && slice
                    .egress
                    .iter()
                    .flat_map(|egress| &egress.rows)
                    .any(|row| row.approval && row.rule == approval.rule);
            asked_here || asked_there
        };
        slice.approvals = approved.iter().filter(concerns).cloned().collect();
        let node = slice.node.name().to_owned();
        for glass in &mut slice.break_glass {
            let key = (node.clone(), glass.name.clone());
            glass.revoked = self.void.get(&key).cloned().unwrap_or_default();
        }
    }
}

impl Hub {
    /// Reads anew what is approved and what is void; slices are cut at once.
    pub(crate) async fn openings_changed(&self) -> Result<(), HubFault> {
        let _turn = self.openings_turn.lock().await;
        let now = self.clock.now();
        let mut void: BTreeMap<(String, String), Vec<u64>> = BTreeMap::new();
        for (node, name, number) in self.store.void_break_glass(now).await? {
            void.entry((node, name)).or_default().push(number);
        }
        let openings = Openings {
            approvals: self.store.approvals(now).await?,
            operators: self.store.operators().await?,
            void,
        };
        self.openings.store(std::sync::Arc::new(openings));
        self.fleet_changed();
        Ok(())
    }

    /// What break-glass of this name opens on a node, by the policy in force for it.
    pub(crate) async fn glass_of(
        &self,
        id: &SpiffeId,
        name: &str,
    ) -> Result<Option<SliceBreakGlass>, HubFault> {
        let Some(fleeted) = self.fleeted().await? else {
            return Ok(None);
        };
        let (slice, _) = cut_slice(&fleeted, id)?;
        let mut glasses = slice.break_glass.into_iter();
        Ok(glasses.find(|glass| glass.name == name))
    }
}
