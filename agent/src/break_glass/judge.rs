//! May this sealed grant be opened here and now? Pure: everything it rests on is handed in.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::signed::Unacceptable;
use edgeward_identity::{DenyList, KeySet, SpiffeId, SpkiHash, Timestamp};
use edgeward_policy::{Slice, SliceBreakGlass};
use edgeward_wire::break_glass::{
    Code, Grant, Mistyped, NotAGrant, NotAnApproval, NotUnsealed, approved_by, unseal,
};

use super::uses::GlassUses;
use crate::view::{Held, Standing};

/// Most approvals that are looked at.
pub const MAX_APPROVALS: usize = 64;

/// What people brought.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub sealed: &'a [u8],
    pub code: &'a str,
    pub approvals: &'a [Vec<u8>],
}

/// What this node knows.
#[derive(Clone, Copy, Debug)]
pub struct Knows<'a> {
    pub node: &'a SpiffeId,
    pub keys: &'a KeySet,
    pub deny: &'a DenyList,
    /// Of its present SVID.
    pub own_key: SpkiHash,
    pub slice: Option<&'a Slice>,
    pub uses: &'a GlassUses,
    pub standing: Standing,
    /// By the node's clock, which is never behind its floor.
    pub now: Timestamp,
}

/// A grant that may be opened. Only [`judge`] makes one.
#[derive(Debug)]
pub struct MayOpen {
    grant: Grant,
    rules: Vec<Arc<str>>,
    ttl: Duration,
    by: Vec<SpiffeId>,
}

/// Why nothing is opened. Each has a code of its own, which people are told and the journal keeps.
#[derive(Debug, thiserror::Error)]
pub enum NotOpened {
    #[error("this node grants nothing: {0}")]
    Held(Held),
    #[error(transparent)]
    Mistyped(#[from] Mistyped),
    #[error("{0}")]
    Sealed(#[from] NotUnsealed),
    #[error("the grant is for another node: {0}")]
    OtherNode(String),
    #[error("the grant has ended")]
    Expired,
    #[error("the grant does not verify: {0}")]
    Grant(NotAGrant),
    #[error("this node has another key since the grant was issued: issue a new one")]
    OtherKey,
    #[error("the grant was opened before: it opens once")]
    Used,
    #[error("the policy in force here has no break-glass {0}")]
    NotInPolicy(String),
    #[error("the grant was revoked")]
    Revoked,
    #[error("more approvals than the limit: {MAX_APPROVALS}")]
    TooManyApprovals,
    #[error("approval {index}: {source}")]
    Approval {
        /// From 1, as given.
        index: usize,
        #[source]
        source: NotAnApproval,
    },
    #[error("two approvals by the same operator: {0}")]
    SameOperator(SpiffeId),
    #[error("the operator's certificate was revoked: {0}")]
    OperatorDenied(SpiffeId),
    #[error("the policy in force here does not let this operator open it: {0}")]
    OperatorNotInPolicy(SpiffeId),
    #[error("{got} approvals, and it takes {needed}")]
    Quorum { got: usize, needed: usize },
    #[error("too many uses are remembered already")]
    Full,
    #[error("the opening could not be recorded: {0}")]
    NotRecorded(String),
    #[error("the use could not be stored, so nothing was opened")]
    NotStored,
    #[error("this agent opens nothing now: it is starting or ending")]
    NotNow,
    #[error("nothing is open under this number")]
    NothingOpen,
}

impl NotOpened {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Held(held) => held.code(),
            Self::Mistyped(_) => "glass_code",
            Self::Sealed(NotUnsealed::Format | NotUnsealed::TooLarge) => "glass_file",
            Self::Sealed(NotUnsealed::Seal) => "glass_seal",
            Self::OtherNode(_) => "glass_other_node",
            Self::Expired => "glass_expired",
            Self::Grant(_) => "glass_grant",
            Self::OtherKey => "glass_other_key",
            Self::Used => "glass_used",
            Self::NotInPolicy(_) => "glass_not_in_policy",
            Self::Revoked => "glass_revoked",
            Self::TooManyApprovals => "glass_too_many_approvals",
            Self::Approval { source, .. } => match source {
                NotAnApproval::NotAnApprover => "glass_not_an_approver",
                NotAnApproval::OtherGrant => "glass_approval_other_grant",
                NotAnApproval::Expired => "glass_approval_expired",
                NotAnApproval::TooLarge
                | NotAnApproval::Malformed(_)
                | NotAnApproval::Signed(_) => "glass_approval",
            },
            Self::SameOperator(_) => "glass_same_operator",
            Self::OperatorDenied(_) => "glass_operator_revoked",
            Self::OperatorNotInPolicy(_) => "glass_operator_not_in_policy",
            Self::Quorum { .. } => "glass_quorum",
            Self::Full => "glass_full",
            Self::NotRecorded(_) => "glass_not_recorded",
            Self::NotStored => "glass_not_stored",
            Self::NotNow => "glass_not_now",
            Self::NothingOpen => "glass_nothing_open",
        }
    }
}

impl MayOpen {
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// What it opens: rules of the grant that the policy in force here still names for it.
    pub fn rules(&self) -> &[Arc<str>] {
        &self.rules
    }

    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Who approved, each once.
    pub fn by(&self) -> &[SpiffeId] {
        &self.by
    }
}

/// The stricter of grant and policy holds wherever both say something.
pub fn judge(asked: &Asked<'_>, knows: &Knows<'_>) -> Result<MayOpen, NotOpened> {
    knows.standing.may_grant().map_err(NotOpened::Held)?;
    let code = Code::parse(asked.code)?;
    let contents = unseal(asked.sealed, &code)?;
    let grant =
        Grant::open(&contents.grant, knows.keys, knows.node, knows.now).map_err(|refused| {
            match refused {
                NotAGrant::Signed(Unacceptable::Audience(other)) => NotOpened::OtherNode(other),
                NotAGrant::Signed(Unacceptable::Expired) => NotOpened::Expired,
                other => NotOpened::Grant(other),
            }
        })?;
    if grant.body().node_key != knows.own_key {
        return Err(NotOpened::OtherKey);
    }
    if knows.uses.contains(grant.number()) {
        return Err(NotOpened::Used);
    }
    if knows.uses.is_full() {
        return Err(NotOpened::Full);
    }
    let name = &grant.body().name;
    let not_in_policy = || NotOpened::NotInPolicy(name.clone());
    let policy = knows
        .slice
        .filter(|slice| knows.now < slice.expires)
        .and_then(|slice| slice.break_glass.iter().find(|glass| glass.name == *name))
        .ok_or_else(not_in_policy)?;
    if policy.revoked.contains(&grant.number()) {
        return Err(NotOpened::Revoked);
    }
    let rules: Vec<Arc<str>> = policy
        .rules
        .iter()
        .filter(|rule| {
            grant
                .body()
                .rules
                .iter()
                .any(|granted| **granted == ***rule)
        })
        .cloned()
        .collect();
    if rules.is_empty() {
        return Err(not_in_policy());
    }
    let by = approved(asked.approvals, &grant, policy, knows)?;
    let ttl = policy.ttl.get().min(grant.body().ttl_seconds);
    Ok(MayOpen {
        rules,
        ttl: Duration::from_secs(ttl),
        by,
        grant,
    })
}

/// Whoever approved: every approval given must be a good one, so that nobody is misled about who said yes.
fn approved(
    approvals: &[Vec<u8>],
    grant: &Grant,
    policy: &SliceBreakGlass,
    knows: &Knows<'_>,
) -> Result<Vec<SpiffeId>, NotOpened> {
    if approvals.len() > MAX_APPROVALS {
        return Err(NotOpened::TooManyApprovals);
    }
    let mut by = BTreeSet::new();
    for (index, approval) in (1..).zip(approvals) {
        let approver = approved_by(approval, grant, knows.now)
            .map_err(|source| NotOpened::Approval { index, source })?;
        let id = approver.id.clone();
        if knows.deny.get(&approver.key.spki_hash()).is_some() {
            return Err(NotOpened::OperatorDenied(id));
        }
        if !policy.by.contains(&id) {
            return Err(NotOpened::OperatorNotInPolicy(id));
        }
        if !by.insert(id.clone()) {
            return Err(NotOpened::SameOperator(id));
        }
    }
    let needed = usize::from(policy.quorum.max(grant.body().quorum));
    match by.len() >= needed {
        true => Ok(by.into_iter().collect()),
        false => Err(NotOpened::Quorum {
            got: by.len(),
            needed,
        }),
    }
}

#[cfg(test)]
mod tests;
