//! The task that keeps rules and routes as they are to be.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::{BootTime, SpiffeId};
use ipnet::IpNet;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::plan::{ExitUse, Leaving, Steering};
use super::{ExitState, ExitStatus, Shown, kernel};
use crate::enforce::DeviceName;
use crate::enforce::control::Control;
use crate::reach::local::Watch;

/// How often it is looked whether the exit is bound: its tunnel opens without a word.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often rules and routes are read back though nothing told of a change.
const READ_EVERY: Duration = Duration::from_secs(30);
/// How long to wait before what failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// How often the exit is said to be needed: more often than a peer is given up that was woken in vain.
const WAKE_EVERY: Duration = Duration::from_secs(5);
/// `RTMGRP_IPV4_RULE`, and the bit of `RTNLGRP_IPV6_RULE` (linux/rtnetlink.h): other programs remove what they do not
/// know, when they start.
const RULE_GROUPS: u32 = 0x80 | 1 << 18;

/// What the keeper is given.
pub(in crate::enforce) struct Setup {
    pub(in crate::enforce) control: Arc<Control>,
    /// The exit that the operator named, and how it is used.
    pub(in crate::enforce) exit: Option<(SpiffeId, ExitUse)>,
    /// Networks behind peers.
    pub(in crate::enforce) nets: watch::Receiver<BTreeSet<IpNet>>,
    pub(in crate::enforce) tunnel: DeviceName,
    pub(in crate::enforce) shown: Arc<Shown>,
}

/// Keeps them.
pub(in crate::enforce) struct Keeper {
    setup: Setup,
    /// What was made last; none: not known to be there.
    made: Option<Steering>,
    woken: Option<BootTime>,
}

impl Keeper {
    pub(in crate::enforce) fn new(setup: Setup) -> Self {
        Self {
            setup,
            made: None,
            woken: None,
        }
    }

    /// Runs until the token is cancelled, then takes all of it away.
    pub(in crate::enforce) async fn run(mut self, token: CancellationToken) {
        let mut changes = self.setup.control.scene.decider().changes();
        let mut watch = match Watch::on(RULE_GROUPS) {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::warn!(%error, "changes of the machine's rules are noticed late");
                None
            }
        };
        let mut read = tokio::time::interval(READ_EVERY);
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            changes.mark_unchanged();
            if !self.renew().await {
                tokio::select! {
                    () = token.cancelled() => break,
                    () = tokio::time::sleep(RETRY_AFTER) => continue,
                }
            }
            tokio::select! {
                () = token.cancelled() => break,
                changed = changes.changed() => if changed.is_err() { break },
                changed = self.setup.nets.changed() => if changed.is_err() { break },
                () = heard(watch.as_mut()) => self.made = None,
                _ = read.tick() => self.made = None,
                _ = look.tick(), if self.setup.exit.is_some() => {}
            }
        }
        if let Err(failed) = kernel::keep(&Steering::default(), &self.setup.tunnel).await {
            tracing::warn!(%failed, "rules and routes into the tunnel are not removed");
        }
    }

    /// Whether all is as it is to be.
    async fn renew(&mut self) -> bool {
        let is_bound = self.is_bound();
        let (leaving, state) = match &self.setup.exit {
            None => (Leaving::Own, None),
            Some((_, used)) => (Leaving::new(*used, is_bound), Some(state(*used, is_bound))),
        };
        self.keep_awake();
        let overlay = self.setup.control.scene.picture().parts().overlay;
        let nets = self.setup.nets.borrow_and_update().clone();
        let wanted = Steering::new(&nets, leaving, overlay);
        if self.made.as_ref() == Some(&wanted) {
            return true;
        }
        self.made = None;
        let kept = kernel::keep(&wanted, &self.setup.tunnel).await;
        let is_kept = match kept {
            Ok(changed) => {
                if changed {
                    tracing::debug!(
                        rules = wanted.rules.len(),
                        routes = wanted.routes.len(),
                        "rules and routes into the tunnel made"
                    );
                }
                self.made = Some(wanted);
                true
            }
            Err(failed) => {
                tracing::error!(%failed, "packets are not led into the tunnel as they should be");
                metrics::counter!("edgeward_route_failures_total").increment(1);
                false
            }
        };
        self.show(state.map(|state| if is_kept { state } else { ExitState::Failed }));
        is_kept
    }

    /// Nobody knocks at the internet, so the exit is bound whoever talks.
    fn keep_awake(&mut self) {
        let now = self.setup.control.clock.boottime();
        let rests = self.woken.is_some_and(|at| now.since(at) < WAKE_EVERY);
        if let (false, Some((exit, _))) = (rests, &self.setup.exit) {
            self.setup.control.desk.wake(exit.clone());
            self.woken = Some(now);
        }
    }

    fn is_bound(&self) -> bool {
        let Some((exit, _)) = &self.setup.exit else {
            return false;
        };
        let books = self.setup.control.books.lock();
        books.armed.get(exit).is_some_and(|armed| {
            let leads = armed.allowed_ips.iter().any(|net| net.prefix_len() == 0);
            leads && armed.open_since.is_some()
        })
    }

    fn show(&self, state: Option<ExitState>) {
        let named = self.setup.exit.as_ref().zip(state);
        let status = named.map(|((exit, _), state)| ExitStatus {
            node: exit.clone(),
            state,
        });
        if self.setup.shown.set(status.clone())
            && let Some(status) = status
        {
            tracing::info!(exit = %status.node, state = ?status.state, "the way to the internet");
        }
    }
}

fn state(used: ExitUse, is_bound: bool) -> ExitState {
    match (used, is_bound) {
        (ExitUse::ByRoute, _) => ExitState::ByRoute,
        (_, true) => ExitState::Leads,
        (ExitUse::Only, false) => ExitState::Blocked,
        (ExitUse::Prefer, false) => ExitState::Direct,
    }
}

async fn heard(watch: Option<&mut Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}
