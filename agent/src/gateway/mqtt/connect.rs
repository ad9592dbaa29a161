//! CONNECT and CONNACK (MQTT 5.0, sections 3.1 and 3.2; MQTT 3.1.1, the same), read and written anew.
//!
//! A broker learns who connects from the gateway alone: the user name is the SPIFFE ID that was proven, what the client
//! said of itself is left out, and its client identifier stands behind the SPIFFE ID, so that nobody can name, and so
//! take over, the session of another identity.

use super::bytes::{Malformed, Reader, put_binary};
use super::packet::{self, Kind, MAX_PACKET_BYTES, Version};
use super::property::{self, Properties};

/// Most topic aliases that a client may have at a time.
pub const MAX_ALIASES: u16 = 32;
/// Between the SPIFFE ID and the client's own identifier. No SPIFFE ID has it, so that no two pairs read the same.
pub const BETWEEN_IDS: char = '|';
/// Longest client identifier, in bytes.
pub const MAX_CLIENT_ID_BYTES: usize = 1024;

const CLEAN: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_QOS: u8 = 0x18;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USERNAME: u8 = 0x80;

/// What a client opens with.
#[derive(Clone, Copy, Debug)]
pub struct Connect<'a> {
    pub version: Version,
    pub clean: bool,
    keep_alive: u16,
    pub properties: Properties<'a>,
    pub client_id: &'a str,
    pub will: Option<Will<'a>>,
}

/// What the broker publishes when the client is gone.
#[derive(Clone, Copy, Debug)]
pub struct Will<'a> {
    /// As they stood in the flags.
    qos_and_retain: u8,
    properties: Properties<'a>,
    pub topic: &'a str,
    payload: &'a [u8],
}

/// Why no CONNECT came of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadConnect {
    /// Another version of MQTT; it is told so.
    Version,
    Malformed(Malformed),
}

/// What a broker answers.
#[derive(Clone, Copy, Debug)]
pub struct ConnAck<'a> {
    flags: u8,
    /// 0: accepted.
    pub reason: u8,
    pub properties: Properties<'a>,
}

impl From<Malformed> for BadConnect {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl<'a> Connect<'a> {
    pub fn parse(body: &'a [u8]) -> Result<Self, BadConnect> {
        let mut reader = Reader::new(body);
        let version = version(&mut reader)?;
        let flags = reader.byte()?;
        check_flags(flags, version)?;
        let keep_alive = reader.word()?;
        let properties = read_properties(&mut reader, version)?;
        let client_id = reader.string()?;
        if client_id.len() > MAX_CLIENT_ID_BYTES {
            return Err(Malformed("client-id").into());
        }
        let will = match flags & WILL {
            0 => None,
            _ => Some(Will {
                qos_and_retain: flags & (WILL_QOS | WILL_RETAIN),
                properties: read_properties(&mut reader, version)?,
                topic: reader.topic_name()?,
                payload: reader.binary()?,
            }),
        };
        if flags & USERNAME != 0 {
            reader.free_text()?;
        }
        if flags & PASSWORD != 0 {
            reader.binary()?;
        }
        reader.end()?;
        if properties.number(property::MAXIMUM_PACKET_SIZE) == Some(0) {
            return Err(Malformed("property").into());
        }
        Ok(Self {
            version,
            clean: flags & CLEAN != 0,
            keep_alive,
            properties,
            client_id,
            will,
        })
    }

    /// Whether the client wants to prove itself to the broker by an exchange of its own.
    pub fn wants_exchange(&self) -> bool {
        let exchange = [
            property::AUTHENTICATION_METHOD,
            property::AUTHENTICATION_DATA,
        ];
        exchange
            .iter()
            .any(|id| self.properties.find(*id).is_some())
    }

    /// Appends it as the broker is to see it: under `identity`, with `client_id` behind it.
    pub fn put(&self, out: &mut Vec<u8>, identity: &str, client_id: &str) -> Result<(), Malformed> {
        let mut body = Vec::new();
        put_binary(&mut body, b"MQTT")?;
        body.push(match self.version {
            Version::V3 => 4,
            Version::V5 => 5,
        });
        let clean = if self.clean { CLEAN } else { 0 };
        let will = self.will.map_or(0, |will| WILL | will.qos_and_retain);
        body.push(USERNAME | clean | will);
        body.extend_from_slice(&self.keep_alive.to_be_bytes());
        if self.version == Version::V5 {
            let size = packet_size(self.properties);
            let without = [property::TOPIC_ALIAS_MAXIMUM, property::MAXIMUM_PACKET_SIZE];
            self.properties.put(&mut body, &without, &size);
        }
        put_binary(
            &mut body,
            format!("{identity}{BETWEEN_IDS}{client_id}").as_bytes(),
        )?;
        if let Some(will) = &self.will {
            if self.version == Version::V5 {
                will.properties.put(&mut body, &[], &[]);
            }
            put_binary(&mut body, will.topic.as_bytes())?;
            put_binary(&mut body, will.payload)?;
        }
        put_binary(&mut body, identity.as_bytes())?;
        packet::put(out, Kind::Connect, 0, &body);
        Ok(())
    }
}

impl<'a> ConnAck<'a> {
    pub fn parse(body: &'a [u8], version: Version) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let (flags, reason) = (reader.byte()?, reader.byte()?);
        if flags & !1 != 0 || (flags != 0 && reason != 0) {
            return Err(Malformed("flags"));
        }
        let properties = read_properties(&mut reader, version)?;
        reader.end()?;
        Ok(Self {
            flags,
            reason,
            properties,
        })
    }

    /// How many aliases the client may have.
    pub fn aliases(&self) -> u16 {
        let broker = self.properties.number(property::TOPIC_ALIAS_MAXIMUM);
        let broker = broker.and_then(|number| u16::try_from(number).ok());
        broker.unwrap_or(0).min(MAX_ALIASES)
    }

    /// Appends it as the client is to see it. `assigned`: the identifier that it was given, having named none.
    pub fn put(
        &self,
        out: &mut Vec<u8>,
        version: Version,
        assigned: Option<&str>,
    ) -> Result<(), Malformed> {
        let mut body = vec![self.flags, self.reason];
        if version == Version::V5 {
            let mut more = Vec::new();
            if self.reason == 0 {
                more.extend_from_slice(&packet_size(self.properties));
                if self.aliases() > 0 {
                    let aliases = property::word(property::TOPIC_ALIAS_MAXIMUM, self.aliases());
                    more.extend_from_slice(&aliases);
                }
                if let Some(assigned) = assigned {
                    more.push(property::ASSIGNED_CLIENT_ID);
                    put_binary(&mut more, assigned.as_bytes())?;
                }
            }
            let without = [
                property::TOPIC_ALIAS_MAXIMUM,
                property::MAXIMUM_PACKET_SIZE,
                property::ASSIGNED_CLIENT_ID,
                // A client is to come back here, not past the gateway.
                property::SERVER_REFERENCE,
            ];
            self.properties.put(&mut body, &without, &more);
        }
        packet::put(out, Kind::ConnAck, 0, &body);
        Ok(())
    }
}

/// A CONNACK of the gateway's own, for who is not let through.
pub fn refuse(out: &mut Vec<u8>, version: Version, reason: Refusal) {
    match version {
        Version::V3 => packet::put(out, Kind::ConnAck, 0, &[0, reason.code(version)]),
        Version::V5 => packet::put(out, Kind::ConnAck, 0, &[0, reason.code(version), 0]),
    }
}

/// Why a client is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Version,
    ClientId,
    NotAuthorized,
    AuthenticationMethod,
}

impl Refusal {
    fn code(self, version: Version) -> u8 {
        match (self, version) {
            (Self::Version, Version::V3) => 0x01,
            (Self::ClientId, Version::V3) => 0x02,
            (_, Version::V3) => 0x05,
            (Self::Version, Version::V5) => 0x84,
            (Self::ClientId, Version::V5) => 0x85,
            (Self::NotAuthorized, Version::V5) => 0x87,
            (Self::AuthenticationMethod, Version::V5) => 0x8c,
        }
    }
}

fn version(reader: &mut Reader<'_>) -> Result<Version, BadConnect> {
    let name = reader.string()?;
    let level = reader.byte()?;
    match (name, level) {
        ("MQTT", 4) => Ok(Version::V3),
        ("MQTT", 5) => Ok(Version::V5),
        ("MQTT" | "MQIsdp", _) => Err(BadConnect::Version),
        _ => Err(Malformed("protocol").into()),
    }
}

fn check_flags(flags: u8, version: Version) -> Result<(), Malformed> {
    let will = flags & WILL != 0;
    let without_will = flags & (WILL_QOS | WILL_RETAIN) == 0;
    // A password without a user name is for MQTT 5 only (MQTT 3.1.1, section 3.1.2.9).
    let named = flags & USERNAME != 0 || flags & PASSWORD == 0 || version == Version::V5;
    match flags & 1 == 0 && (will || without_will) && flags & WILL_QOS != WILL_QOS && named {
        true => Ok(()),
        false => Err(Malformed("flags")),
    }
}

fn read_properties<'a>(
    reader: &mut Reader<'a>,
    version: Version,
) -> Result<Properties<'a>, Malformed> {
    match version {
        Version::V3 => Ok(Properties::NONE),
        Version::V5 => Properties::read(reader),
    }
}

/// The smaller of what the other side takes and what is carried.
fn packet_size(properties: Properties<'_>) -> [u8; 5] {
    let ours = u32::try_from(MAX_PACKET_BYTES).unwrap_or(u32::MAX);
    let theirs = properties.number(property::MAXIMUM_PACKET_SIZE);
    property::four(
        property::MAXIMUM_PACKET_SIZE,
        theirs.map_or(ours, |theirs| theirs.min(ours)),
    )
}

#[cfg(test)]
mod tests;
