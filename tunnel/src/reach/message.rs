//! What two bound nodes tell each other about paths, as bytes. Integers are big-endian.
//!
//! ```text
//! datagram  = 05 00 00 00 | tag u32 | counter u64 | AEAD(body), 16 bytes more than the body
//! relayed   = 06 00 00 00 | route u64 | any other datagram
//!
//! ping      = 1 | id u64 | padding (zeros)              at least MIN_PING_BYTES
//! pong      = 2 | id u64 | size u16 | family u8 (4, 6) | address 16 bytes, IPv4 in the first four | port u16
//! ask       = 3 | ask u32 | length u8 | name of the node to reach
//! granted   = 4 | ask u32 | route u64
//! refused   = 5 | ask u32 | code u8
//! offer     = 6 | route u64 | length u8 | name of the node that asked
//! end       = 7 | route u64
//! moved     = 8 | as a ping, from where the sender is now: send there from now on
//! ```
//!
//! Names are those of nodes of the one trust domain that the keys stand for. No answer is longer than its question:
//! a ping is as long as its pong at least, and an ask is padded to the length of a grant.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use edgeward_identity::spiffe_id::MAX_NAME_BYTES;

/// The first bytes of a reach message.
pub const REACH_CLASS: [u8; 4] = [5, 0, 0, 0];
/// The first bytes of a relayed datagram.
pub const RELAYED_CLASS: [u8; 4] = [6, 0, 0, 0];
/// Bytes before a relayed datagram.
pub const RELAYED_HEADER_BYTES: usize = 12;
/// Bytes of a reach message before its sealed body.
pub const HEADER_BYTES: usize = 16;
/// Bytes that sealing adds to the body.
pub const SEAL_BYTES: usize = 16;
/// Bytes of a pong's body: a ping's body is never shorter.
pub const MIN_PING_BYTES: usize = 30;
/// Longest body, in bytes: a padded ping in a datagram of 1,500 bytes over IPv4.
pub const MAX_BODY_BYTES: usize = 1500 - 28 - HEADER_BYTES - SEAL_BYTES;
/// Shortest ask, in bytes: as long as the longest answer to it.
const MIN_ASK_BYTES: usize = 13;

/// A route through a relay: random, chosen by the relay, the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u64);

/// One message, opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    Ping {
        id: u64,
        /// Bytes of the whole body.
        body: usize,
        /// The sender's network is another one: it is here now, and nowhere else.
        moved: bool,
    },
    Pong {
        id: u64,
        /// Bytes of the ping's body.
        size: u16,
        /// Where the ping came from.
        observed: SocketAddr,
    },
    Ask {
        ask: u32,
        to: String,
    },
    Granted {
        ask: u32,
        route: RouteId,
    },
    Refused {
        ask: u32,
        code: Refusal,
    },
    Offer {
        route: RouteId,
        from: String,
    },
    End {
        route: RouteId,
    },
}

/// Why a relay carries nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Policy does not let it carry between the two.
    NotPermitted,
    /// It is not bound with the other, or does not know where it is.
    NotBound,
    /// One of its limits is reached.
    Busy,
}

/// What is wrong with a body. The peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("empty, or longer than the limit in bytes: {0}")]
    Length(usize),
    #[error("unknown kind: {0}")]
    Kind(u8),
    #[error("shorter or longer than its kind says")]
    Shape,
    #[error("padding is not zero")]
    Padding,
    #[error("not an address")]
    Address,
    #[error("not a name")]
    Name,
    #[error("unknown code: {0}")]
    Code(u8),
}

impl Refusal {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotPermitted => "not-permitted",
            Self::NotBound => "not-bound",
            Self::Busy => "busy",
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::NotPermitted => 1,
            Self::NotBound => 2,
            Self::Busy => 3,
        }
    }
}

impl Message {
    /// The body. A ping is padded to the length it says, within the limits.
    pub fn body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(80);
        match self {
            Self::Ping { id, body, moved } => {
                out.push(if *moved { 8 } else { 1 });
                out.extend_from_slice(&id.to_be_bytes());
                out.resize((*body).clamp(MIN_PING_BYTES, MAX_BODY_BYTES), 0);
            }
            Self::Pong { id, size, observed } => {
                out.push(2);
                out.extend_from_slice(&id.to_be_bytes());
                out.extend_from_slice(&size.to_be_bytes());
                put_address(&mut out, *observed);
            }
            Self::Ask { ask, to } => {
                out.push(3);
                out.extend_from_slice(&ask.to_be_bytes());
                put_name(&mut out, to);
                out.resize(out.len().max(MIN_ASK_BYTES), 0);
            }
            Self::Granted { ask, route } => {
                out.push(4);
                out.extend_from_slice(&ask.to_be_bytes());
                out.extend_from_slice(&route.0.to_be_bytes());
            }
            Self::Refused { ask, code } => {
                out.push(5);
                out.extend_from_slice(&ask.to_be_bytes());
                out.push(code.code());
            }
            Self::Offer { route, from } => {
                out.push(6);
                out.extend_from_slice(&route.0.to_be_bytes());
                put_name(&mut out, from);
            }
            Self::End { route } => {
                out.push(7);
                out.extend_from_slice(&route.0.to_be_bytes());
            }
        }
        out
    }

    /// Reads a body, all of it.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        if body.is_empty() || body.len() > MAX_BODY_BYTES {
            return Err(Malformed::Length(body.len()));
        }
        let mut rest = body;
        let [kind] = take(&mut rest)?;
        let message = match kind {
            1 | 8 => {
                let id = u64::from_be_bytes(take(&mut rest)?);
                if body.len() < MIN_PING_BYTES {
                    return Err(Malformed::Shape);
                }
                zeros(&mut rest)?;
                Self::Ping {
                    id,
                    body: body.len(),
                    moved: kind == 8,
                }
            }
            2 => Self::Pong {
                id: u64::from_be_bytes(take(&mut rest)?),
                size: u16::from_be_bytes(take(&mut rest)?),
                observed: address(&mut rest)?,
            },
            3 => {
                let ask = u32::from_be_bytes(take(&mut rest)?);
                let to = name(&mut rest)?;
                if body.len() < MIN_ASK_BYTES || body.len() > MIN_ASK_BYTES.max(6 + to.len()) {
                    return Err(Malformed::Shape);
                }
                zeros(&mut rest)?;
                Self::Ask { ask, to }
            }
            4 => Self::Granted {
                ask: u32::from_be_bytes(take(&mut rest)?),
                route: RouteId(u64::from_be_bytes(take(&mut rest)?)),
            },
            5 => Self::Refused {
                ask: u32::from_be_bytes(take(&mut rest)?),
                code: refusal(&mut rest)?,
            },
            6 => Self::Offer {
                route: RouteId(u64::from_be_bytes(take(&mut rest)?)),
                from: name(&mut rest)?,
            },
            7 => Self::End {
                route: RouteId(u64::from_be_bytes(take(&mut rest)?)),
            },
            other => return Err(Malformed::Kind(other)),
        };
        if rest.is_empty() {
            Ok(message)
        } else {
            Err(Malformed::Shape)
        }
    }
}

/// The route and the datagram inside a relayed one. A relayed datagram inside another is none: no relay behind a
/// relay, so nothing can go round in circles.
pub fn relayed(datagram: &[u8]) -> Option<(RouteId, &[u8])> {
    let (class, rest) = datagram.split_first_chunk::<4>()?;
    let (route, inner) = rest.split_first_chunk::<8>()?;
    if *class != RELAYED_CLASS || inner.is_empty() || inner.starts_with(&RELAYED_CLASS) {
        return None;
    }
    Some((RouteId(u64::from_be_bytes(*route)), inner))
}

/// What goes before a relayed datagram.
pub fn relayed_header(route: RouteId) -> [u8; RELAYED_HEADER_BYTES] {
    let [a, b, c, d] = RELAYED_CLASS;
    let [e, f, g, h, i, j, k, l] = route.0.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l]
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (taken, after) = rest.split_first_chunk::<N>().ok_or(Malformed::Shape)?;
    *rest = after;
    Ok(*taken)
}

fn zeros(rest: &mut &[u8]) -> Result<(), Malformed> {
    if std::mem::take(rest).iter().any(|byte| *byte != 0) {
        return Err(Malformed::Padding);
    }
    Ok(())
}

fn put_address(out: &mut Vec<u8>, address: SocketAddr) {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
            out.extend_from_slice(&[0; 12]);
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&address.port().to_be_bytes());
}

fn address(rest: &mut &[u8]) -> Result<SocketAddr, Malformed> {
    let [family] = take(rest)?;
    let octets: [u8; 16] = take(rest)?;
    let port = u16::from_be_bytes(take(rest)?);
    let ip: IpAddr = match (family, octets) {
        (4, [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]) => Ipv4Addr::new(a, b, c, d).into(),
        (6, octets) if Ipv6Addr::from(octets).to_ipv4_mapped().is_none() => octets.into(),
        _ => return Err(Malformed::Address),
    };
    if port == 0 || ip.is_unspecified() || ip.is_multicast() {
        return Err(Malformed::Address);
    }
    Ok(SocketAddr::new(ip, port))
}

fn put_name(out: &mut Vec<u8>, name: &str) {
    // Node names are at most 63 bytes: the length always fits.
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(name.as_bytes());
}

fn name(rest: &mut &[u8]) -> Result<String, Malformed> {
    let [length] = take(rest)?;
    let length = usize::from(length);
    if length == 0 || length > MAX_NAME_BYTES {
        return Err(Malformed::Name);
    }
    let (name, after) = rest.split_at_checked(length).ok_or(Malformed::Shape)?;
    *rest = after;
    String::from_utf8(name.to_vec()).map_err(|_| Malformed::Name)
}

fn refusal(rest: &mut &[u8]) -> Result<Refusal, Malformed> {
    match take(rest)? {
        [1] => Ok(Refusal::NotPermitted),
        [2] => Ok(Refusal::NotBound),
        [3] => Ok(Refusal::Busy),
        [other] => Err(Malformed::Code(other)),
    }
}

#[cfg(test)]
mod tests;
