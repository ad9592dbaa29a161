//! How well execution is enforced.

#[cfg(feature = "kernel-level")]
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

/// Why the kernel does not decide by itself here.
pub fn lacks_kernel() -> String {
    #[cfg(feature = "kernel-level")]
    return match kernel::probe() {
        // It could be done here, and there is no program yet that does it.
        Ok(()) => "kernel: programs of the right kind load here, none is built in".to_owned(),
        Err(error) => format!("kernel: {error}"),
    };
    #[cfg(not(feature = "kernel-level"))]
    "kernel: not built in".to_owned()
}
