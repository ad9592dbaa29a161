//! The cloud process, in order: keys, store, log, fleet, port; then it waits for the end.

use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use edgeward_audit::Event;
use edgeward_audit::event::{Actor, EventKind};
use edgeward_audit::record::BootId;
use edgeward_identity::tls::Credentials;
use edgeward_identity::{Clock, DenyList, SystemClock, Timestamp, TrustView};
use edgeward_runtime::readiness::Readiness;
use edgeward_runtime::shutdown::Tasks;
use edgeward_runtime::{monitor, shutdown};
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::alerts;
use crate::alerts::desk::{self, Desk};
use crate::api::{self, Api, Control, Settings};
use crate::apps::{self, Repository};
use crate::archive::Archiver;
use crate::audit::{AuditLog, Integrator, LaterWriter, SelfCheck};
use crate::config::Config;
use crate::cut::NodeControl;
use crate::ek::EkTrust;
use crate::enrol::EnrolService;
use crate::export::Exports;
use crate::hub::{Hub, Parts};
use crate::keys::sites::SiteKeys;
use crate::relay::RelayService;
use crate::retention::Pruner;
use crate::serve::{Connections, OnRefused, Server};
use crate::session::SessionService;
use crate::store::Store;
use crate::stun;
use crate::witness::{self, Witnessing};
use crate::workload::WorkloadService;

mod expiring;
pub mod first_start;
mod upkeep;

/// Runs the cloud until a signal ends it.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let token = shutdown::on_signals().context("signals cannot be watched")?;
    let metrics = monitor::install()?;
    let monitor = monitor::bind(config.metrics).await?;
    let readiness = Readiness::new();
    let mut tasks = Tasks::new(token.clone());
    tasks.spawn(
        "monitor",
        monitor::serve(monitor, metrics, readiness.clone(), token.clone()),
    );
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    start(
        Arc::new(config),
        listener,
        Arc::new(SystemClock),
        &readiness,
        &mut tasks,
    )
    .await?;
    tasks.run().await?;
    tracing::info!("ended");
    Ok(())
}

/// Builds the cloud and spawns its tasks. Apart from signals and metrics this is the whole process: tests start here.
pub async fn start(
    config: Arc<Config>,
    listener: TcpListener,
    clock: Arc<dyn Clock>,
    readiness: &Readiness,
    tasks: &mut Tasks,
) -> anyhow::Result<Arc<Hub>> {
    let (store_gate, port_gate) = (readiness.gate("store"), readiness.gate("port"));
    let (keys, admin) = first_start::keys(&config, clock.now())?;
    let keys = Arc::new(keys);
    if !keys.root_is_here() {
        tracing::warn!("root key is offline: issuing certificate and key set cannot be renewed");
    }
    let site_keys = SiteKeys::open(&config.data.join("keys/sites"))?;
    let store = Store::open(&config.database, site_keys).await?;
    store_gate.open();
    let token = tasks.token().clone();
    let (audit, writer) = log(&store, &config, admin.as_ref(), clock.now()).await?;
    let tree = Integrator::new(
        audit.clone(),
        store.clone(),
        keys.clone(),
        config.data.clone(),
        clock.clone(),
    );
    let trust = Arc::new(ArcSwap::from_pointee(TrustView {
        bundle: keys.bundle(),
        deny: DenyList::default(),
    }));
    let connections = Connections::new();
    let (stun, stun_port) = bind_stun(&config).await?;
    let apps = Repository::open(apps::Parts {
        store: store.clone(),
        audit: audit.clone(),
        clock: clock.clone(),
        keys: keys.clone(),
        config: config.apps.clone(),
    })
    .await?;
    let hub = Hub::load(Parts {
        config: config.clone(),
        keys: keys.clone(),
        store: store.clone(),
        audit: audit.clone(),
        apps: apps.clone(),
        clock: clock.clone(),
        trust: trust.clone(),
        connections: connections.clone(),
        stun_port,
    })
    .await?;
    if let Some(policy) = first_start::policy(&store).await? {
        hub.set_policy(Arc::new(policy));
    }
    if let Some((rollout, candidate)) = first_start::staged(&store).await? {
        hub.take_up_rollout(rollout, Arc::new(candidate)).await?;
    }
    // Before anybody is told: what passed long before this start counts for nothing.
    hub.sweep().await;
    let alerts = Desk::new(desk::Parts {
        store: store.clone(),
        audit: audit.clone(),
        clock: clock.clone(),
        rules: alerts::load(&config.alerts)?,
        config: config.alerts.clone(),
    });
    let witness = Witnessing::open(&witness::Parts {
        store: store.clone(),
        audit: audit.clone(),
        clock: clock.clone(),
        keys: keys.clone(),
        config: config.witness.clone(),
    })
    .await?;
    let ek_trust = EkTrust::load(&config.ek_roots, store.clone()).await?;
    let node_control = Arc::new(NodeControl::new(hub.clone()));
    let control: Arc<dyn Control> = node_control.clone();
    let api = Api::new(api::Parts {
        store: store.clone(),
        audit: audit.clone(),
        clock: clock.clone(),
        keys: keys.clone(),
        control,
        ek: ek_trust.clone(),
        apps: apps.clone(),
        alerts: alerts.clone(),
        witness: witness.clone(),
        settings: settings(&config),
    })
    .await?;
    let svid = upkeep::own_svid(&keys, &store, &audit, &config.id, clock.now()).await?;
    let credentials = Credentials::new(&svid);
    let grpc = tonic::service::Routes::new(
        EnrolService::new(hub.clone(), ek_trust.current()).into_server(),
    )
    .add_service(SessionService::new(hub.clone(), token.clone()).into_server())
    .add_service(WorkloadService::new(hub.clone()).into_server())
    .add_service(RelayService::new(hub.clone(), token.clone()).into_server())
    .add_service(apps::serving(hub.clone()).into_server())
    .into_axum_router();
    let server = Server {
        credentials: credentials.clone(),
        trust,
        clock: clock.clone(),
        connections,
        grpc: api.guard().protect(grpc),
        rest: api.router(),
        on_refused: record_refused(audit.clone(), clock.clone()),
    };
    tasks.spawn("alert-sinks", alerts.clone().run_sinks(token.clone()));
    tasks.spawn("alerts", alerts.run(node_control, token.clone()));
    tasks.spawn("apps", apps.run(token.clone()));
    let check = SelfCheck::new(audit.clone(), store.clone(), keys.clone(), clock.clone());
    tasks.spawn("self-check", check.run(token.clone()));
    tasks.spawn("ek-roots", ek_trust.run(token.clone()));
    let asking = token.clone();
    tasks.spawn("witnesses", async move {
        witness.asking.run(asking).await;
        Ok(())
    });
    if let Some(socket) = stun {
        tasks.spawn("stun", stun::run(socket, clock.clone(), token.clone()));
    }
    tasks.spawn("hub", hub.clone().run(token.clone()));
    tasks.spawn(
        "upkeep",
        upkeep::run(hub.clone(), credentials, token.clone()),
    );
    if let Some(archive) = &config.retention.archive {
        let archiver = Archiver::new(archive, store.clone(), audit.clone(), clock.clone());
        tasks.spawn("archive", archiver.run(token.clone()));
    }
    let pruner = Pruner::new(
        config.retention.clone(),
        &config.exports,
        store.clone(),
        audit.clone(),
        clock.clone(),
    );
    tasks.spawn("retention", pruner.run(token.clone()));
    tasks.spawn("site-keys", upkeep::site_keys(store.clone(), token.clone()));
    let exports = Exports::start(&config.exports, &store, &audit, &clock);
    port_gate.open();
    tracing::info!(id = %config.id, listen = %config.listen, "serving");
    let closing = token.clone();
    tokio::spawn(async move {
        // Not ready from the moment the port stops accepting.
        closing.cancelled().await;
        drop((store_gate, port_gate));
    });
    tasks.spawn("serve", async move {
        // The log outlives everything else: its last events are still to be written.
        let log_stop = CancellationToken::new();
        let writing = tokio::spawn(writer.run(log_stop.clone()));
        let tree_stop = CancellationToken::new();
        let growing = tokio::spawn(tree.run(tree_stop.clone()));
        let result = server.run(listener, token).await;
        let event = Event::new(clock.now(), Actor::Cloud, EventKind::CloudStopped);
        audit.record(event).await?;
        log_stop.cancel();
        writing.await?;
        tree_stop.cancel();
        growing.await?;
        exports.finish().await;
        store.close().await;
        result
    });
    Ok(hub)
}

/// The socket of the STUN server, if there is to be one, and its port.
async fn bind_stun(config: &Config) -> anyhow::Result<(Option<UdpSocket>, u16)> {
    let Some(address) = config.stun else {
        return Ok((None, 0));
    };
    let socket = UdpSocket::bind(address)
        .await
        .with_context(|| format!("cannot answer stun on {address} (stun_listen)"))?;
    let port = socket.local_addr()?.port();
    Ok((Some(socket), port))
}

/// Opens the log of this process, and enters what the first start made.
async fn log(
    store: &Store,
    config: &Config,
    admin: Option<&first_start::Admin>,
    now: Timestamp,
) -> anyhow::Result<(Arc<AuditLog>, LaterWriter)> {
    let (audit, writer) = AuditLog::open(store.clone(), config.id.clone(), boot_id()?, now).await?;
    first_start::operators(store, &audit, admin, now).await?;
    let event = Event::new(now, Actor::Cloud, EventKind::CloudStarted);
    audit.record(event).await?;
    Ok((Arc::new(audit), writer))
}

fn record_refused(audit: Arc<AuditLog>, clock: Arc<dyn Clock>) -> OnRefused {
    Arc::new(move |address, reason| {
        let event = Event::new(clock.now(), address, EventKind::SessionRefused)
            .denied("tls_certificate")
            .detail("reason", reason);
        audit.later(event);
    })
}

fn settings(config: &Config) -> Settings {
    Settings {
        advertise: config.advertise.clone(),
        token_ttl: config.token.ttl,
        token_uses: config.token.uses,
        approval: config.approval,
        exports: config.exports.clone(),
        retention: config.retention.clone(),
    }
}

fn boot_id() -> anyhow::Result<BootId> {
    let mut bytes = [0; 16];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes)
        .map_err(|_| anyhow::anyhow!("the random source failed"))?;
    Ok(BootId::from_bytes(bytes))
}
