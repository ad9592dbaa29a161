//! The agent process, in order: machine, state, tunnel, session; then it waits for the end.

use std::sync::Arc;

use anyhow::Context;
use edgeward_audit::event::{Actor, Event, EventKind};
use edgeward_runtime::readiness::{Gate, Readiness};
use edgeward_runtime::shutdown::Tasks;
use edgeward_runtime::{monitor, shutdown};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::apps;
use crate::apps::begin::{Begin, Surroundings};
use crate::apps::measure::Measure;
use crate::config::Config;
use crate::enforce::{self, Recorder};
use crate::logs::LogReader;
use crate::machine;
use crate::names::{self, NamesSetup};
use crate::recover::start::{Parts, look, until_back};
use crate::resume::{Resumed, Start, resume};
use crate::upgrade::{Interim, Left, Upgrade};
use crate::view::NodeView;
use crate::workload;

/// Runs the agent until a signal ends it.
pub async fn run(config: Config, left: Option<Left>) -> anyhow::Result<()> {
    let mut upgrade = Upgrade::watch().context("signals cannot be watched")?;
    let metrics = monitor::install()?;
    // Packets wait for it, if there is any.
    let interim = Interim::begin(left, &config.enforce).await;
    let token = shutdown::on_signals().context("signals cannot be watched")?;
    let monitor = monitor::bind(config.metrics).await?;
    let readiness = Readiness::new();
    let (tunnel_gate, grant_gate) = (readiness.gate("tunnel"), readiness.gate("grants"));
    let mut tasks = Tasks::new(token.clone());
    tasks.spawn(
        "monitor",
        monitor::serve(monitor, metrics, readiness, token.clone()),
    );

    let machine = machine::take(&config).await?;
    // Held until everything has ended.
    let _lock = machine.lock;
    let parts = Parts {
        state_dir: &config.state_dir,
        cloud: &config.cloud,
        root: machine.root.as_ref(),
        boot: &machine.boot,
        clock: &machine.clock,
    };
    let recovered = match look(parts).await? {
        None => None,
        Some(lost) => {
            interim.end("this node has lost its identity").await;
            tracing::warn!(node = %lost.known.node, loss = %lost.loss, "asking the cloud for this node's identity");
            if !until_back(&lost, parts, &config.enforce.status_socket, &token).await {
                return Ok(());
            }
            Some(lost.loss)
        }
    };
    let logs = Arc::new(LogReader::new(config.logs.clone()));
    let measure = Measure::new(machine.root.clone(), logs.clone(), config.run_dir.clone());
    let Resumed {
        view,
        journal,
        session,
    } = resume(Start {
        state_dir: &config.state_dir,
        root: machine.root,
        boot: machine.boot,
        machine: machine.clock,
        recovered,
        heard: interim.heard(),
    })
    .await?;
    let recorder: Arc<dyn Recorder> = Arc::new(journal.clone());
    let enforcement = enforce::start_on(
        interim.take(),
        view.clone(),
        recorder.clone(),
        config.enforce.clone(),
        token.clone(),
    )
    .await?;
    let (launched_to, launched) = watch::channel(Arc::default());
    let workloads = workload::begin(
        view.clone(),
        recorder.clone(),
        config.workload.clone(),
        launched,
    )?;
    let names = names::begin(
        view.clone(),
        NamesSetup {
            config: config.names.clone(),
            device: config.enforce.device.clone(),
            cloud: session.addresses(&config.cloud),
        },
    );
    tunnel_gate.open();
    let listen = enforcement.listen();
    tracing::info!(node = %view.node, %listen, device = %config.enforce.device, "running");
    let guard = config.apps.clone().map(|apps| {
        let begin = Begin {
            view: view.clone(),
            recorder: recorder.clone(),
            measure: measure.clone(),
            launched: launched_to.clone(),
            taken: session.apps_taken(),
            places: Surroundings::of(&config),
            tasks: &mut tasks,
            token: &token,
        };
        apps::begin::begin(apps, begin)
    });
    tasks.spawn("break-glass", session.closer().run(token.clone()));
    let mut session = session.into_session(
        enforcement.progress(),
        config.endpoints(listen.port()),
        config.cloud,
        logs,
        measure.clone(),
    );
    session.metered = config.metered;
    session.guard = guard;
    let giver = enforcement.giver();
    tasks.spawn("enforcement", enforcement.run());
    tasks.spawn("session", session.run(token.clone()));
    tasks.spawn("measure", measure.run(view.clone(), token.clone()));
    tasks.spawn("names", names.run(token.clone()));
    tasks.spawn("workloads", workloads.run(token.clone()));
    tasks.spawn("readiness", follow_grants(view.clone(), grant_gate, token));

    // Not dropped before the process is another program: tasks that are dropped say goodbye.
    let mut running = std::pin::pin!(tasks.run());
    let ended = tokio::select! {
        ended = &mut running => ended,
        successor = upgrade.wanted() => {
            let actor = Actor::Identity(view.node.clone());
            let stopped = Event::new(view.clock.now(), actor, EventKind::AgentStopped);
            recorder.record_after(stopped.detail("upgrade", successor.version));
            journal.flush().await;
            let given = tokio::task::spawn_blocking(move || giver.give()).await??;
            return Err(upgrade.perform(&given));
        }
    };
    drop(tunnel_gate);
    let node = Actor::Identity(view.node.clone());
    recorder.record_after(Event::new(view.clock.now(), node, EventKind::AgentStopped));
    journal.flush().await;
    ended?;
    tracing::info!("ended");
    Ok(())
}

/// The gate is open while this node may grant something and knows what: without a policy it can do no work.
async fn follow_grants(
    mut view: NodeView,
    gate: Gate,
    token: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        let grants = view.standing.borrow_and_update().may_grant().is_ok();
        let knows = view.slice.borrow_and_update().is_some();
        match grants && knows {
            true => gate.open(),
            false => gate.close(),
        }
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            changed = view.standing.changed() => if changed.is_err() { break },
            changed = view.slice.changed() => if changed.is_err() { break },
        }
    }
    // The session that writes the view has ended; so will the process.
    token.cancelled().await;
    Ok(())
}
