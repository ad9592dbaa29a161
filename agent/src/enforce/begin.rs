//! Opens what enforcement needs, in the order that leaves no gap: kernel sets, then device and port, then sockets.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

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
use super::control::{Control, Kernel};
use super::decide::{Anchor, Decider, Picture, PictureParts};
use super::demand::Demand;
use super::driver::{self, Begin};
use super::hearing::Hearing;
use super::lan;
use super::leases::{KernelLeases, LeaseQueue};
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
use crate::view::NodeView;

/// Length of the trust domain's prefix on the device: its route.
const V6_PREFIX: u8 = edgeward_identity::overlay::PREFIX_BITS;
/// Length of 100.64.0.0/10 (RFC 6598).
const V4_PREFIX: u8 = 10;

pub(super) async fn begin(
    view: NodeView,
    recorder: Arc<dyn Recorder>,
    config: EnforceConfig,
    token: CancellationToken,
) -> Result<Enforcement, StartError> {
    let kernel = match config.kernel_leases {
        true => Some(KernelLeases::make(config.device.clone()).await?),
        false => {
            tracing::warn!("kernel_leases = false: leases hold in the agent only");
            None
        }
    };
    let parts = first_parts(&view, config.exit.clone());
    let decider = Arc::new(Decider::new(Picture::new(parts.clone())));
    let filter = Arc::new(Filter::new(Arc::clone(&decider) as _));
    let (tunnel, socket) = open_tunnel(&view, &config, &filter)?;
    let listen = tunnel.local_addr().map_err(StartError::Port)?;
    let wireguard_socket = open_wireguard_socket(&view, &config, &tunnel)?;
    let server =
        status::Server::bind(&config.status_socket).map_err(|source| StartError::Socket {
            path: config.status_socket.clone(),
            source,
        })?;
    let queue = LeaseQueue::default();
    let scene = Scene::new(parts, decider, filter, Arc::clone(&view.clock));
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
        books: Mutex::new(Books::default()),
        node_spoke,
        desk: Arc::default(),
    });
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

fn open_tunnel(
    view: &NodeView,
    config: &EnforceConfig,
    filter: &Arc<Filter>,
) -> Result<(Arc<Tunnel>, Arc<QuicSocket>), StartError> {
    let overlay = *view.overlay.borrow();
    let shell = ShellConfig {
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
    };
    let node = Arc::new(Node::new(
        NodeConfig {
            mtu: usize::from(config.mtu),
            allow_zero_psk: false,
        },
        Box::new(SystemRandom::default()),
    ));
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
