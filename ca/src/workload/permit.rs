//! Whether a node may have an SVID for a workload now. The one maker of [`Permit`]; told the time, no I/O.

use std::time::Duration;

use edgeward_identity::{AttestationState, Kind, SpiffeId, Timestamp, VerifiedPeer};
use edgeward_policy::CompiledPolicy;

use super::WorkloadRefused;
use crate::hub::Member;

/// A workload on a node that is trusted now.
#[derive(Clone, Debug)]
pub struct Permit {
    id: SpiffeId,
    /// By the registration.
    ttl: Duration,
    /// End of the node's own certificate.
    until: Timestamp,
}

impl Permit {
    pub(super) fn give(
        member: &Member,
        peer: &VerifiedPeer,
        policy: Option<&CompiledPolicy>,
        id: SpiffeId,
        now: Timestamp,
    ) -> Result<Self, WorkloadRefused> {
        let domain = peer.id().trust_domain();
        if id.kind() != Kind::Workload || id.trust_domain() != domain {
            return Err(WorkloadRefused::Identity);
        }
        if member.id != *peer.id() || !member.is_active() {
            return Err(WorkloadRefused::Status);
        }
        let key = peer.spki_hash();
        let known = member
            .keys
            .iter()
            .any(|(known, end)| *known == key && *end > now);
        if !known {
            return Err(WorkloadRefused::Certificate);
        }
        // Neither `stale` nor `none`: a workload is worth what its node has proven.
        if member.standing.state != AttestationState::Trusted {
            return Err(WorkloadRefused::NotTrusted);
        }
        let workloads = policy.map(|policy| policy.workloads_for(domain, &member.row.labels));
        let workload = workloads
            .into_iter()
            .flatten()
            .find(|workload| workload.id == id)
            .ok_or(WorkloadRefused::NotRegistered)?;
        Ok(Self {
            id,
            ttl: workload.ttl.as_duration(),
            until: peer.not_after(),
        })
    }

    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// How long an SVID that is made now lives.
    pub fn lifetime(&self, now: Timestamp) -> Duration {
        self.ttl.min(self.until.since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outlives_the_certificate_of_the_node() {
        let now = Timestamp::from_secs(1_800_000_000);
        let permit = |left: u64| Permit {
            id: "spiffe://plant.example/workload/a".parse().unwrap(),
            ttl: Duration::from_secs(3600),
            until: now.plus(Duration::from_secs(left)),
        };
        assert_eq!(permit(7200).lifetime(now), Duration::from_secs(3600));
        assert_eq!(permit(1800).lifetime(now), Duration::from_secs(1800));
        assert_eq!(permit(0).lifetime(now), Duration::ZERO);
    }
}
