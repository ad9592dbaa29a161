//! What the agent's commands say in their own words.

use edgeward_runtime::screen::{Paint, Screen};

use super::Failure;
use crate::enrol::Progress;

impl Progress for Screen {
    fn step(&self, line: &str) {
        self.note(line);
    }
}

/// `ok` or `bad` in its colour.
pub(super) fn verdict(screen: Screen, good: bool) -> String {
    match good {
        true => screen.painted("ok ", Paint::Good),
        false => screen.painted("bad", Paint::Bad),
    }
}

/// Why a command failed, and what to do about it.
pub(super) fn complain(screen: Screen, failure: &Failure) {
    if matches!(failure, Failure::Quiet) {
        return;
    }
    screen.error(&failure.to_string());
    if let Some(hint) = failure.hint() {
        screen.hint(&hint);
    }
}
