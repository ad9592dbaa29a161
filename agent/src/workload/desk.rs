//! Which workloads a caller is: the registrations of this node's slice, each of its selectors held against the process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use edgeward_audit::event::{Actor, Event, EventKind};
use edgeward_identity::BootTime;
use edgeward_identity::jwt::JwtBundle;
use edgeward_identity::{Purpose, SpiffeId};
use edgeward_policy::Workload;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::caller::{Caller, NotAttested};
use super::digest::Digests;
use super::pods::Pods;
use super::selectors::{Launched, Process, asks_digest, matches, matches_but_digest};
use super::svids::{Held, Svids};
use crate::enforce::Recorder;
use crate::view::NodeView;

/// Refusals of one user are recorded this often at most.
const RECORD_EVERY: Duration = Duration::from_secs(60);
/// Most users whose refusals are told apart.
const MAX_USERS: usize = 256;

/// What answers need. One per agent.
pub(super) struct Desk {
    pub(super) view: NodeView,
    pub(super) svids: Arc<Svids>,
    digests: Digests,
    pods: Pods,
    launched: watch::Receiver<Arc<Vec<Launched>>>,
    recorder: Arc<dyn Recorder>,
    refusals: Mutex<BTreeMap<(u32, &'static str), Refusals>>,
}

#[derive(Clone, Copy)]
struct Refusals {
    recorded: BootTime,
    /// Since then.
    count: u64,
}

/// A caller is given nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Denied {
    #[error(transparent)]
    NotAttested(#[from] NotAttested),
    #[error("no registration of this node matches the process")]
    NoIdentity,
    #[error("the process may not be that workload")]
    OtherIdentity,
}

impl Denied {
    /// Stable reason code.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::NotAttested(why) => why.code(),
            Self::NoIdentity => "no_identity",
            Self::OtherIdentity => "other_identity",
        }
    }
}

impl Desk {
    pub(super) fn new(
        view: NodeView,
        svids: Arc<Svids>,
        pods: Pods,
        launched: watch::Receiver<Arc<Vec<Launched>>>,
        recorder: Arc<dyn Recorder>,
    ) -> Self {
        Self {
            view,
            svids,
            digests: Digests::default(),
            pods,
            launched,
            recorder,
            refusals: Mutex::default(),
        }
    }

    /// Applications as they were started; changes when one is, or is about to be ended.
    pub(super) fn launched(&self) -> watch::Receiver<Arc<Vec<Launched>>> {
        self.launched.clone()
    }

    /// The workloads that a process is now; never empty. Looks at the process anew every time.
    pub(super) async fn identify(
        self: &Arc<Self>,
        caller: &Arc<Caller>,
    ) -> Result<Vec<SpiffeId>, Denied> {
        let registered = self.registered();
        if registered.is_empty() {
            return Err(self.denied(caller, Denied::NoIdentity));
        }
        let (desk, who) = (self.clone(), caller.clone());
        // Files of /proc, and perhaps a program to be read.
        let found = tokio::task::spawn_blocking(move || desk.matching(&who, &registered)).await;
        let found = found.unwrap_or_else(|panicked| {
            tracing::error!(%panicked, "a process could not be looked at");
            Err(NotAttested::Malformed)
        });
        match found {
            Ok(found) if found.is_empty() => Err(self.denied(caller, Denied::NoIdentity)),
            Ok(found) => Ok(found),
            Err(why) => Err(self.denied(caller, why.into())),
        }
    }

    /// Counts and, not too often, records that a caller was given nothing.
    pub(super) fn denied(&self, caller: &Caller, why: Denied) -> Denied {
        let code = why.code();
        metrics::counter!("edgeward_workload_refused_total", "code" => code).increment(1);
        tracing::debug!(uid = caller.uid, pid = caller.pid, code, reason = %why, "workload api refuses a process");
        let now = self.view.clock.boottime();
        let count = {
            let mut refusals = self.refusals.lock();
            let crowded = refusals.len() >= MAX_USERS;
            if crowded {
                refusals.retain(|_, known| now.since(known.recorded) < RECORD_EVERY);
            }
            match refusals.get_mut(&(caller.uid, code)) {
                Some(known) if now.since(known.recorded) < RECORD_EVERY => {
                    known.count += 1;
                    return why;
                }
                Some(known) => {
                    let count = known.count + 1;
                    *known = Refusals {
                        recorded: now,
                        count: 0,
                    };
                    count
                }
                // Everybody is refused at once: the counter says how often.
                None if crowded => return why,
                None => {
                    let first = Refusals {
                        recorded: now,
                        count: 0,
                    };
                    refusals.insert((caller.uid, code), first);
                    1
                }
            }
        };
        let event = self
            .event(EventKind::WorkloadRefused)
            .denied(code)
            .detail("uid", caller.uid)
            .detail("pid", caller.pid)
            .detail("count", count)
            .detail("reason", &why);
        self.recorder.record_after(event);
        why
    }

    /// Records that a process was handed an SVID.
    pub(super) fn served(&self, caller: &Caller, held: &Held) {
        let event = self
            .event(EventKind::WorkloadServed)
            .subject(held.id.clone())
            .allowed()
            .detail("serial", &held.serial)
            .detail("uid", caller.uid)
            .detail("pid", caller.pid);
        self.recorder.record_after(event);
    }

    /// Keys of the cloud's key set that sign tokens.
    pub(super) fn jwt_bundle(&self) -> JwtBundle {
        let keys = self.view.keys.borrow().clone();
        let now = self.view.clock.now();
        let domain = self.view.node.trust_domain().clone();
        JwtBundle::new(domain, keys.keys_for(Purpose::Jwt, now))
    }

    /// The trust domain as a SPIFFE ID without path: what bundles are keyed by.
    pub(super) fn domain(&self) -> String {
        format!("spiffe://{}", self.view.node.trust_domain())
    }

    /// What the policy in force names on this node. Past its end it allows nothing.
    fn registered(&self) -> Vec<Workload> {
        let slice = self.view.slice.borrow().clone();
        let now = self.view.clock.now();
        let slice = slice.filter(|held| held.slice.expires > now);
        let named = slice.map_or_else(Vec::new, |held| held.slice.workloads.clone());
        self.svids
            .retain(|id| named.iter().any(|workload| workload.id == *id));
        named
    }

    fn matching(
        &self,
        caller: &Caller,
        registered: &[Workload],
    ) -> Result<Vec<SpiffeId>, NotAttested> {
        let launched = self.launched.borrow().clone();
        let process: Process = caller.look(&self.pods, &launched)?;
        let candidates: Vec<&Workload> = registered
            .iter()
            .filter(|workload| matches_but_digest(&workload.selectors, &process))
            .collect();
        let asks = candidates
            .iter()
            .any(|workload| asks_digest(&workload.selectors));
        let digest = match asks {
            false => None,
            // A program that cannot be read has no digest; other registrations of the process hold all the same.
            true => match caller.program_digest(&self.digests) {
                Ok(digest) => Some(digest),
                Err(NotAttested::Proc(error)) => {
                    tracing::warn!(%error, pid = caller.pid, "no digest of a program");
                    None
                }
                Err(other) => return Err(other),
            },
        };
        Ok(candidates
            .into_iter()
            .filter(|workload| matches(&workload.selectors, &process, digest.as_deref()))
            .map(|workload| workload.id.clone())
            .collect())
    }

    fn event(&self, kind: EventKind) -> Event {
        let node = Actor::Identity(self.view.node.clone());
        Event::new(self.view.clock.now(), node, kind)
    }
}
