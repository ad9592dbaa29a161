//! One application on its way up or down. Pure.

use std::time::Duration;

use edgeward_apps::name::AppName;
use edgeward_guard::control::{Ended, Order, Run};
use edgeward_identity::BootTime;

use super::{Note, Output};
use crate::apps::launch::{Wanted, group_name};

/// Wait after the first failure; doubled with each that follows.
const FIRST_WAIT: Duration = Duration::from_secs(1);
pub(in super::super) const MAX_WAIT: Duration = Duration::from_secs(60);
/// What has not ended after this time is ordered to again: the order, or what the guard did by it, may be lost.
pub(in super::super) const END_AGAIN: Duration = Duration::from_secs(4);
/// Who ran for so long has not failed.
const RAN_WELL: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct App {
    pub(super) wanted: Option<Wanted>,
    pub(super) phase: Phase,
    failures: u32,
    /// When its end was ordered last, as far as that was looked at.
    ordered: Option<BootTime>,
}

#[derive(Debug, Default)]
pub(super) enum Phase {
    #[default]
    Down,
    Waits(BootTime),
    Making(Wanted),
    /// A run that was there already needs no start.
    Granting(Wanted, Option<Run>),
    Starting(Wanted),
    Up(Wanted, BootTime),
    Ending {
        /// An answer is still on its way, which may have granted something.
        granting: bool,
        why: &'static str,
    },
}

impl App {
    pub(super) fn of(wanted: Wanted) -> Self {
        Self {
            wanted: Some(wanted),
            ..Self::default()
        }
    }

    pub(super) fn start(
        &mut self,
        app: &AppName,
        guard: bool,
        at: BootTime,
        out: &mut Vec<Output>,
    ) {
        let due = match self.phase {
            Phase::Down => true,
            Phase::Waits(until) => at >= until,
            _ => false,
        };
        let Some(wanted) = self.wanted.as_ref().filter(|_| due && guard) else {
            return;
        };
        out.push(Output::Order(Order::Make {
            name: group_name(app),
        }));
        self.phase = Phase::Making(wanted.clone());
    }

    /// Everything it may is withdrawn before anything else happens to it.
    pub(super) fn end(&mut self, app: &AppName, why: &'static str, out: &mut Vec<Output>) {
        let (granting, runs) = match &self.phase {
            Phase::Down | Phase::Waits(_) | Phase::Ending { .. } => return,
            Phase::Granting(_, run) => (true, run.is_some()),
            Phase::Making(_) | Phase::Starting(_) | Phase::Up(..) => (false, true),
        };
        out.push(Output::Withdraw(app.clone()));
        // While it is being granted something only the answer says what there is to end; but what ran before this agent
        // does not wait for that.
        if runs {
            out.push(Output::End(app.clone()));
        }
        self.phase = Phase::Ending { granting, why };
    }

    pub(super) fn ended(&mut self, app: &AppName, how: Ended, at: BootTime, out: &mut Vec<Output>) {
        match self.phase {
            // Its group follows.
            Phase::Ending { why, .. } => out.push(down(app, why, Some(how), None)),
            Phase::Up(_, since) if at.since(since) >= RAN_WELL => {
                self.failures = 0;
                self.failed(app, "ended", None, Some(how), at, out);
            }
            Phase::Up(..) | Phase::Starting(_) => {
                self.failed(app, "ended", None, Some(how), at, out);
            }
            // It was there when the guard was asked, and is to be started once it may.
            Phase::Granting(_, ref mut run) => *run = None,
            Phase::Down | Phase::Waits(_) | Phase::Making(_) => {}
        }
    }

    pub(super) fn failed(
        &mut self,
        app: &AppName,
        why: &'static str,
        detail: Option<String>,
        how: Option<Ended>,
        at: BootTime,
        out: &mut Vec<Output>,
    ) {
        if matches!(
            self.phase,
            Phase::Ending { .. } | Phase::Down | Phase::Waits(_)
        ) {
            return;
        }
        out.push(Output::Withdraw(app.clone()));
        out.push(down(app, why, how, detail));
        out.push(Output::Ended {
            app: app.clone(),
            lasting: false,
        });
        let doubled = FIRST_WAIT.saturating_mul(1 << self.failures.min(6));
        self.failures = self.failures.saturating_add(1);
        self.phase = Phase::Waits(at.plus(doubled.min(MAX_WAIT)));
    }

    /// Orders the end again of what does not end. What it may was withdrawn the first time.
    pub(super) fn remind(&mut self, app: &AppName, at: BootTime, out: &mut Vec<Output>) {
        let ends = matches!(
            self.phase,
            Phase::Ending {
                granting: false,
                ..
            }
        );
        if !ends {
            self.ordered = None;
        } else if at.since(*self.ordered.get_or_insert(at)) >= END_AGAIN {
            self.ordered = Some(at);
            out.push(Output::Order(Order::End {
                name: group_name(app),
            }));
        }
    }

    pub(super) fn gone(&mut self, app: &AppName, out: &mut Vec<Output>) {
        if matches!(
            self.phase,
            Phase::Ending {
                granting: false,
                ..
            }
        ) {
            out.push(Output::Ended {
                app: app.clone(),
                lasting: true,
            });
            self.phase = Phase::Down;
            self.failures = 0;
        }
    }
}

impl Phase {
    /// The release that is up, or on its way there.
    pub(super) fn wanted(&self) -> Option<&Wanted> {
        match self {
            Self::Down | Self::Waits(_) | Self::Ending { .. } => None,
            Self::Making(wanted)
            | Self::Granting(wanted, _)
            | Self::Starting(wanted)
            | Self::Up(wanted, _) => Some(wanted),
        }
    }
}

pub(super) fn down(
    app: &AppName,
    why: &'static str,
    how: Option<Ended>,
    detail: Option<String>,
) -> Output {
    Output::Note(Note::Down {
        app: app.clone(),
        why,
        how,
        detail,
    })
}
