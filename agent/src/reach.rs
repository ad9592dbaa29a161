//! Finding ways to peers, and keeping the best of them.
//!
//! What a path is worth is decided by [`edgeward_tunnel::reach`], which measures the paths to bound peers. Here is what
//! that cannot do alone: this machine's addresses ([`local`], [`candidates`]), what the cloud sees of them (STUN), calls
//! through the cloud that open NATs ([`knocks`]), and datagrams through the cloud where nothing else passes ([`carry`]).
//! When which of these is tried is [`ways`].

pub mod allowance;
pub mod candidates;
pub mod carry;
pub mod desk;
pub mod driver;
pub mod knocks;
pub mod local;
pub mod seeker;
pub mod shown;
pub mod switches;
pub mod ways;
