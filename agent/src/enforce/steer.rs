//! Which packets of this machine go into the tunnel beside those of the overlay: to networks behind peers, and, where
//! the operator named an exit, to the internet.
//!
//! [`plan`]: rules and routes as they are to be; pure. `kernel`: reads and changes the machine's (rtnetlink). `keeper`:
//! the task that keeps them so, takes over what a run that crashed left, and takes all of it away at the end.
//!
//! Nothing of it touches the machine's own tables. What the agent itself sends goes by those alone
//! ([`crate::outside`]): the tunnel never carries itself, nor the session that rules it.

mod keeper;
mod kernel;
pub mod plan;

pub(super) use keeper::{Keeper, Setup};
pub use plan::{ExitUse, Leaving, Steering};

use edgeward_identity::SpiffeId;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// What leads to the internet now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitState {
    /// The exit.
    Leads,
    /// Nothing: the exit is not bound, and nothing else may.
    Blocked,
    /// The machine's own route: the exit is not bound.
    Direct,
    /// What the operator routes.
    ByRoute,
    /// Not what it should be: the kernel refused.
    Failed,
}

/// The exit that the operator named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    pub node: SpiffeId,
    pub state: ExitState,
}

/// What the keeper last did, for the status.
#[derive(Debug, Default)]
pub struct Shown(Mutex<Option<ExitStatus>>);

impl Shown {
    pub fn get(&self) -> Option<ExitStatus> {
        self.0.lock().clone()
    }

    /// Whether that is another state than before.
    fn set(&self, status: Option<ExitStatus>) -> bool {
        let mut shown = self.0.lock();
        let changed = *shown != status;
        *shown = status;
        changed
    }
}
