//! A moved peer as bytes: one version, every length bounded, nothing left over.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use edgeward_identity::{BootTime, Secret};
use ipnet::IpNet;
use zeroize::Zeroizing;

use super::super::peer::{MAX_QUEUED_BYTES, MAX_QUEUED_PACKETS};
use super::super::{Endpoint, MAX_CANDIDATES, MAX_PREFIXES_PER_PEER, PeerId, Role};
use super::{Dates, MovedPeer, MovedSession, Slot};
use crate::wireguard::{SESSION_STATE_BYTES, STAMP_BYTES, SessionState, Stamp};

/// Longest encoded peer, in bytes.
pub const MAX_MOVED_BYTES: usize = 256 << 10;
const VERSION: u8 = 1;
/// Longest name of a peer, in bytes: a SPIFFE ID.
const MAX_NAME_BYTES: usize = 2048;
const MAX_SESSIONS: usize = 4;
/// Stands for "no time".
const NEVER: u64 = u64::MAX;

/// Bytes that are no peer of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a peer of this version: {0}")]
pub struct NotAPeer(&'static str);

impl MovedPeer {
    /// Secret, and to be kept so.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(4096));
        out.push(VERSION);
        out.extend(self.id.0.to_le_bytes());
        put_bytes(&mut out, self.name.as_bytes());
        out.push(match self.role {
            Role::Initiator => 0,
            Role::Responder => 1,
            Role::Either => 2,
        });
        out.extend(self.public_key);
        out.extend(self.private.expose());
        out.extend(self.psk.expose());
        out.extend(self.epoch.to_le_bytes());
        put_optional(&mut out, self.opened.map(u64::to_le_bytes));
        put_length(&mut out, self.allowed_ips.len());
        for prefix in &self.allowed_ips {
            put_ip(&mut out, prefix.addr());
            out.push(prefix.prefix_len());
        }
        put_length(&mut out, self.candidates.len());
        for place in &self.candidates {
            put_place(&mut out, *place);
        }
        out.push(u8::from(self.endpoint.is_some()));
        if let Some(endpoint) = self.endpoint {
            put_place(&mut out, endpoint.remote);
            out.push(u8::from(endpoint.local_ip.is_some()));
            if let Some(local) = endpoint.local_ip {
                put_ip(&mut out, local);
            }
        }
        put_time(&mut out, Some(self.proven_until));
        put_time(&mut out, Some(self.valid_until));
        let keepalive = self.persistent_keepalive.map(BootTime::from_duration);
        put_time(&mut out, keepalive);
        for stamp in self.stamps {
            put_optional(&mut out, stamp.map(Stamp::to_bytes));
        }
        put_dates(&mut out, &self.dates);
        put_length(&mut out, self.sessions.len());
        for session in &self.sessions {
            put_session(&mut out, session);
        }
        put_length(&mut out, self.queue.len());
        for packet in &self.queue {
            put_bytes(&mut out, packet);
        }
        out
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotAPeer> {
        if bytes.len() > MAX_MOVED_BYTES {
            return Err(NotAPeer("too long"));
        }
        let mut input = Input(bytes);
        if input.byte()? != VERSION {
            return Err(NotAPeer("version"));
        }
        let peer = input.peer()?;
        if input.0.is_empty() {
            Ok(peer)
        } else {
            Err(NotAPeer("more than a peer"))
        }
    }
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    // Everything counted here has a limit below; one that does not fit is refused when read.
    out.extend(u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend(bytes);
}

fn put_optional<const N: usize>(out: &mut Vec<u8>, bytes: Option<[u8; N]>) {
    out.push(u8::from(bytes.is_some()));
    out.extend(bytes.into_iter().flatten());
}

fn put_time(out: &mut Vec<u8>, time: Option<BootTime>) {
    let nanos = time.map_or(NEVER, |time| {
        let nanos = u64::try_from(time.as_duration().as_nanos());
        nanos.map_or(NEVER - 1, |nanos| nanos.min(NEVER - 1))
    });
    out.extend(nanos.to_le_bytes());
}

fn put_ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(v4) => {
            out.push(4);
            out.extend(v4.octets());
        }
        IpAddr::V6(v6) => {
            out.push(6);
            out.extend(v6.octets());
        }
    }
}

fn put_place(out: &mut Vec<u8>, place: SocketAddr) {
    put_ip(out, place.ip());
    out.extend(place.port().to_le_bytes());
    let scope = match place {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(v6) => v6.scope_id(),
    };
    out.extend(scope.to_le_bytes());
}

fn put_dates(out: &mut Vec<u8>, dates: &Dates) {
    for date in [
        dates.last_handshake,
        dates.rekey_at,
        dates.last_sent,
        dates.last_data,
        dates.dead_at,
        dates.keepalive_at,
    ] {
        put_time(out, date);
    }
    out.push(u8::from(dates.rekey_on_use));
}

fn put_session(out: &mut Vec<u8>, session: &MovedSession) {
    out.push(match session.slot {
        Slot::Current => 0,
        Slot::Older => 1,
        Slot::Next => 2,
    });
    out.extend(session.epoch.to_le_bytes());
    put_time(out, Some(session.expires));
    out.push(u8::from(session.ours));
    out.extend(session.state.encode().iter());
}

/// What is still to be read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn peer(&mut self) -> Result<MovedPeer, NotAPeer> {
        Ok(MovedPeer {
            id: PeerId(self.number()?),
            name: self.name()?,
            role: match self.byte()? {
                0 => Role::Initiator,
                1 => Role::Responder,
                2 => Role::Either,
                _ => return Err(NotAPeer("role")),
            },
            public_key: self.array()?,
            private: Secret::new(self.array()?),
            psk: Secret::new(self.array()?),
            epoch: self.number()?,
            opened: self.optional()?.map(u64::from_le_bytes),
            allowed_ips: self.list(MAX_PREFIXES_PER_PEER, Self::prefix)?,
            candidates: self.list(MAX_CANDIDATES, Self::place)?,
            endpoint: self.endpoint()?,
            proven_until: self.time()?.ok_or(NotAPeer("time"))?,
            valid_until: self.time()?.ok_or(NotAPeer("time"))?,
            persistent_keepalive: self.time()?.map(BootTime::as_duration),
            stamps: [self.stamp()?, self.stamp()?],
            dates: self.dates()?,
            sessions: self.list(MAX_SESSIONS, Self::session)?,
            queue: self.queue()?,
        })
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], NotAPeer> {
        let (front, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(NotAPeer("cut short"))?;
        self.0 = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], NotAPeer> {
        let (front, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(NotAPeer("cut short"))?;
        self.0 = rest;
        Ok(*front)
    }

    fn byte(&mut self) -> Result<u8, NotAPeer> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn truth(&mut self) -> Result<bool, NotAPeer> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(NotAPeer("neither yes nor no")),
        }
    }

    fn number(&mut self) -> Result<u64, NotAPeer> {
        self.array().map(u64::from_le_bytes)
    }

    fn length(&mut self, most: usize) -> Result<usize, NotAPeer> {
        let length = self.array().map(u32::from_le_bytes)?;
        let length = usize::try_from(length).map_err(|_| NotAPeer("length"))?;
        if length > most {
            return Err(NotAPeer("length"));
        }
        Ok(length)
    }

    /// Room is made as elements are read, not by what the length says.
    fn list<T>(
        &mut self,
        most: usize,
        read: impl Fn(&mut Self) -> Result<T, NotAPeer>,
    ) -> Result<Vec<T>, NotAPeer> {
        let length = self.length(most)?;
        (0..length).map(|_| read(self)).collect()
    }

    fn optional<const N: usize>(&mut self) -> Result<Option<[u8; N]>, NotAPeer> {
        self.truth()?.then(|| self.array()).transpose()
    }

    fn name(&mut self) -> Result<String, NotAPeer> {
        let length = self.length(MAX_NAME_BYTES)?;
        let name = std::str::from_utf8(self.take(length)?);
        name.map(str::to_owned).map_err(|_| NotAPeer("name"))
    }

    fn time(&mut self) -> Result<Option<BootTime>, NotAPeer> {
        let nanos = self.number()?;
        Ok((nanos != NEVER).then(|| BootTime::from_duration(Duration::from_nanos(nanos))))
    }

    fn ip(&mut self) -> Result<IpAddr, NotAPeer> {
        match self.byte()? {
            4 => self.array::<4>().map(IpAddr::from),
            6 => self.array::<16>().map(IpAddr::from),
            _ => Err(NotAPeer("address family")),
        }
    }

    fn prefix(&mut self) -> Result<IpNet, NotAPeer> {
        let (ip, length) = (self.ip()?, self.byte()?);
        IpNet::new(ip, length).map_err(|_| NotAPeer("prefix"))
    }

    fn place(&mut self) -> Result<SocketAddr, NotAPeer> {
        let ip = self.ip()?;
        let port = u16::from_le_bytes(self.array()?);
        let scope = u32::from_le_bytes(self.array()?);
        Ok(match ip {
            IpAddr::V4(_) if scope == 0 => SocketAddr::new(ip, port),
            IpAddr::V4(_) => return Err(NotAPeer("scope")),
            IpAddr::V6(v6) => std::net::SocketAddrV6::new(v6, port, 0, scope).into(),
        })
    }

    fn endpoint(&mut self) -> Result<Option<Endpoint>, NotAPeer> {
        if !self.truth()? {
            return Ok(None);
        }
        let remote = self.place()?;
        let local_ip = self.truth()?.then(|| self.ip()).transpose()?;
        Ok(Some(Endpoint { remote, local_ip }))
    }

    fn stamp(&mut self) -> Result<Option<Stamp>, NotAPeer> {
        let bytes = self.optional::<STAMP_BYTES>()?;
        Ok(bytes.map(Stamp::from_bytes))
    }

    fn dates(&mut self) -> Result<Dates, NotAPeer> {
        Ok(Dates {
            last_handshake: self.time()?,
            rekey_at: self.time()?,
            last_sent: self.time()?,
            last_data: self.time()?,
            dead_at: self.time()?,
            keepalive_at: self.time()?,
            rekey_on_use: self.truth()?,
        })
    }

    fn session(&mut self) -> Result<MovedSession, NotAPeer> {
        Ok(MovedSession {
            slot: match self.byte()? {
                0 => Slot::Current,
                1 => Slot::Older,
                2 => Slot::Next,
                _ => return Err(NotAPeer("slot")),
            },
            epoch: self.number()?,
            expires: self.time()?.ok_or(NotAPeer("time"))?,
            ours: self.truth()?,
            state: SessionState::decode(self.take(SESSION_STATE_BYTES)?)
                .map_err(|_| NotAPeer("session"))?,
        })
    }

    fn queue(&mut self) -> Result<Vec<Vec<u8>>, NotAPeer> {
        self.list(MAX_QUEUED_PACKETS, |input| {
            let length = input.length(MAX_QUEUED_BYTES)?;
            input.take(length).map(<[u8]>::to_vec)
        })
    }
}
