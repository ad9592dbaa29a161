//! Listeners, as the slice in force and the machine's addresses ask for them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use edgeward_policy::Proto;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use super::nets::NoAddress;
use super::serve::Core;
use super::udp;
use crate::enforce::decide::{Picture, Spot};

/// Connections that wait in the kernel to be accepted.
const BACKLOG: i32 = 1024;
/// How long a listener waits when the machine has no more room for connections.
const PAUSE: Duration = Duration::from_millis(100);

/// Listeners that are open.
#[derive(Default)]
pub(super) struct Listeners {
    open: HashMap<(Spot, SocketAddr), CancellationToken>,
}

/// How one interface stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stand {
    /// `service/interface`.
    pub(super) interface: Arc<str>,
    pub(super) addresses: Vec<SocketAddr>,
    /// Why nobody is let in; `None` where everything listens.
    pub(super) failed: Option<String>,
}

/// Why nothing listens at an address. The operator's to mend.
#[derive(Debug, thiserror::Error)]
enum NoListener {
    #[error(transparent)]
    Address(#[from] NoAddress),
    #[error("cannot listen at {address}: {source}")]
    Bind {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

impl Listeners {
    /// Closes what is wanted no more. `true`: something was closed.
    pub(super) fn close_unwanted(&mut self, core: &Core, picture: &Picture) -> bool {
        let before = self.open.len();
        let wanted = wanted(core, picture);
        self.open.retain(|(spot, address), token| {
            let stays = wanted
                .get(spot)
                .and_then(|(_, addresses)| addresses.as_ref().ok())
                .is_some_and(|addresses| addresses.contains(address));
            if !stays {
                token.cancel();
            }
            stays
        });
        self.open.len() != before
    }

    /// Opens what is missing; how every interface stands then.
    pub(super) fn open_missing(
        &mut self,
        core: &Arc<Core>,
        picture: &Picture,
    ) -> BTreeMap<Spot, Stand> {
        let wanted = wanted(core, picture);
        wanted
            .into_iter()
            .map(|(spot, (interface, addresses))| {
                let opened = addresses.map_err(NoListener::from).and_then(|addresses| {
                    for address in &addresses {
                        self.open(core, &spot, *address)?;
                    }
                    Ok(addresses)
                });
                let (addresses, failed) = match opened {
                    Ok(addresses) => (addresses, None),
                    Err(failed) => (Vec::new(), Some(failed.to_string())),
                };
                let stand = Stand {
                    interface,
                    addresses,
                    failed,
                };
                (spot, stand)
            })
            .collect()
    }

    fn open(
        &mut self,
        core: &Arc<Core>,
        spot: &Spot,
        address: SocketAddr,
    ) -> Result<(), NoListener> {
        let key = (spot.clone(), address);
        if self.open.contains_key(&key) {
            return Ok(());
        }
        let failed = |source| NoListener::Bind { address, source };
        let device = core
            .kernel
            .device(&spot.net)
            .ok_or_else(|| NoAddress::NotConfigured(spot.net.to_string()))?;
        let token = core.token.child_token();
        match spot.proto {
            Proto::Tcp => {
                let listener = tcp(&device, address).map_err(failed)?;
                let (core, spot, token) = (Arc::clone(core), spot.clone(), token.clone());
                tokio::spawn(accept(core, listener, spot, token));
            }
            Proto::Udp => {
                let socket = udp_socket(&device, address).map_err(failed)?;
                let (core, spot, token) = (Arc::clone(core), spot.clone(), token.clone());
                tokio::spawn(udp::serve(core, socket, spot, token));
            }
        }
        tracing::info!(net = %spot.net, %address, "gateway listens");
        self.open.insert(key, token);
        Ok(())
    }
}

/// Spots at which everything listens that shall.
pub(super) fn served(stands: &BTreeMap<Spot, Stand>) -> HashSet<Spot> {
    let served = stands.iter().filter(|(_, stand)| stand.failed.is_none());
    served.map(|(spot, _)| spot.clone()).collect()
}

type Wanted = BTreeMap<Spot, (Arc<str>, Result<Vec<SocketAddr>, NoAddress>)>;

fn wanted(core: &Core, picture: &Picture) -> Wanted {
    let Some(rules) = &picture.parts().rules else {
        return BTreeMap::new();
    };
    let overlay = &picture.parts().overlay;
    let mut by_net: HashMap<Arc<str>, _> = HashMap::new();
    rules
        .all_forwarded()
        .map(|interface| {
            let spot = &interface.spot;
            let addresses = by_net
                .entry(Arc::clone(&spot.net))
                .or_insert_with(|| core.kernel.addresses(&spot.net, overlay));
            let addresses = addresses
                .as_ref()
                .map(|all| all.iter().map(|address| address.at(spot.port)).collect())
                .map_err(Clone::clone);
            (spot.clone(), (Arc::clone(&interface.name), addresses))
        })
        .collect()
}

/// Accepts connections until the token is cancelled. They outlive their listener: each has a right of its own.
async fn accept(core: Arc<Core>, listener: TcpListener, spot: Spot, token: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = token.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, source) = match accepted {
            Ok((stream, source)) => (stream, canonical(source)),
            Err(error) => {
                tracing::warn!(%error, "gateway cannot accept");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(place) = core.rooms.enter(&spot, source.ip()) else {
            metrics::counter!("edgeward_gateway_refused_total", "reason" => "room").increment(1);
            tracing::debug!(%source, port = spot.port, "no room at the gateway");
            continue;
        };
        tokio::spawn(Arc::clone(&core).serve(stream, source, spot.clone(), place));
    }
}

fn canonical(source: SocketAddr) -> SocketAddr {
    SocketAddr::new(source.ip().to_canonical(), source.port())
}

fn tcp(device: &str, address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(Type::STREAM, Protocol::TCP, device, address)?;
    // What an earlier listener left behind in TIME_WAIT does not keep a new one out.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn udp_socket(device: &str, address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(Type::DGRAM, Protocol::UDP, device, address)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Of one device: what comes in elsewhere for the same address does not arrive here, so a source address says who
/// speaks.
fn socket(kind: Type, protocol: Protocol, device: &str, address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.bind_device(Some(device.as_bytes()))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}
