//! How well applications are controlled here at this moment: what evidence, status and the audit log say.

use std::sync::Arc;

use edgeward_audit::{Event, EventKind};
use edgeward_guard::book::Mode;
use edgeward_guard::level::Level;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::guard::GuardState;
use super::records::{Noticed, Teller};

/// The word of evidence and of policies; empty: not at all.
pub fn word(state: &GuardState) -> &'static str {
    // A guard that is shut lets nothing run: nothing is better controlled than that. One without a book refuses all.
    match state.level {
        Some(Level::Launcher) => "launcher",
        // It asks, and lets everything through.
        Some(Level::Fanotify | Level::Kernel) if state.mode == Some(Mode::Observe) => "launcher",
        Some(Level::Fanotify) => "fanotify",
        Some(Level::Kernel) => "kernel",
        None => "",
    }
}

/// Records every change, and what it was before.
pub async fn follow(
    mut state: watch::Receiver<GuardState>,
    teller: Arc<Teller>,
    noticed: Arc<dyn Noticed>,
    token: CancellationToken,
) -> anyhow::Result<()> {
    let mut before = "";
    loop {
        let (now, lacks) = {
            let state = state.borrow_and_update();
            let mut lacks = state.lacks.join("; ");
            if state.mode == Some(Mode::Observe) {
                lacks = "observe mode".to_owned();
            }
            (word(&state), lacks)
        };
        if now != before {
            teller.tell(changed(&teller, before, now, &lacks));
            noticed.level(now).await;
            before = now;
        }
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            changed = state.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

fn changed(teller: &Teller, before: &str, now: &str, lacks: &str) -> Event {
    let or_none = |word: &str| if word.is_empty() { "none" } else { word }.to_owned();
    let event = teller
        .event(EventKind::AppLevelChanged)
        .detail("before", or_none(before))
        .detail("now", or_none(now));
    match lacks.is_empty() {
        true => event,
        false => event.detail("lacks", lacks),
    }
}
