//! The tasks of enforcement, begun together.

use std::path::Path;
use std::sync::Arc;

use edgeward_runtime::shutdown::Tasks;
use tokio_util::sync::CancellationToken;

use super::guard::{self, Guard};
use super::launch::Places;
use super::records::{Noticed, Records, Teller};
use super::runs::{self, Rights, Runs, Said};

/// What the rest of the agent has of enforcement.
#[derive(Clone, Debug)]
pub struct Enforcing {
    pub guard: Guard,
    pub runs: Runs,
}

/// Begins to talk to the guard that listens on `socket`, and to run what is said to run and not forbidden.
pub fn enforce(
    socket: &Path,
    (places, said): (Places, Said),
    teller: Teller,
    rights: Arc<dyn Rights>,
    noticed: Arc<dyn Noticed>,
    tasks: &mut Tasks,
    token: &CancellationToken,
) -> Enforcing {
    let teller = Arc::new(teller);
    let records = Arc::new(Records::new(teller.clone(), noticed.clone()));
    let (guard, link, heard) = guard::guard(socket, records.clone());
    let (runs, runner) = runs::runs(guard.clone(), heard, rights, teller.clone(), (places, said));
    tasks.spawn("apps-guard", link.run(token.clone()));
    tasks.spawn("apps-runs", runner.run(token.clone()));
    tasks.spawn("apps-records", records.run(token.clone()));
    let level = super::level::follow(guard.state(), teller, noticed, token.clone());
    tasks.spawn("apps-level", level);
    Enforcing { guard, runs }
}
