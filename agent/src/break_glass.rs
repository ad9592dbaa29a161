//! Break-glass on the node: what was sealed beforehand is opened once, by enough people, with the cloud gone.
//!
//! [`judge`] says whether a sealed grant may be opened (pure); [`GlassUses`] is what the sealed state remembers of it;
//! [`Desk`] is how the local socket reaches the one writer of the state (`session::apply`), which records the opening,
//! stores its use as a new epoch of the TPM, and only then publishes it; [`Closer`] ends it on the boot clock.

use std::sync::Arc;

use edgeward_identity::{BootTime, SpiffeId};

mod closer;
mod desk;
mod judge;
mod uses;

pub use closer::Closer;
pub use desk::{Desk, GlassOrders, Order, Ordered, orders};
pub use judge::{Asked, Knows, MAX_APPROVALS, MayOpen, NotOpened, judge};
pub use uses::{GlassUse, GlassUses, MAX_USES};

/// What is open on this node now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenGlass {
    /// The grant's.
    pub number: u64,
    /// `[break-glass.<name>]` of the policy.
    pub name: Arc<str>,
    pub rules: Vec<Arc<str>>,
    pub by: Vec<SpiffeId>,
    /// On this boot's clock, which nobody can set.
    pub until: BootTime,
}
