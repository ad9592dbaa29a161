//! Which application is where on its way up or down. Pure: told what happens and when, it says what to do.

mod app;

use std::collections::BTreeMap;

use edgeward_apps::name::AppName;
use edgeward_guard::control::{Ended, Order, Run};
use edgeward_identity::{BootTime, Timestamp};

use super::super::guard::Heard;
use super::super::launch::{Places, Running, Wanted, app_of_group, digest_in};
use super::words::Words;
use app::{App, Phase, down};
#[cfg(test)]
pub(super) use app::{END_AGAIN, MAX_WAIT};

#[derive(Debug)]
pub(super) enum Input {
    /// All that should run.
    Want(BTreeMap<AppName, Wanted>),
    /// What forbids releases from now on.
    Words(Words),
    /// This one at once no longer, whatever was wanted before.
    End(AppName, &'static str),
    Heard(Heard),
    /// What it needs to run was granted, or why not.
    Granted(AppName, Result<(), String>),
    Tick,
}

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Order(Order),
    /// Everything that it may, and the record of it, before it runs.
    Grant(Running),
    /// Takes from an application whatever it may, before it is stopped.
    Withdraw(AppName),
    /// Stops it, once that was taken.
    End(AppName),
    /// Nothing of it runs any more; if it lasts, not even its group is left.
    Ended {
        app: AppName,
        lasting: bool,
    },
    /// There is nobody who could end them.
    KillAll,
    Note(Note),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    Up(Running, Run),
    Down {
        app: AppName,
        why: &'static str,
        how: Option<Ended>,
        detail: Option<String>,
    },
}

/// Where an application is, in a word that people and the cloud are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Starting,
    Running,
    Stopping,
    /// It failed, and is tried again later.
    Failed,
}

#[derive(Debug)]
pub(super) struct Machine {
    places: Places,
    apps: BTreeMap<AppName, App>,
    guard: bool,
    /// Whether anybody has said what should run.
    asked: bool,
    /// What a guard said that runs, until then.
    found: BTreeMap<AppName, Run>,
    words: Words,
}

impl Machine {
    pub(super) fn new(places: Places) -> Self {
        Self {
            places,
            apps: BTreeMap::new(),
            guard: false,
            asked: false,
            found: BTreeMap::new(),
            words: Words::default(),
        }
    }

    pub(super) fn step(&mut self, input: Input, now: Timestamp, at: BootTime) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Want(wanted) => self.want(wanted, &mut out),
            Input::Words(words) => {
                self.words = words;
                self.bar(&mut out);
            }
            Input::End(app, why) => {
                if let Some(state) = self.apps.get_mut(&app) {
                    state.wanted = None;
                    state.end(&app, why, &mut out);
                }
            }
            Input::Heard(heard) => self.hear(heard, at, &mut out),
            Input::Granted(app, result) => self.granted(&app, result, at, &mut out),
            Input::Tick => {
                for (app, state) in &mut self.apps {
                    state.remind(app, at, &mut out);
                }
            }
        }
        self.settle(now, at, &mut out);
        out
    }

    /// Those that have been granted what they need.
    pub(super) fn running(&self) -> BTreeMap<AppName, Running> {
        let up = self.apps.iter().filter_map(|(app, state)| {
            let (Phase::Starting(wanted) | Phase::Up(wanted, _)) = &state.phase else {
                return None;
            };
            Some((app.clone(), wanted.running(&self.places)))
        });
        up.collect()
    }

    /// Whether `stages` has everything that runs: a guard said it, and whatever it found was taken up.
    pub(super) fn knows(&self) -> bool {
        self.guard && self.asked
    }

    /// What is being granted something.
    pub(super) fn wanted(&self, app: &AppName) -> Option<Wanted> {
        self.apps.get(app)?.phase.wanted().cloned()
    }

    pub(super) fn stages(&self) -> BTreeMap<AppName, Stage> {
        let stages = self.apps.iter().map(|(app, state)| {
            let stage = match state.phase {
                Phase::Up(..) => Stage::Running,
                Phase::Ending { .. } => Stage::Stopping,
                Phase::Waits(_) => Stage::Failed,
                Phase::Down | Phase::Making(_) | Phase::Granting(..) | Phase::Starting(_) => {
                    Stage::Starting
                }
            };
            (app.clone(), stage)
        });
        stages.collect()
    }

    fn want(&mut self, mut wanted: BTreeMap<AppName, Wanted>, out: &mut Vec<Output>) {
        // Whoever wants may not have heard yet what was said since.
        wanted.retain(|_, wanted| {
            let refused = self.words.refuse(&wanted.manifest, wanted.digest);
            refused.is_none()
        });
        for (app, state) in &mut self.apps {
            state.wanted = wanted.remove(app);
        }
        for (app, wanted) in wanted {
            self.apps.insert(app, App::of(wanted));
        }
        self.asked = true;
        self.adopt_found(out);
    }

    /// Ends what may not run any more, and forgets that it was wanted.
    fn bar(&mut self, out: &mut Vec<Output>) {
        let words = &self.words;
        let refuse = |wanted: &Wanted| words.refuse(&wanted.manifest, wanted.digest);
        for (app, state) in &mut self.apps {
            if state.wanted.as_ref().and_then(refuse).is_some() {
                state.wanted = None;
            }
            if let Some(why) = state.phase.wanted().and_then(refuse) {
                state.end(app, why, out);
            }
        }
        self.bar_found(out);
    }

    /// The same for what an agent before this one started, while nobody has said yet what should run.
    fn bar_found(&mut self, out: &mut Vec<Output>) {
        let words = &self.words;
        let denied = |run: &Run| digest_in(&run.what).is_some_and(|digest| words.denies(&digest));
        let (gone, kept) = std::mem::take(&mut self.found)
            .into_iter()
            .partition(|(_, run)| denied(run));
        self.found = kept;
        for (app, _) in gone {
            out.push(Output::Withdraw(app.clone()));
            out.push(Output::End(app.clone()));
            let why = "app-denied";
            let granting = false;
            self.apps.entry(app).or_default().phase = Phase::Ending { granting, why };
        }
    }

    fn adopt_found(&mut self, out: &mut Vec<Output>) {
        for (app, run) in std::mem::take(&mut self.found) {
            self.adopt(app, run, out);
        }
    }

    /// It runs, and nobody here has started it: an agent before this one did.
    fn adopt(&mut self, app: AppName, run: Run, out: &mut Vec<Output>) {
        let state = self.apps.entry(app.clone()).or_default();
        match &state.wanted {
            // An answer that is still on its way must not be taken for this run's.
            _ if matches!(state.phase, Phase::Ending { granting: true, .. }) => {
                out.push(Output::End(app.clone()));
            }
            Some(wanted) if wanted.what() == run.what => {
                let wanted = wanted.clone();
                out.push(Output::Grant(wanted.running(&self.places)));
                state.phase = Phase::Granting(wanted, Some(run));
            }
            _ => {
                // The agent before let it in.
                out.push(Output::Withdraw(app.clone()));
                out.push(Output::End(app.clone()));
                state.phase = Phase::Ending {
                    granting: false,
                    why: "not-wanted",
                };
            }
        }
    }

    fn hear(&mut self, heard: Heard, at: BootTime, out: &mut Vec<Output>) {
        match heard {
            Heard::Here(runs) => {
                self.guard = true;
                let known = |run: Run| Some((app_of_group(&run.name)?, run));
                self.found = runs.into_iter().filter_map(known).collect();
                match self.asked {
                    true => self.adopt_found(out),
                    false => self.bar_found(out),
                }
            }
            Heard::Away => self.away(out),
            Heard::Made(name) => self.made(&name, out),
            Heard::Started(run) => {
                let Some((app, state)) = self.of_group(&run.name) else {
                    return;
                };
                if let Phase::Starting(wanted) = &state.phase {
                    let (wanted, places) = (wanted.clone(), &self.places);
                    out.push(Output::Note(Note::Up(wanted.running(places), run)));
                    if let Some(state) = self.apps.get_mut(&app) {
                        state.phase = Phase::Up(wanted, at);
                    }
                }
            }
            Heard::NotStarted { name, why } => {
                if let Some((app, state)) = self.of_group_mut(&name) {
                    state.failed(&app, "not-started", Some(why), None, at, out);
                }
            }
            Heard::Ended { name, how } => {
                self.found.retain(|_, run| run.name != name);
                if let Some((app, state)) = self.of_group_mut(&name) {
                    state.ended(&app, how, at, out);
                }
            }
            Heard::Gone(name) => {
                if let Some((app, state)) = self.of_group_mut(&name) {
                    state.gone(&app, out);
                }
            }
        }
    }

    /// Whoever could end them properly is gone, and nobody answers the kernel: nothing stays.
    fn away(&mut self, out: &mut Vec<Output>) {
        self.guard = false;
        self.found.clear();
        let up: Vec<&AppName> = self
            .apps
            .iter()
            .filter(|(_, state)| !matches!(state.phase, Phase::Down | Phase::Waits(_)))
            .map(|(app, _)| app)
            .collect();
        out.extend(up.iter().map(|app| Output::Withdraw((*app).clone())));
        out.push(Output::KillAll);
        for app in up {
            out.push(down(app, "guard-away", None, None));
            out.push(Output::Ended {
                app: app.clone(),
                lasting: false,
            });
        }
        for state in self.apps.values_mut() {
            state.phase = match &state.phase {
                // Its answer must not be taken for that of a later start.
                Phase::Granting(..) | Phase::Ending { granting: true, .. } => Phase::Ending {
                    granting: true,
                    why: "guard-away",
                },
                Phase::Waits(until) => Phase::Waits(*until),
                _ => Phase::Down,
            };
        }
    }

    fn made(&mut self, name: &str, out: &mut Vec<Output>) {
        let places = self.places.clone();
        let Some((_, state)) = self.of_group_mut(name) else {
            return;
        };
        if let Phase::Making(wanted) = &state.phase {
            let wanted = wanted.clone();
            out.push(Output::Grant(wanted.running(&places)));
            state.phase = Phase::Granting(wanted, None);
        }
    }

    fn granted(
        &mut self,
        app: &AppName,
        result: Result<(), String>,
        at: BootTime,
        out: &mut Vec<Output>,
    ) {
        let (places, guard) = (self.places.clone(), self.guard);
        let Some(state) = self.apps.get_mut(app) else {
            return;
        };
        match (&state.phase, result) {
            (Phase::Granting(wanted, None), Ok(())) => {
                out.push(Output::Order(wanted.start(&places)));
                state.phase = Phase::Starting(wanted.clone());
            }
            (Phase::Granting(wanted, Some(run)), Ok(())) => {
                let note = Note::Up(wanted.running(&places), run.clone());
                out.push(Output::Note(note));
                state.phase = Phase::Up(wanted.clone(), at);
            }
            (Phase::Granting(_, None), Err(why)) => {
                state.failed(app, "not-granted", Some(why), None, at, out);
            }
            (Phase::Granting(wanted, Some(_)), Err(_)) => {
                state.phase = Phase::Up(wanted.clone(), at);
                state.end(app, "not-granted", out);
            }
            // Too late: what it granted is taken back.
            (
                Phase::Ending {
                    granting: true,
                    why,
                },
                _,
            ) => {
                out.push(Output::Withdraw(app.clone()));
                if guard {
                    out.push(Output::End(app.clone()));
                    state.phase = Phase::Ending {
                        granting: false,
                        why,
                    };
                } else {
                    state.phase = Phase::Down;
                }
            }
            _ => {}
        }
    }

    /// Brings every application nearer to what is wanted.
    fn settle(&mut self, now: Timestamp, at: BootTime, out: &mut Vec<Output>) {
        for (app, state) in &mut self.apps {
            let lease = state.wanted.as_ref().map(|wanted| now < wanted.until);
            let current = state.phase.wanted().map(Wanted::what);
            match (lease, current) {
                (Some(true), Some(current)) => {
                    if state.wanted.as_ref().map(Wanted::what) != Some(current) {
                        state.end(app, "replaced", out);
                    }
                }
                (Some(true), None) => state.start(app, self.guard, at, out),
                (Some(false), Some(_)) => state.end(app, "app-expired", out),
                (None, Some(_)) => state.end(app, "not-wanted", out),
                (Some(false) | None, None) => {}
            }
        }
        self.apps.retain(|_, state| {
            state.wanted.is_some() || !matches!(state.phase, Phase::Down | Phase::Waits(_))
        });
    }

    fn of_group(&self, name: &str) -> Option<(AppName, &App)> {
        let app = app_of_group(name)?;
        let state = self.apps.get(&app)?;
        Some((app, state))
    }

    fn of_group_mut(&mut self, name: &str) -> Option<(AppName, &mut App)> {
        let app = app_of_group(name)?;
        let state = self.apps.get_mut(&app)?;
        Some((app, state))
    }
}
