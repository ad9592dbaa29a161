//! From what is stored to a node that runs, with or without the cloud.
//!
//! The order matters: state and epoch first (may anything be granted on it?), then the clock, then the journal, then
//! what is held; a boot statement last, if the result names an earlier boot's key.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use edgeward_audit::event::Event;
use edgeward_audit::journal::Marked;
use edgeward_audit::{Actor, EventKind};
use edgeward_evidence::result::CheckedResult;
use edgeward_identity::Clock;
use tokio::sync::watch;

use crate::apps::floors::Taken;
use crate::apps::measure::Measure;
use crate::boot::Boot;
use crate::break_glass::Closer;
use crate::clock::NodeClock;
use crate::enforce::{Progress, Recorder};
use crate::journal::{self, JournalHandle, NoJournal};
use crate::logs::LogReader;
use crate::recover::Loss;
use crate::root::{Root, RootError};
use crate::session::{Endpoints, Holder, Keeper, Session};
use crate::state::{Clocks, Recent, StateError, StateFolder, Stored, Unusable, judge};
use crate::tpm::Priority;
use crate::view::{self, CloudLink, Heard, Held, Initial, NodeView, Publisher, Standing};

const JOURNAL: &str = "journal";

/// What a node starts from.
pub struct Start<'a> {
    pub state_dir: &'a Path,
    pub root: Arc<dyn Root>,
    pub boot: Boot,
    /// The machine's clock; the node's own is put on top.
    pub machine: Arc<dyn Clock>,
    /// What this node came back from, just before.
    pub recovered: Option<Loss>,
    /// When the program before this one, whose place this one takes, heard the cloud last.
    pub heard: Option<Heard>,
}

/// A node that is ready: to be enforced, and to talk to the cloud.
pub struct Resumed {
    pub view: NodeView,
    pub journal: JournalHandle,
    pub session: SessionParts,
}

/// What becomes a session once enforcement has begun.
pub struct SessionParts {
    root: Arc<dyn Root>,
    boot: Arc<Boot>,
    view: NodeView,
    clock: Arc<NodeClock>,
    publisher: Publisher,
    keeper: Keeper,
    journal: JournalHandle,
    restored: bool,
}

/// The node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum NotResumed {
    #[error("this machine is not enrolled (no state in {0}): edgeward-agent enrol")]
    NotEnrolled(PathBuf),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("{0}; enrol again")]
    Unusable(#[from] Unusable),
    #[error(transparent)]
    Journal(#[from] NoJournal),
    #[error(transparent)]
    Root(#[from] RootError),
}

/// Brings back what is stored, as far as it still holds.
pub async fn resume(start: Start<'_>) -> Result<Resumed, NotResumed> {
    let Start {
        state_dir,
        root,
        boot,
        machine,
        recovered,
        heard,
    } = start;
    let (folder, found) = StateFolder::open(state_dir, root.as_ref()).await?;
    let clocks = Clocks {
        kernel_boot: boot.kernel(),
        boottime: machine.boottime(),
        wall: machine.now(),
        tpm: root.tpm_clock().await?,
    };
    let (standing, anchor) = judge(&found, &clocks);
    let stored = found
        .held
        .ok_or_else(|| NotResumed::NotEnrolled(state_dir.to_owned()))?;
    let recent = found.recent;
    let clock = Arc::new(NodeClock::new(machine, anchor));
    let (journal, boot) =
        journal::open(&state_dir.join(JOURNAL), &stored.node, boot, clock.clone())?;
    let standing = match standing {
        Standing::Granting if is_another(&journal, recent.as_ref()).await => {
            Standing::Held(Held::JournalRolledBack)
        }
        other => other,
    };
    let boot = Arc::new(boot);
    let signer = root.signer(stored.slot, Priority::Session).await?;
    let held = stored.open(recent.as_ref(), signer, clock.now())?;
    let before_boot = recent
        .as_ref()
        .map(|recent| recent.last_heartbeat)
        .unwrap_or_default();
    let result = held
        .result
        .is_some()
        .then(|| {
            recent
                .as_ref()
                .map(|recent| Arc::from(recent.result.as_slice()))
        })
        .flatten();
    let initial = Initial {
        svid: held.svid,
        trust: held.trust,
        keys: held.keys,
        slice: held.slice,
        peers: held.peers,
        result,
        overlay: held.overlay,
        link: CloudLink {
            heard,
            ..CloudLink::never_since(before_boot)
        },
        standing,
        cuts: held.cuts,
        director: held.director,
    };
    let (mut publisher, view) = view::channel(clock.clone(), boot.clone(), initial);
    let bind_key = root.signer(stored.slot, Priority::Bind).await?;
    publisher
        .serve_binds_with(bind_key)
        .map_err(Unusable::from)?;
    if let Some(result) = &held.result {
        state_boot(
            root.as_ref(),
            &stored,
            &boot,
            result,
            &publisher,
            &journal,
            clock.as_ref(),
        )
        .await;
    }
    tell(&journal, &stored, (standing, recovered), clock.as_ref());
    let keeper = Keeper {
        folder,
        root: root.clone(),
        boot: boot.clone(),
        clock: clock.clone(),
        recent: recent.unwrap_or_else(|| Recent::at(clock.now(), boot.kernel(), clock.boottime())),
        stored,
        marked: journal.marked(),
        dirty: false,
    };
    let session = SessionParts {
        root,
        boot,
        view: view.clone(),
        clock,
        publisher,
        keeper,
        journal: journal.clone(),
        restored: standing == Standing::Held(Held::StateRolledBack),
    };
    Ok(Resumed {
        view,
        journal,
        session,
    })
}

impl SessionParts {
    /// The task that ends what break-glass opened.
    pub fn closer(&self) -> Closer {
        Closer {
            view: self.view.clone(),
            opened: self.publisher.opened.clone(),
            recorder: Arc::new(self.journal.clone()),
        }
    }

    /// What was accepted of applications, as stored.
    pub fn apps_taken(&self) -> Taken {
        self.keeper.stored.apps.taken.clone()
    }

    /// `host:port` where the cloud is found; `own` replace those of the token where there are any.
    pub fn addresses(&self, own: &[String]) -> Vec<String> {
        match own {
            [] => self.keeper.stored.addresses.clone(),
            own => own.to_vec(),
        }
    }

    /// `addresses` replace those of the token where there are any.
    pub fn into_session(
        mut self,
        progress: watch::Receiver<Progress>,
        endpoints: Endpoints,
        addresses: Vec<String>,
        logs: Arc<LogReader>,
        measure: Measure,
    ) -> Session {
        if !addresses.is_empty() {
            self.keeper.stored.addresses = addresses;
        }
        let recorder: Arc<dyn Recorder> = Arc::new(self.journal.clone());
        Session {
            root: self.root,
            boot: self.boot,
            view: self.view,
            clock: self.clock,
            holder: Holder::new(self.publisher, self.keeper, recorder)
                .binding_journal(self.journal.musts()),
            journal: self.journal,
            progress,
            endpoints,
            restored: self.restored,
            logs,
            measure,
            metered: false,
            guard: None,
        }
    }
}

/// Whether the state knows a record that the journal should have and has not. One that cannot be read says nothing:
/// it cannot be written either, and nothing is granted without a record.
async fn is_another(journal: &JournalHandle, recent: Option<&Recent>) -> bool {
    let Some(mark) = recent.and_then(|recent| recent.journal) else {
        return false;
    };
    let found = journal.stands_to(mark).await;
    let another = matches!(found, Ok(Marked::Behind | Marked::Another));
    if another {
        tracing::error!(
            ?found,
            ?mark,
            "the journal is not the one that the state knows"
        );
    }
    another
}

/// Makes the boot statement where the result names another boot's key. Without one the node waits for the cloud.
async fn state_boot(
    root: &dyn Root,
    stored: &Stored,
    boot: &Boot,
    result: &CheckedResult,
    publisher: &Publisher,
    journal: &JournalHandle,
    clock: &dyn Clock,
) {
    let Some(tpm) = result.tpm() else {
        return;
    };
    if result.result().boot_key() == boot.public_key() {
        return;
    }
    let made = root
        .boot_statement(
            stored.slot,
            &stored.node,
            boot.public_key(),
            tpm.pcr_selection(),
        )
        .await;
    let statement = match made {
        Ok(Some(statement)) => statement,
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(%error, "no boot statement: peers accept this boot only after the cloud has");
            return;
        }
    };
    let event = Event::new(
        clock.now(),
        Actor::Identity(stored.node.clone()),
        EventKind::BootStated,
    )
    .allowed()
    .detail("boot", boot.id());
    match journal.record(event).await {
        Ok(()) => {
            let bytes = Arc::from(statement.to_bytes());
            publisher.boot_statement.send_replace(Some(bytes));
        }
        Err(error) => tracing::error!(%error, "no boot statement: it could not be recorded"),
    }
}

fn tell(
    journal: &JournalHandle,
    stored: &Stored,
    (standing, recovered): (Standing, Option<Loss>),
    clock: &dyn Clock,
) {
    let event = |kind| Event::new(clock.now(), Actor::Identity(stored.node.clone()), kind);
    journal
        .record_after(event(EventKind::AgentStarted).detail("version", env!("CARGO_PKG_VERSION")));
    if let Some(loss) = recovered {
        journal.record_after(
            event(EventKind::AgentRecovered)
                .allowed()
                .code(loss.code())
                .detail("reason", loss),
        );
    }
    if let Standing::Held(why) = standing {
        tracing::warn!(%why, "nothing is granted until the cloud answers");
        journal.record_after(
            event(EventKind::AgentHeld)
                .code(why.code())
                .detail("reason", why),
        );
    }
}
