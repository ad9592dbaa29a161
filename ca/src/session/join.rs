//! The join counter: what tells two holders of one identity from one. Pure.
//!
//! Every Welcome offers the next number; the node stores it, says so, and says it again in its next Hello. The cloud
//! keeps the highest number that the node is known to have *stored*. So a node is never behind its own counter,
//! wherever a crash or a broken link falls: what it stored cannot be lower than what it was heard to have stored. A
//! copy of its state stays where the original was when it was copied, while the original goes on: as soon as either
//! has joined, the other one is behind.
//!
//! A Hello may be late, though: said on a connection that its node gave up since. One that is behind is a copy's only if
//! its connection began after the number was raised; the node had stored it before that. Any other is turned away, and
//! whoever said it says the same again on a new connection if it is a copy.
//!
//! A node that is *ahead* is the same node before a cloud that forgot: a number that was not written yet when the cloud
//! crashed, or a database put back. It passes, and the counter follows it.

use edgeward_identity::BootTime;

/// Highest number that a node may say: leaves room to count on.
pub(crate) const MAX_JOIN: u64 = 1 << 62;

/// What is kept for an SVID key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Confirmed {
    /// The highest number that its holder is known to have stored.
    pub number: u64,
    /// When that became known to this process.
    pub since: BootTime,
}

/// What a Hello with a counter comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    /// To be kept.
    pub confirmed: Confirmed,
    /// To be offered in the Welcome.
    pub next: u64,
}

/// The node's number does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinRefused {
    #[error(
        "join counter is behind: said {said}, stored by this identity's holder: {confirmed}; two holders of one identity"
    )]
    Behind { said: u64, confirmed: u64 },
    #[error(
        "join counter is behind, on a connection older than the newer one: said {said}, stored {confirmed}"
    )]
    Overtaken { said: u64, confirmed: u64 },
    #[error("join counter was never offered: {0}")]
    NotOffered(u64),
}

/// Judges the counter in a Hello, said on a connection that began at `accepted`. `confirmed`: what is kept for this SVID
/// key; none for one that never joined, or whose holders an operator has looked at.
pub(crate) fn hello(
    confirmed: Option<Confirmed>,
    said: u64,
    accepted: BootTime,
    now: BootTime,
) -> Result<Joined, JoinRefused> {
    if said > MAX_JOIN {
        return Err(JoinRefused::NotOffered(said));
    }
    let confirmed = match confirmed {
        Some(Confirmed { number, since }) if said < number => {
            let confirmed = number;
            return Err(match accepted > since {
                true => JoinRefused::Behind { said, confirmed },
                false => JoinRefused::Overtaken { said, confirmed },
            });
        }
        other => raised(other, said, now),
    };
    Ok(Joined {
        confirmed,
        next: said + 1,
    })
}

/// What is kept after a node has stored `join`, which this session was offered as `offered`. A message that comes late,
/// after another session of the node, takes nothing back.
pub(crate) fn stored(
    confirmed: Option<Confirmed>,
    offered: u64,
    join: u64,
    now: BootTime,
) -> Result<Confirmed, JoinRefused> {
    match join == offered {
        true => Ok(raised(confirmed, join, now)),
        false => Err(JoinRefused::NotOffered(join)),
    }
}

fn raised(confirmed: Option<Confirmed>, number: u64, now: BootTime) -> Confirmed {
    match confirmed {
        Some(confirmed) if confirmed.number >= number => confirmed,
        _ => Confirmed { number, since: now },
    }
}

#[cfg(test)]
mod tests;
