//! The WireGuard protocol engine: the one file that names boringtun.
//!
//! One [`Session`] is one completed handshake with its own random 24-bit index; nothing here keeps time,
//! retries, or chooses a peer ([`crate::node`] does). Handshakes are Noise IKpsk2 (WireGuard protocol,
//! section 5.4). A pre-shared key enters through the constructors only.
//!
//! What stock boringtun leaves to its caller is done here: destination buffers are sized before every call
//! (it panics on short ones), message kinds are checked before a state machine sees them, plaintext is padded
//! by the caller, and nothing that holds a key has a `Debug`. Session keys live inside the engine and are not
//! zeroized by it when dropped (the X25519 keys are); the threat model says so.

use std::net::IpAddr;
use std::sync::Arc;

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use edgeward_identity::Secret;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// What a data message adds to its plaintext, in bytes: 16 of header, 16 of tag.
pub const DATA_OVERHEAD_BYTES: usize = 32;
/// Longest handshake message, in bytes (the initiation).
pub const MAX_HANDSHAKE_BYTES: usize = 148;
/// Plaintext is padded to a multiple of this, in bytes (WireGuard protocol, section 5.4.6).
pub const PADDING_BYTES: usize = 16;
/// Bits of an index that we choose; the engine counts its own handshakes in the low 8 bits.
pub const INDEX_BITS: u32 = 24;
/// Messages after which a session is replaced (WireGuard protocol, section 6.2).
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// Messages after which a session may not send (WireGuard protocol, section 6.2).
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// A pre-shared key; all zeros means "none" in the WireGuard protocol.
pub type Psk = Secret<[u8; 32]>;

/// Our static X25519 key pair. RAM only; the private half is zeroized when dropped.
pub struct StaticKeys {
    private: StaticSecret,
    public: [u8; 32],
}

/// The number by which a peer addresses one of our sessions: random, unique in the node, 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionIndex(u32);

/// Why the engine refused a message. All are the peer's fault, or a stranger's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("not a WireGuard message of a known kind and length")]
    Malformed,
    #[error("first authenticator is wrong: made for another key")]
    WrongMac,
    #[error("message does not authenticate")]
    NotAuthentic,
    #[error("message counter was used before or is too old")]
    Replayed,
    #[error("timestamp is not newer than the last one")]
    OldTimestamp,
    #[error("message does not belong to this handshake or session")]
    Unexpected,
    #[error("plaintext is not a whole IP packet")]
    NotIp,
    #[error("session has sent as many messages as it may")]
    Exhausted,
    #[error("buffer too small in bytes: {0}")]
    Buffer(usize),
}

/// What a datagram is, from its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    Initiation,
    Response(SessionIndex),
    Cookie(SessionIndex),
    Data(SessionIndex),
}

/// What the door says to a handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Admitted,
    /// We are busy: the bytes written are a cookie reply, to be sent to where the message came from.
    Answer(usize),
    Refused(Refused),
}

/// What a data message held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    Keepalive,
    /// A whole IP packet of this length, at the start of the buffer; padding is cut off.
    Packet(usize),
}

/// First authenticators and cookies for one of our static keys.
pub struct Door {
    keys: Arc<StaticKeys>,
    calm: Arc<RateLimiter>,
    busy: RateLimiter,
}

/// Remembers the newest timestamp of a peer's initiations: a replay is refused (section 5.1 of the paper).
pub struct ReplayGate {
    tunn: Tunn,
}

/// A handshake that we started.
pub struct Initiator {
    tunn: Tunn,
    index: SessionIndex,
    /// Sender index of the newest initiation, as on the wire: its low 8 bits count.
    newest: Option<[u8; 4]>,
}

/// A session with keys for both directions.
pub struct Session {
    tunn: Tunn,
    index: SessionIndex,
    sealed: u64,
}

impl StaticKeys {
    pub fn new(private: Secret<[u8; 32]>) -> Self {
        let private = StaticSecret::from(*private.expose());
        let public = PublicKey::from(&private).to_bytes();
        Self { private, public }
    }

    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    /// X25519 with a peer's key; `None` if the result is all zeros (a non-contributory key, RFC 7748 section 6).
    pub fn agree(&self, peer: &[u8; 32]) -> Option<Secret<[u8; 32]>> {
        let shared = self.private.diffie_hellman(&PublicKey::from(*peer));
        shared
            .was_contributory()
            .then(|| Secret::new(*shared.as_bytes()))
    }
}

impl SessionIndex {
    /// Keeps the low 24 bits of a random number.
    pub fn from_random(random: u32) -> Self {
        Self(random >> (u32::BITS - INDEX_BITS))
    }

    fn from_wire(index: u32) -> Self {
        Self(index >> (u32::BITS - INDEX_BITS))
    }
}

impl Message {
    /// Reads kind, length and receiver index. Never panics, whatever the bytes.
    pub fn parse(datagram: &[u8]) -> Result<Self, Refused> {
        match Tunn::parse_incoming_packet(datagram) {
            Ok(Packet::HandshakeInit(_)) => Ok(Self::Initiation),
            Ok(Packet::HandshakeResponse(response)) => Ok(Self::Response(SessionIndex::from_wire(
                response.receiver_idx,
            ))),
            Ok(Packet::PacketCookieReply(cookie)) => {
                Ok(Self::Cookie(SessionIndex::from_wire(cookie.receiver_idx)))
            }
            Ok(Packet::PacketData(data)) => {
                Ok(Self::Data(SessionIndex::from_wire(data.receiver_idx)))
            }
            Err(_) => Err(Refused::Malformed),
        }
    }
}

impl Door {
    pub fn new(keys: Arc<StaticKeys>) -> Self {
        let public = PublicKey::from(keys.public);
        Self {
            keys,
            calm: Arc::new(RateLimiter::new(&public, u64::MAX)),
            busy: RateLimiter::new(&public, 0),
        }
    }

    pub fn keys(&self) -> &Arc<StaticKeys> {
        &self.keys
    }

    /// Checks the authenticators of an initiation or response. `busy` asks for a cookie as well, and `reply`
    /// (at least [`MAX_HANDSHAKE_BYTES`]) then receives the cookie reply.
    pub fn admit(&self, from: IpAddr, datagram: &[u8], busy: bool, reply: &mut [u8]) -> Admission {
        if reply.len() < MAX_HANDSHAKE_BYTES {
            return Admission::Refused(Refused::Buffer(reply.len()));
        }
        let limiter = if busy { &self.busy } else { &*self.calm };
        match limiter.verify_packet(Some(from), datagram, reply) {
            Ok(_) => Admission::Admitted,
            Err(TunnResult::WriteToNetwork(cookie)) => Admission::Answer(cookie.len()),
            Err(result) => Admission::Refused(reason(&result)),
        }
    }

    /// Whose static key an admitted initiation carries. One X25519 operation.
    pub fn sender(&self, initiation: &[u8]) -> Result<[u8; 32], Refused> {
        let Ok(Packet::HandshakeInit(packet)) = Tunn::parse_incoming_packet(initiation) else {
            return Err(Refused::Malformed);
        };
        parse_handshake_anon(
            &self.keys.private,
            &PublicKey::from(self.keys.public),
            &packet,
        )
        .map(|half| half.peer_static_public)
        .map_err(|_| Refused::NotAuthentic)
    }

    fn engine(&self, peer: &[u8; 32], psk: &Psk, index: SessionIndex) -> Tunn {
        Tunn::new(
            self.keys.private.clone(),
            PublicKey::from(*peer),
            Some(*Zeroizing::new(*psk.expose())),
            None,
            index.0,
            Some(Arc::clone(&self.calm)),
        )
    }
}

impl ReplayGate {
    pub fn new(door: &Door, peer: &[u8; 32]) -> Self {
        // The answer of this engine is thrown away, so neither its key nor its index matters.
        Self {
            tunn: door.engine(peer, &Secret::new([0; 32]), SessionIndex(0)),
        }
    }

    /// Passes an admitted initiation that is authentic, from this peer, and newer than all before it.
    pub fn pass(&mut self, initiation: &[u8]) -> Result<(), Refused> {
        expect_kind(initiation, |message| message == Message::Initiation)?;
        let mut unused = [0; MAX_HANDSHAKE_BYTES];
        match self.tunn.decapsulate(None, initiation, &mut unused) {
            TunnResult::WriteToNetwork(_) => Ok(()),
            result => Err(reason(&result)),
        }
    }
}

impl Initiator {
    pub fn new(door: &Door, peer: &[u8; 32], psk: &Psk, index: SessionIndex) -> Self {
        Self {
            tunn: door.engine(peer, psk, index),
            index,
            newest: None,
        }
    }

    pub fn index(&self) -> SessionIndex {
        self.index
    }

    /// Writes an initiation, the first or a further one; `out` needs [`MAX_HANDSHAKE_BYTES`].
    pub fn initiate(&mut self, out: &mut [u8]) -> Result<usize, Refused> {
        if out.len() < MAX_HANDSHAKE_BYTES {
            return Err(Refused::Buffer(out.len()));
        }
        match self.tunn.format_handshake_initiation(out, true) {
            TunnResult::WriteToNetwork(message) => {
                self.newest = word(message, 4);
                Ok(message.len())
            }
            result => Err(reason(&result)),
        }
    }

    /// Takes the cookie that a busy peer asks for; the next initiation carries it.
    pub fn take_cookie(&mut self, datagram: &[u8]) -> Result<(), Refused> {
        expect_kind(datagram, |message| matches!(message, Message::Cookie(_)))?;
        let mut unused = [0; MAX_HANDSHAKE_BYTES];
        match self.tunn.decapsulate(None, datagram, &mut unused) {
            TunnResult::Done => Ok(()),
            result => Err(reason(&result)),
        }
    }

    /// Takes the peer's response. On success `out` holds a keepalive of the returned length, which must be
    /// sent: it confirms the session to the responder. On failure the handshake goes on waiting.
    ///
    /// Only the newest initiation may be answered: a responder keeps one unconfirmed session, and the newer
    /// initiation replaces the one that a late answer belongs to.
    pub fn complete(&mut self, response: &[u8], out: &mut [u8]) -> Result<usize, Refused> {
        expect_kind(response, |message| matches!(message, Message::Response(_)))?;
        if out.len() < MAX_HANDSHAKE_BYTES {
            return Err(Refused::Buffer(out.len()));
        }
        if word(response, 8) != self.newest {
            return Err(Refused::Unexpected);
        }
        match self.tunn.decapsulate(None, response, out) {
            TunnResult::WriteToNetwork(keepalive) => Ok(keepalive.len()),
            result => Err(reason(&result)),
        }
    }

    /// The session, once [`Self::complete`] has succeeded.
    pub fn into_session(self) -> Session {
        Session {
            tunn: self.tunn,
            index: self.index,
            // The keepalive that confirmed it.
            sealed: 1,
        }
    }
}

impl Session {
    /// Answers an initiation that passed [`Door::admit`] and [`ReplayGate::pass`]. The session may not send
    /// before it has opened a first message: only that proves that the initiator holds the same keys.
    pub fn respond(
        door: &Door,
        peer: &[u8; 32],
        psk: &Psk,
        index: SessionIndex,
        initiation: &[u8],
        out: &mut [u8],
    ) -> Result<(Self, usize), Refused> {
        expect_kind(initiation, |message| message == Message::Initiation)?;
        if out.len() < MAX_HANDSHAKE_BYTES {
            return Err(Refused::Buffer(out.len()));
        }
        let mut tunn = door.engine(peer, psk, index);
        let length = match tunn.decapsulate(None, initiation, out) {
            TunnResult::WriteToNetwork(response) => response.len(),
            result => return Err(reason(&result)),
        };
        let session = Self {
            tunn,
            index,
            sealed: 0,
        };
        Ok((session, length))
    }

    pub fn index(&self) -> SessionIndex {
        self.index
    }

    /// Messages sent in this session.
    pub fn sealed(&self) -> u64 {
        self.sealed
    }

    /// Seals one packet, already padded, or a keepalive (empty) into the start of `out`, which needs
    /// [`DATA_OVERHEAD_BYTES`] more and at least [`MAX_HANDSHAKE_BYTES`]. Returns the message's length.
    pub fn seal(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<usize, Refused> {
        if out.len()
            < (plaintext.len().saturating_add(DATA_OVERHEAD_BYTES)).max(MAX_HANDSHAKE_BYTES)
        {
            return Err(Refused::Buffer(out.len()));
        }
        if self.sealed >= REJECT_AFTER_MESSAGES {
            return Err(Refused::Exhausted);
        }
        match self.tunn.encapsulate(plaintext, out) {
            // Anything longer or shorter is the engine asking for a handshake: this session cannot send yet.
            TunnResult::WriteToNetwork(message)
                if message.len() == plaintext.len() + DATA_OVERHEAD_BYTES =>
            {
                self.sealed += 1;
                Ok(message.len())
            }
            _ => Err(Refused::Unexpected),
        }
    }

    /// Opens one data message into the start of `out`, which must be as long as the message at least.
    pub fn open(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<Opened, Refused> {
        expect_kind(datagram, |message| matches!(message, Message::Data(_)))?;
        if out.len() < datagram.len() {
            return Err(Refused::Buffer(out.len()));
        }
        // The engine's replay window adds to the counter: near the end of 64 bits that would overflow, and an
        // authentic peer could stop the process with one message.
        if counter(datagram).is_none_or(|counter| counter >= REJECT_AFTER_MESSAGES) {
            return Err(Refused::Exhausted);
        }
        match self.tunn.decapsulate(None, datagram, out) {
            TunnResult::Done => Ok(Opened::Keepalive),
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Ok(Opened::Packet(packet.len()))
            }
            result => Err(reason(&result)),
        }
    }
}

/// Length of a packet of `length` bytes once padded: to a multiple of 16, but never past the tunnel's MTU.
pub fn padded_length(length: usize, mtu: usize) -> usize {
    length.next_multiple_of(PADDING_BYTES).min(mtu.max(length))
}

fn expect_kind(datagram: &[u8], wanted: impl Fn(Message) -> bool) -> Result<(), Refused> {
    if wanted(Message::parse(datagram)?) {
        Ok(())
    } else {
        Err(Refused::Unexpected)
    }
}

/// The four bytes at `from`.
fn word(datagram: &[u8], from: usize) -> Option<[u8; 4]> {
    datagram.get(from..)?.first_chunk().copied()
}

/// Message counter of a data message: little endian, bytes 8 to 15.
fn counter(datagram: &[u8]) -> Option<u64> {
    let bytes = datagram.get(8..16)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

fn reason(result: &TunnResult<'_>) -> Refused {
    use boringtun::noise::errors::WireGuardError as E;
    let TunnResult::Err(error) = result else {
        return Refused::Unexpected;
    };
    match error {
        E::InvalidMac => Refused::WrongMac,
        E::InvalidAeadTag | E::WrongKey => Refused::NotAuthentic,
        E::InvalidCounter | E::DuplicateCounter => Refused::Replayed,
        E::WrongTai64nTimestamp | E::InvalidTai64nTimestamp => Refused::OldTimestamp,
        E::InvalidPacket => Refused::NotIp,
        E::DestinationBufferTooSmall
        | E::IncorrectPacketLength
        | E::UnexpectedPacket
        | E::WrongPacketType
        | E::WrongIndex
        | E::UnderLoad
        | E::LockFailed
        | E::NoCurrentSession
        | E::ConnectionExpired => Refused::Unexpected,
    }
}

#[cfg(test)]
mod tests;
