//! Opens what enforcement needs, in the order that leaves no gap: kernel sets, then device and port, then sockets.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use edgeward_audit::{Event, EventKind};
use edgeward_identity::SpiffeId;
use edgeward_policy::slice::MESH;
use edgeward_tunnel::filter::Filter;
use edgeward_tunnel::node::{Node, NodeConfig};
use edgeward_tunnel::reach::MayRelay;
use edgeward_tunnel::shell::demux::quic_inbox_of;
use edgeward_tunnel::shell::quic_socket::QuicSocket;
use edgeward_tunnel::shell::tun::TunConfig;
use edgeward_tunnel::shell::{ShellConfig, SystemRandom, Tunnel};
use edgeward_tunnel::uapi::{ReadOnly, UapiServer};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::books::Books;
use super::control::{Control, Kernel, TakenOver};
use super::decide::{Anchor, Decider, Picture, PictureParts};
use super::demand::Demand;
use super::driver::{self, Begin};
use super::handover::{Adopted, Giver};
use super::hearing::Hearing;
use super::lan;
use super::leases::{KernelLeases, LeaseQueue, NftFailed};
use super::posture::Guard;
use super::records::Records;
use super::routes;
use super::scene::{Kept, Scene};
use super::steer;
use super::{EnforceConfig, Enforcement, Inside, NodeName, Progress, Recorder, StartError};
use crate::ext_authz;
use crate::gateway::party::Counter;
use crate::gateway::{self, Gateway};
use crate::outside::MARK;
use crate::reach;
use crate::status;
use crate::view::{NodeView, Overlay};

/// Length of the trust domain's prefix on the device: its route.
const V6_PREFIX: u8 = edgeward_identity::overlay::PREFIX_BITS;
/// Length of 100.64.0.0/10 (RFC 6598).
const V4_PREFIX: u8 = 10;

pub(super) async fn begin(
    view: NodeView,
    recorder: Arc<dyn Recorder>,
    config: EnforceConfig,
    adopted: Option<Adopted>,
    token: CancellationToken,
) -> Result<Enforcement, StartError> {
    let adopted = match adopted {
        Some(adopted) => take_over(adopted, &view, recorder.as_ref()).await,
        None => None,
    };
    let kernel = match config.kernel_leases {
        true => Some(open_kernel(&config, adopted.as_ref()).await?),
        false => {
            tracing::warn!("kernel_leases = false: leases hold in the agent only");
            None
        }
    };
    let Base {
        tunnel,
        filter,
        decider,
        socket,
        parts,
        books,
        taken_over,
    } = open_base(&view, &config, adopted)?;
    let listen = tunnel.local_addr().map_err(StartError::Port)?;
    let wireguard_socket = open_wireguard_socket(&view, &config, &tunnel)?;
    let server =
        status::Server::bind(&config.status_socket).map_err(|source| StartError::Socket {
            path: config.status_socket.clone(),
            source,
        })?;
    let queue = LeaseQueue::default();
    let scene = Scene::new(parts, decider, filter, Arc::clone(&view.clock));
    if taken_over.is_some() {
        scene.hold();
    }
    let node_spoke = Arc::new(Notify::new());
    let speaks = Arc::clone(&node_spoke);
    tunnel.node().on_event(move || speaks.notify_one());
    let control = Arc::new(Control {
        tunnel: Arc::clone(&tunnel),
        scene: Arc::new(scene),
        kernel: match &kernel {
            Some(_) => Kernel::Leases(queue.clone()),
            None => Kernel::Off,
        },
        recorder: Arc::clone(&recorder),
        records: Records {
            node: view.node.clone(),
        },
        posture: Arc::default(),
        lan: Arc::default(),
        clock: Arc::clone(&view.clock),
        runtime: tokio::runtime::Handle::current(),
        books: Mutex::new(books),
        node_spoke,
        desk: Arc::default(),
        taken_over,
    });
    let giver = Giver {
        control: Arc::clone(&control),
        view: view.clone(),
        config: config.clone(),
    };
    let (progress, follow) = watch::channel(Progress::default());
    let serving = token.child_token();
    let gateway = open_gateway(&view, &config, &control, serving.clone())?;
    let proxies = open_ext_authz(&view, &config, &control)?;
    let leaving = Arc::<steer::Shown>::default();
    let inside = Arc::new(Inside::new(
        view.clone(),
        Arc::clone(&control),
        gateway.shown(),
        Arc::clone(&leaving),
    ));
    let lan = lan::Keeper::new(lan::Setup {
        decider: Arc::clone(control.scene.decider()),
        nets: config.nets.clone(),
        tunnel: config.device.clone(),
        clock: Arc::clone(&control.clock),
        posture: Arc::clone(&control.posture),
        shared: Arc::clone(&control.lan),
        report_every: config.report_every,
    });
    let (into_tunnel, nets) = watch::channel(BTreeSet::new());
    let routes = routes::Keeper::new(routes::Setup {
        control: Arc::clone(&control),
        nets: config.nets.clone(),
        tunnel: config.device.clone(),
        into_tunnel,
    });
    let exit = control.scene.picture().parts().exit.clone();
    let steer = steer::Keeper::new(steer::Setup {
        control: Arc::clone(&control),
        exit: exit.map(|exit| (exit, config.exit_use)),
        nets,
        tunnel: config.device.clone(),
        shown: Arc::clone(&leaving),
    });
    let last_words = Arc::clone(&control);
    let ways = reach::driver::Setup {
        view: view.clone(),
        recorder: Arc::clone(&recorder),
        tunnel: Arc::clone(&tunnel),
        desk: Arc::clone(&control.desk),
        device: config.device.to_string(),
        may: Arc::new(ByPicture(Arc::clone(&control.scene))),
        metered: config.metered,
        relay: config.relay.into(),
    };
    let begin = Begin {
        view,
        recorder,
        control,
        socket,
        progress,
        report_every: config.report_every,
        demand: Demand::new(config.demand),
    };
    let work = async move {
        // What serves the loop ends after it.
        let after = CancellationToken::new();
        let answering = tokio::spawn(server.serve(inside, after.clone()));
        let leases = kernel.map(|kernel| tokio::spawn(queue.run(kernel, after.clone())));
        let gateway = tokio::spawn(gateway.run());
        let proxies = proxies.map(|proxies| tokio::spawn(proxies.run(token.child_token())));
        let lan = tokio::spawn(lan.run(token.child_token()));
        let ways = tokio::spawn(reach::driver::run(ways, token.child_token()));
        let routes = tokio::spawn(routes.run(token.child_token()));
        let steer = tokio::spawn(steer.run(token.child_token()));
        let result = driver::run(begin, token).await;
        if steer.await.is_err() {
            tracing::error!("the task that steers packets into the tunnel panicked");
        }
        if routes.await.is_err() {
            tracing::error!("the task of networks behind nodes panicked");
        }
        if ways.await.is_err() {
            tracing::error!("the task that seeks ways to peers panicked");
        }
        if lan.await.is_err() {
            tracing::error!("the task of lan interfaces panicked");
        }
        if let Some(proxies) = proxies
            && proxies.await.is_err()
        {
            tracing::error!("the task of the ext_authz socket panicked");
        }
        if gateway.await.is_err() {
            tracing::error!("the gateway's task panicked");
        }
        let Control {
            posture,
            recorder,
            records,
            ..
        } = &*last_words;
        posture.write(&**recorder, records).await;
        after.cancel();
        drop(wireguard_socket);
        if let Some(leases) = leases {
            match leases.await {
                Ok(Ok(())) => {}
                Ok(Err(failed)) => tracing::warn!(%failed, "lease sets not removed"),
                Err(panicked) => tracing::error!(%panicked, "lease sets"),
            }
        }
        if answering.await.is_err() {
            tracing::error!("the task of the local socket panicked");
        }
        // Joins threads: not on a thread of the runtime.
        if tokio::task::spawn_blocking(move || tunnel.stop())
            .await
            .is_err()
        {
            tracing::error!("the tunnel did not stop well");
        }
        Ok(result?)
    };
    Ok(Enforcement {
        progress: follow,
        listen,
        giver,
        work: Box::pin(work),
    })
}

/// Policy's word on relays, by the picture of the moment.
struct ByPicture(Arc<Scene>);

impl MayRelay for ByPicture {
    fn may_carry(&self, from: &SpiffeId, to: &SpiffeId) -> bool {
        self.0.picture().may_carry(from, to)
    }

    fn may_use(&self, relay: &SpiffeId, peer: &SpiffeId) -> bool {
        self.0.picture().may_use(relay, peer)
    }
}

/// What the view says now, and no policy: that is put into force by the loop, after its record.
fn first_parts(view: &NodeView, exit: Option<NodeName>) -> PictureParts {
    let boot = view.clock.boottime();
    PictureParts {
        standing: *view.standing.borrow(),
        node: view.node.clone(),
        overlay: *view.overlay.borrow(),
        own: None,
        floors: Arc::clone(&view.cuts.borrow()),
        hearing: Hearing::begin(&view.link.borrow(), boot),
        rules: None,
        anchor: Anchor {
            wall: view.clock.now(),
            boot,
        },
        bound: HashMap::new(),
        listening: Arc::default(),
        exit: exit.and_then(|exit| exit.of(view.node.trust_domain())),
        served: Arc::default(),
    }
}

/// What everything else stands on.
struct Base {
    tunnel: Arc<Tunnel>,
    filter: Arc<Filter>,
    decider: Arc<Decider>,
    socket: Arc<QuicSocket>,
    parts: PictureParts,
    books: Books,
    taken_over: Option<TakenOver>,
}

/// The record comes before it counts; if it is not this node's or cannot be recorded, everything starts anew.
async fn take_over(adopted: Adopted, view: &NodeView, recorder: &dyn Recorder) -> Option<Adopted> {
    let tunnels = adopted.books.armed.len();
    let event = Event::new(
        view.clock.now(),
        view.node.clone(),
        EventKind::AgentUpgraded,
    )
    .allowed()
    .detail("version", env!("CARGO_PKG_VERSION"))
    .detail("from", adopted.version())
    .detail("tunnels", tunnels);
    let why = match adopted.check(view) {
        Ok(()) => match recorder.record(event).await {
            Ok(()) => {
                tracing::info!(tunnels, from = adopted.version(), "taken over");
                return Some(adopted);
            }
            Err(refused) => refused.to_string(),
        },
        Err(refused) => refused.to_string(),
    };
    tracing::warn!(%why, "tunnels are not taken over: starting anew");
    // Joins threads: not on a thread of the runtime.
    let _panicked = tokio::task::spawn_blocking(move || drop(adopted)).await;
    None
}

async fn open_kernel(
    config: &EnforceConfig,
    adopted: Option<&Adopted>,
) -> Result<KernelLeases, NftFailed> {
    let device = config.device.clone();
    match adopted {
        None => KernelLeases::make(device).await,
        Some(adopted) => {
            let (leases, is_ours) = adopted.kernel_leases(config);
            KernelLeases::adopt(device, &leases, is_ours).await
        }
    }
}

fn open_base(
    view: &NodeView,
    config: &EnforceConfig,
    adopted: Option<Adopted>,
) -> Result<Base, StartError> {
    let mut parts = first_parts(view, config.exit.clone());
    let Some(adopted) = adopted else {
        let decider = Arc::new(Decider::new(Picture::new(parts.clone())));
        let filter = Arc::new(Filter::new(Arc::clone(&decider) as _));
        let (tunnel, socket) = open_tunnel(view, config, &filter)?;
        return Ok(Base {
            tunnel,
            filter,
            decider,
            socket,
            parts,
            books: Books::default(),
            taken_over: None,
        });
    };
    let now = view.clock.boottime();
    parts.hearing = adopted.hearing(&view.link.borrow(), now);
    parts.bound.clone_from(&adopted.bound);
    let taken_over = TakenOver {
        version: adopted.version().to_owned(),
        at: now,
        tunnels: adopted.books.armed.len(),
    };
    let Adopted {
        tunnel,
        filter,
        decider,
        source,
        books,
        ..
    } = adopted;
    decider.replace(Arc::new(Picture::new(parts.clone())));
    let socket = QuicSocket::new(source, tunnel.udp_sender()).map_err(StartError::Port)?;
    Ok(Base {
        tunnel,
        filter,
        decider,
        socket,
        parts,
        books,
        taken_over: Some(taken_over),
    })
}

/// The tunnel as this configuration wants it, with the node's addresses.
pub(super) fn shell_config(config: &EnforceConfig, overlay: Overlay) -> ShellConfig {
    ShellConfig {
        tun: TunConfig {
            name: config.device.to_string(),
            mtu: config.mtu,
            ipv4: overlay.v4.map(|v4| (v4, V4_PREFIX)),
            ipv6: vec![(overlay.v6, V6_PREFIX)],
            offload: config.data_path.tun_offload,
        },
        listen: config.listen,
        udp: config.data_path.udp,
        profile: config.data_path.profile,
        threads: config.data_path.threads,
        linger: config.data_path.linger,
    }
}

pub(super) fn new_node(mtu: u16) -> Node {
    let config = NodeConfig {
        mtu: usize::from(mtu),
        allow_zero_psk: false,
    };
    Node::new(config, Box::new(SystemRandom::default()))
}

fn open_tunnel(
    view: &NodeView,
    config: &EnforceConfig,
    filter: &Arc<Filter>,
) -> Result<(Arc<Tunnel>, Arc<QuicSocket>), StartError> {
    let shell = shell_config(config, *view.overlay.borrow());
    let node = Arc::new(new_node(config.mtu));
    let (sink, source) = quic_inbox_of(config.data_path.profile.quic_datagrams());
    let clock = Arc::clone(&view.clock);
    let tunnel = Arc::new(Tunnel::start(
        &shell,
        node,
        Arc::clone(filter),
        sink,
        clock,
    )?);
    tunnel.mark_port(MARK).map_err(StartError::Port)?;
    let socket = QuicSocket::new(source, tunnel.udp_sender()).map_err(StartError::Port)?;
    Ok((tunnel, socket))
}

fn open_gateway(
    view: &NodeView,
    config: &EnforceConfig,
    control: &Arc<Control>,
    token: CancellationToken,
) -> Result<Gateway, StartError> {
    let (scene, tunnel) = (Arc::clone(&control.scene), Arc::clone(&control.tunnel));
    let parts = gateway::Parts {
        node: view.node.clone(),
        clock: Arc::clone(&view.clock),
        svid: view.svid.clone(),
        trust: Arc::clone(&view.trust),
        trust_changed: view.trust_changed.clone(),
        decider: Arc::clone(scene.decider()),
        recorder: Arc::clone(&control.recorder),
        posture: Arc::clone(&control.posture),
        mesh: config.device.clone(),
        nets: config.nets.clone(),
        report_every: config.report_every,
        set_listening: Box::new(move |spots| {
            let (mesh, served): (HashSet<_>, HashSet<_>) =
                spots.into_iter().partition(|spot| &*spot.net == MESH);
            let ports: HashSet<_> = mesh.iter().map(|spot| (spot.proto, spot.port)).collect();
            // What was opened before to a service behind that port would go on past the gateway.
            let before = Arc::clone(&scene.picture().parts().listening);
            for (proto, port) in ports.difference(&before) {
                tunnel.filter().forget_inward(proto.number(), *port);
            }
            let (ports, served) = (Arc::new(ports), Arc::new(served));
            scene.change(Kept::Void, |parts| {
                parts.listening = ports;
                parts.served = served;
            });
        }),
    };
    Ok(Gateway::new(parts, token)?)
}

fn open_ext_authz(
    view: &NodeView,
    config: &EnforceConfig,
    control: &Control,
) -> Result<Option<ext_authz::Serving>, StartError> {
    let desk = ext_authz::desk::Desk {
        decider: Arc::clone(control.scene.decider()),
        clock: Arc::clone(&view.clock),
        counter: Counter {
            posture: Arc::clone(&control.posture),
            clock: Arc::clone(&view.clock),
            guard: Guard::ExtAuthz,
        },
    };
    let config = config.ext_authz.clone();
    Ok(config
        .map(|config| ext_authz::begin(desk, config))
        .transpose()?)
}

fn open_wireguard_socket(
    view: &NodeView,
    config: &EnforceConfig,
    tunnel: &Arc<Tunnel>,
) -> Result<UapiServer, StartError> {
    let path = config
        .wireguard_folder
        .join(format!("{}.sock", config.device));
    let backend = Arc::new(ReadOnly::new(Arc::clone(tunnel), Arc::clone(&view.clock)));
    UapiServer::start(&path, backend).map_err(|source| StartError::Socket { path, source })
}
