//! How well execution can be enforced here, found out by trying.

use std::path::Path;

use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags};
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::volume::Volume;

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

/// What was tried and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// None: not even launching works.
    pub level: Option<Level>,
    /// Why it is not the next one.
    pub lacks: Vec<String>,
}

/// Tries each level. Needs the rights that the agent has.
pub fn probe(volume: &Path, apps: &Path) -> Report {
    let mut lacks = Vec::new();
    let mut level = None;
    match launcher(apps) {
        Ok(()) => level = Some(Level::Launcher),
        Err(lack) => lacks.push(format!("launcher: {lack}")),
    }
    match fanotify(volume) {
        Ok(()) if level.is_some() => level = Some(Level::Fanotify),
        Ok(()) => {}
        Err(lack) => lacks.push(format!("fanotify: {lack}")),
    }
    lacks.push("kernel: not built in".to_owned());
    Report { level, lacks }
}

fn launcher(apps: &Path) -> Result<(), String> {
    Cgroup::open(apps).map_err(|error| error.to_string())?;
    use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};
    // Made and dropped: nothing is restricted by it.
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(landlock::Ruleset::create)
        .map(drop)
        .map_err(|error| format!("no landlock: {error}"))
}

fn fanotify(volume: &Path) -> Result<(), String> {
    Volume::open(volume).map_err(|error| error.to_string())?;
    let flags = InitFlags::FAN_CLASS_CONTENT
        | InitFlags::FAN_CLOEXEC
        | InitFlags::FAN_UNLIMITED_QUEUE
        | InitFlags::FAN_UNLIMITED_MARKS;
    Fanotify::init(flags, EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC)
        .map(drop)
        .map_err(|error| error.to_string())
}
