//! One TCP connection at the gateway: who is it, may it be, then its protocol until the end or the loss of its right.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use edgeward_identity::{Clock, TrustView};
use edgeward_policy::slice::MESH;
use edgeward_policy::{L7, Mac, Reason};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::caller::{Broken, Caller};
use super::identity::{Proof, Seen};
use super::live::{Reset, Right};
use super::nets::Kernel;
use super::party::{Counter, Party};
use super::rooms::{Place, Rooms};
use super::tls::{HANDSHAKE, HANDSHAKE_DEADLINE, Tls};
use super::{http, neighbours, raw};
use crate::enforce::decide::{Decider, Forwarded, Spot};

/// How long the first byte of a connection may take where the client speaks first.
pub(super) const FIRST_BYTE_DEADLINE: Duration = HANDSHAKE_DEADLINE;
/// Where the service may speak first, a client that is silent for so long does not begin with TLS.
pub(super) const SILENT_FOR: Duration = Duration::from_secs(1);
/// A client that has gone without a word is noticed after this time and three more tries.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// What all connections share.
pub(super) struct Core {
    pub(super) decider: Arc<Decider>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) trust: Arc<ArcSwap<TrustView>>,
    pub(super) trust_changed: watch::Receiver<u64>,
    pub(super) tls: Tls,
    pub(super) counter: Counter,
    pub(super) rooms: Rooms,
    pub(super) kernel: Kernel,
    /// Ends every connection.
    pub(super) token: CancellationToken,
}

/// A client's bytes, in the clear.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Core {
    /// Serves one connection to its end.
    pub(super) async fn serve(
        self: Arc<Self>,
        stream: TcpStream,
        source: SocketAddr,
        spot: Spot,
        place: Place,
    ) {
        let token = self.token.clone();
        tokio::select! {
            biased;
            () = token.cancelled() => {}
            () = self.serve_one(stream, source, &spot) => {}
        }
        drop(place);
    }

    async fn serve_one(&self, stream: TcpStream, source: SocketAddr, spot: &Spot) {
        let Some(interface) = self.interface(spot) else {
            return;
        };
        let name = interface.name.to_string();
        let reset = match prepare(&stream) {
            Ok(reset) => reset,
            Err(error) => {
                tracing::debug!(%source, %error, "connection at the gateway");
                return;
            }
        };
        let Some((stream, proof)) = self.identify(stream, source, &interface).await else {
            reset.arm();
            return;
        };
        let Some(right) = self.right(proof, source, interface) else {
            reset.arm();
            return;
        };
        let caller = right.caller.clone();
        let carried = tokio::select! {
            biased;
            reason = right.lost() => {
                reset.arm();
                tracing::info!(caller = %caller.who(), interface = name, reason, "connection ended: its right was lost");
                metrics::counter!("edgeward_gateway_ended_total", "interface" => name, "how" => "revoked").increment(1);
                return;
            }
            carried = carry(stream, caller.clone()) => carried,
        };
        if let Err(broken) = &carried {
            tracing::debug!(caller = %caller.who(), interface = name, %broken, "connection at the gateway");
        }
        let how = how(&carried);
        metrics::counter!("edgeward_gateway_ended_total", "interface" => name, "how" => how)
            .increment(1);
    }

    pub(super) fn interface(&self, spot: &Spot) -> Option<Arc<Forwarded>> {
        let picture = self.decider.picture();
        let rules = picture.parts().rules.as_ref()?;
        rules.forwarded(spot).map(|(_, found)| Arc::clone(found))
    }

    /// What the client proves, by TLS or by where it is.
    async fn identify(
        &self,
        stream: TcpStream,
        source: SocketAddr,
        interface: &Arc<Forwarded>,
    ) -> Option<(Stream, Proof)> {
        let mut first = [0];
        // Whose protocol lets the service speak first waits in vain for its client.
        let (deadline, silent_is_plain) = match interface.l7 {
            Some(_) => (FIRST_BYTE_DEADLINE, false),
            None => (SILENT_FOR, true),
        };
        let begins_tls = match tokio::time::timeout(deadline, stream.peek(&mut first)).await {
            Ok(Ok(1)) => first == [HANDSHAKE],
            Err(_) if silent_is_plain => false,
            Ok(_) | Err(_) => return None,
        };
        if !begins_tls {
            let proof = self.proof_in_the_clear(&interface.spot, source.ip()).await;
            return Some((Stream::Plain(stream), proof));
        }
        let seen = self.seen(&interface.spot, source.ip()).await;
        match self.tls.accept(stream, interface.l7.as_ref(), seen).await {
            Ok((stream, proof)) => Some((Stream::Tls(Box::new(stream)), proof)),
            Err(refused) => {
                let party = Party::of(interface, None, source.ip());
                let picture = self.decider.picture();
                let wrong = Some(refused.as_str());
                self.counter.refused(&picture, &party, "tls", wrong);
                None
            }
        }
    }

    pub(super) async fn proof_in_the_clear(&self, spot: &Spot, source: IpAddr) -> Proof {
        match &*spot.net == MESH {
            true => Proof::Tunnel(source),
            false => Proof::Sighting(self.seen(spot, source).await),
        }
    }

    async fn seen(&self, spot: &Spot, source: IpAddr) -> Seen {
        let mac = match &*spot.net == MESH {
            true => None,
            false => self.mac(spot, source).await,
        };
        Seen {
            net: Arc::clone(&spot.net),
            ip: source,
            mac,
            certificate: None,
        }
    }

    /// The kernel has just answered this neighbour, so it knows its MAC address.
    async fn mac(&self, spot: &Spot, source: IpAddr) -> Option<Mac> {
        let device = self.kernel.device(&spot.net)?;
        let asked = tokio::task::spawn_blocking(move || neighbours::mac_of(&device, source));
        match asked.await {
            Ok(Ok(mac)) => mac,
            Ok(Err(error)) => {
                tracing::warn!(%error, "neighbour table cannot be read");
                None
            }
            Err(_) => None,
        }
    }

    /// The right of a caller who is known and may be; records who is not.
    pub(super) fn right(
        &self,
        proof: Proof,
        source: SocketAddr,
        interface: Arc<Forwarded>,
    ) -> Option<Right> {
        let picture = self.decider.picture();
        let Some(who) = proof.who(&picture) else {
            let party = Party::of(&interface, None, source.ip());
            let reason = Reason::UnknownSubject.as_str();
            self.counter.refused(&picture, &party, reason, None);
            return None;
        };
        let read_by_protocol = interface.l7.is_some();
        let caller = Caller::new(
            Arc::clone(&self.decider),
            Arc::clone(&self.clock),
            self.counter.clone(),
            interface,
            who,
            source,
        );
        let right = Right {
            caller,
            proof,
            decider: Arc::clone(&self.decider),
            clock: Arc::clone(&self.clock),
            trust: Arc::clone(&self.trust),
            trust_changed: self.trust_changed.clone(),
        };
        let ruling = right.now();
        // Where requests are counted, a connection that may be is nothing of its own.
        if !ruling.allow || !read_by_protocol {
            right.caller.count(&ruling);
        }
        ruling.allow.then_some(right)
    }
}

async fn carry(stream: Stream, caller: Caller) -> Result<(), Broken> {
    let interface = Arc::clone(caller.interface());
    match &interface.l7 {
        None => raw::carry(stream, caller).await,
        Some(L7::Http(_)) => http::carry(stream, caller).await,
        Some(L7::Mqtt(_)) => super::mqtt::carry(stream, caller).await,
        Some(L7::Modbus(_)) => super::modbus::carry(stream, caller).await,
    }
}

fn prepare(stream: &TcpStream) -> std::io::Result<Reset> {
    stream.set_nodelay(true)?;
    let keep_alive = socket2::TcpKeepalive::new()
        .with_time(KEEP_ALIVE)
        .with_interval(KEEP_ALIVE / 4)
        .with_retries(3);
    socket2::SockRef::from(stream).set_tcp_keepalive(&keep_alive)?;
    Reset::of(stream)
}

fn how(carried: &Result<(), Broken>) -> &'static str {
    match carried {
        Ok(()) => "closed",
        Err(Broken::Client(_)) => "client",
        Err(Broken::Service(_)) => "service",
        Err(Broken::Malformed(_)) => "malformed",
        Err(Broken::ServiceMalformed(_)) => "service-malformed",
        Err(Broken::Denied(_)) => "denied",
        Err(Broken::Idle) => "idle",
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
