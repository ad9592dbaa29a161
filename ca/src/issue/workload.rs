//! SVIDs of workloads. They cost a permit, which only a node that is trusted now is given.

use edgeward_identity::{Kind, PublicKey, Timestamp};

use super::{IssueFault, Issued, Issuer};
use crate::workload::Permit;

impl Issuer {
    /// Issues for the workload that the permit names.
    pub fn issue_workload(
        &self,
        permit: &Permit,
        key: &PublicKey,
        now: Timestamp,
    ) -> Result<Issued, IssueFault> {
        self.issue(permit.id(), Kind::Workload, key, permit.lifetime(now), now)
    }
}
