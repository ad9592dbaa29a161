//! SVIDs of nodes. They cost proof: verified evidence and its appraisal are arguments, so skipping a check does not
//! compile; and none is made without the attestation result that says the same.

use std::time::Duration;

use edgeward_evidence::appraise::Appraisal;
use edgeward_evidence::result::{AttestationResult, NoResult, ResultContext};
use edgeward_evidence::verify::{Subject, VerifiedEvidence};
use edgeward_identity::{Kind, SpiffeId, Timestamp};
use edgeward_policy::Lifetimes;
use edgeward_policy::slice::MIN_SVID_LIFETIME;

use super::{IssueFault, Issued, Issuer};

/// What a certificate is granted for.
#[derive(Clone, Debug)]
pub struct NodeGrant {
    id: SpiffeId,
    occasion: Occasion,
    lifetime: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Occasion {
    /// The token whose use was just consumed, or may be retried.
    Enrolment {
        token: String,
    },
    Renewal,
    /// The node's EK, instead of a token.
    Recovery,
}

/// A node's certificate and what the cloud says about the evidence it was issued on.
#[derive(Clone, Debug)]
pub struct NodeIssued {
    pub issued: Issued,
    pub result: AttestationResult,
}

/// Why a node gets no certificate.
#[derive(Debug, thiserror::Error)]
pub enum NodeNotIssued {
    /// The node's.
    #[error("evidence speaks for somebody else")]
    OtherSubject,
    #[error("no result: {0}")]
    Result(#[from] NoResult),
    /// Ours.
    #[error(transparent)]
    Issue(#[from] IssueFault),
}

impl NodeGrant {
    pub(crate) fn enrolment(id: SpiffeId, token: &str, lifetime: Duration) -> Self {
        Self {
            id,
            occasion: Occasion::Enrolment {
                token: token.to_owned(),
            },
            lifetime,
        }
    }

    pub(crate) fn recovery(id: SpiffeId, lifetime: Duration) -> Self {
        Self {
            id,
            occasion: Occasion::Recovery,
            lifetime,
        }
    }

    pub(crate) fn renewal(id: SpiffeId, lifetime: Duration) -> Self {
        Self {
            id,
            occasion: Occasion::Renewal,
            lifetime,
        }
    }
}

impl Issuer {
    /// Issues for the key that the evidence proved, to the identity that the grant names.
    pub fn issue_node(
        &self,
        evidence: &VerifiedEvidence,
        appraisal: &Appraisal,
        grant: &NodeGrant,
        deny_number: u64,
        now: Timestamp,
    ) -> Result<NodeIssued, NodeNotIssued> {
        let speaks = match (evidence.subject(), &grant.occasion) {
            (Subject::Token(proven), Occasion::Enrolment { token }) => proven == token,
            (Subject::Node(proven), Occasion::Renewal)
            | (Subject::Recovered(proven), Occasion::Recovery) => *proven == grant.id,
            _ => false,
        };
        if !speaks {
            return Err(NodeNotIssued::OtherSubject);
        }
        let context = ResultContext {
            spiffe_id: &grant.id,
            issued: now,
            deny_number,
        };
        let result = AttestationResult::new(evidence, appraisal, &context)?;
        let issued = self.issue(
            &grant.id,
            Kind::Node,
            evidence.svid_key(),
            grant.lifetime,
            now,
        )?;
        Ok(NodeIssued { issued, result })
    }
}

/// How long a node's certificate lives: by its policy where there is one, never longer than the cloud's own bound.
pub fn lifetime(policy: Option<Lifetimes>, bound: Duration) -> Duration {
    policy
        .map_or(MIN_SVID_LIFETIME, Lifetimes::svid_lifetime)
        .as_duration()
        .min(bound)
}

#[cfg(test)]
mod tests {
    use edgeward_policy::Seconds;

    use super::*;

    #[test]
    fn a_lifetime_is_twice_the_largest_offline_within_its_bounds() {
        let policy = |largest: u64, most: u64| Lifetimes {
            largest_offline: Seconds::from_hours(largest),
            max_offline: Seconds::from_hours(most),
        };
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let bound = hours(24 * 30);
        assert_eq!(lifetime(None, bound), hours(24));
        assert_eq!(lifetime(Some(policy(1, 72)), bound), hours(24));
        assert_eq!(lifetime(Some(policy(36, 72)), bound), hours(72));
        assert_eq!(lifetime(Some(policy(100, 72)), bound), hours(144));
        assert_eq!(lifetime(Some(policy(36, 72)), hours(48)), hours(48));
    }
}
