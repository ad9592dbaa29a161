//! The second wall: Landlock, which needs no process that stays alive and cannot be taken down again (landlock(7)).

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, PathFdError,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::order::Order;
use super::root::{APP, LIBRARIES, LOADERS, MEMORY, STATE};

/// Newest rules that are asked for; what an older kernel lacks is left out, and the first version is the least.
const NEWEST: ABI = ABI::V6;

#[derive(Debug, thiserror::Error)]
pub enum WallsError {
    #[error("walls cannot be described: {0}")]
    Ruleset(#[from] RulesetError),
    #[error("{0}")]
    Path(#[from] PathFdError),
    #[error("kernel has no Landlock, or it is switched off")]
    Absent,
}

/// Nothing but the application's own files and the machine's loader can be executed from here on, by this process and
/// all that come from it.
pub fn raise(order: &Order) -> Result<(), WallsError> {
    let all = AccessFs::from_all(NEWEST);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let run = read | AccessFs::Execute;
    let devices = AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev;
    let write = all & !(devices | AccessFs::Execute);
    let mut walls = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    walls = allow(walls, APP, run)?;
    if order.host_libraries {
        for path in LIBRARIES {
            walls = allow(walls, path, read)?;
        }
        for path in LOADERS {
            walls = allow(walls, path, AccessFs::ReadFile | AccessFs::Execute)?;
        }
        walls = allow(walls, "/etc", read)?;
    }
    walls = allow(walls, "/proc", read)?;
    walls = allow(walls, "/dev", AccessFs::ReadFile | AccessFs::WriteFile)?;
    for path in [STATE].into_iter().chain(MEMORY) {
        walls = allow(walls, path, write)?;
    }
    match walls.restrict_self()?.ruleset {
        RulesetStatus::NotEnforced => Err(WallsError::Absent),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}

fn allow(
    walls: RulesetCreated,
    path: &str,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, WallsError> {
    if !Path::new(path).exists() {
        return Ok(walls);
    }
    Ok(walls.add_rule(PathBeneath::new(PathFd::new(path)?, access))?)
}
