//! How well execution is enforced.

#[cfg(feature = "kernel-level")]
pub mod kernel;
#[cfg(not(feature = "kernel-level"))]
#[path = "level/absent.rs"]
pub mod kernel;

use serde::{Deserialize, Serialize};

/// From the weakest to the strongest; each holds what the ones before it hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Applications are verified when they are started by us.
    Launcher,
    /// The kernel asks about every open and exec on the volume.
    Fanotify,
    /// The kernel decides by itself.
    Kernel,
}
