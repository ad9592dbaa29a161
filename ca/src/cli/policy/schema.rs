//! `edgeward policy schema`.

use edgeward_policy::JSON_SCHEMA;

use crate::cli::{Failure, Session};

pub(super) fn run(session: &Session) -> Result<(), Failure> {
    JSON_SCHEMA
        .lines()
        .for_each(|line| session.screen.line(line));
    Ok(())
}
