//! UDP: datagrams to and from a service, one flow for each source, each with a socket of its own towards the service.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::caller::Caller;
use super::live::Right;
use super::rooms::Place;
use super::serve::Core;
use crate::enforce::decide::Spot;

/// A flow that is silent for so long is forgotten.
pub(super) const IDLE_LIMIT: Duration = Duration::from_secs(120);
/// Longest datagram, in bytes.
const MAX_DATAGRAM: usize = 65_535;
/// Most datagrams of one flow that wait for the service; further ones are dropped, as a full socket would.
const MAX_WAITING: usize = 64;

/// Flows of one listener, by their source.
type Flows = Arc<Mutex<HashMap<SocketAddr, mpsc::Sender<Vec<u8>>>>>;

/// Serves one listener until the token is cancelled.
pub(super) async fn serve(
    core: Arc<Core>,
    socket: UdpSocket,
    spot: Spot,
    token: CancellationToken,
) {
    let socket = Arc::new(socket);
    let flows = Flows::default();
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let received = tokio::select! {
            () = token.cancelled() => return,
            () = core.token.cancelled() => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        let (length, source) = match received {
            Ok(received) => received,
            // An ICMP error about an earlier answer: of no matter to others.
            Err(error) => {
                tracing::debug!(%error, "udp at the gateway");
                continue;
            }
        };
        let Some(datagram) = buffer.get(..length).map(<[u8]>::to_vec) else {
            continue;
        };
        let known = flows.lock().get(&source).cloned();
        if let Some(flow) = known {
            // Full: dropped. Gone: the next datagram opens it anew.
            let _dropped = flow.try_send(datagram);
            continue;
        }
        let Some(place) = core.rooms.enter(&spot, source.ip()) else {
            metrics::counter!("edgeward_gateway_refused_total", "reason" => "room").increment(1);
            continue;
        };
        let (send, receive) = mpsc::channel(MAX_WAITING);
        let _first = send.try_send(datagram);
        flows.lock().insert(source, send);
        let flow = Flow {
            core: Arc::clone(&core),
            socket: Arc::clone(&socket),
            source,
            flows: Arc::clone(&flows),
            token: token.clone(),
            _place: place,
        };
        tokio::spawn(flow.run(spot.clone(), receive));
    }
}

/// One source; forgotten when dropped.
struct Flow {
    core: Arc<Core>,
    socket: Arc<UdpSocket>,
    source: SocketAddr,
    flows: Flows,
    token: CancellationToken,
    _place: Place,
}

impl Flow {
    async fn run(self, spot: Spot, receive: mpsc::Receiver<Vec<u8>>) {
        let Some(interface) = self.core.interface(&spot) else {
            return;
        };
        let proof = self.core.proof_in_the_clear(&spot, self.source.ip()).await;
        let Some(right) = self.core.right(proof, self.source, interface) else {
            return;
        };
        self.carry(right, receive).await;
    }

    async fn carry(&self, right: Right, receive: mpsc::Receiver<Vec<u8>>) {
        let caller = right.caller.clone();
        let stop = self.core.token.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.token.cancelled() => {}
            reason = right.lost() => {
                tracing::info!(caller = %caller.who(), reason, "udp flow ended: its right was lost");
            }
            carried = self.exchange(&caller, receive) => if let Err(error) = carried {
                tracing::debug!(caller = %caller.who(), %error, "udp flow");
            }
        }
    }

    async fn exchange(
        &self,
        caller: &Caller,
        mut receive: mpsc::Receiver<Vec<u8>>,
    ) -> io::Result<()> {
        let upstream = caller.upstream();
        let any: SocketAddr = match upstream {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
        };
        let service = UdpSocket::bind(any).await?;
        // Connected: only the service's own datagrams come back.
        service.connect(upstream).await?;
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            let idle = tokio::time::sleep(IDLE_LIMIT);
            tokio::select! {
                () = idle => return Ok(()),
                datagram = receive.recv() => match datagram {
                    None => return Ok(()),
                    // A service that is not there yet may come.
                    Some(datagram) => drop(service.send(&datagram).await),
                },
                answered = service.recv(&mut buffer) => if let Ok(length) = answered {
                    let answer = buffer.get(..length).unwrap_or_default();
                    self.socket.send_to(answer, self.source).await?;
                },
            }
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.flows.lock().remove(&self.source);
    }
}
