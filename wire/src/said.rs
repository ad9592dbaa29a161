//! What cloud and agent must agree on about what a node says of its applications.

/// How applications are controlled at exec, the weakest first; the first: not at all, on a node that has none.
pub const LEVELS: [&str; 4] = ["", "launcher", "fanotify", "kernel"];

/// Where an application is on its node.
pub const STATES: [&str; 8] = [
    "waiting",
    "fetching",
    "installed",
    "starting",
    "running",
    "stopped",
    "failed",
    "refused",
];
