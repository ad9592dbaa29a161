//! SUBSCRIBE, SUBACK and UNSUBSCRIBE (MQTT 5.0, sections 3.8 to 3.10).

use super::bytes::{MAX_TOPIC_BYTES, Malformed, Reader, put_binary};
use super::packet::{self, Kind, Version};
use super::property::Properties;

/// Most filters of one packet.
pub const MAX_FILTERS: usize = 512;
const SHARED: &str = "$share/";
/// What a denied filter gets in SUBACK.
const NOT_AUTHORIZED_V5: u8 = 0x87;
const FAILURE_V3: u8 = 0x80;

/// What a client wants to hear.
#[derive(Clone, Debug)]
pub struct Subscribe<'a> {
    pub id: u16,
    properties: Properties<'a>,
    /// Never empty.
    pub filters: Vec<Filter<'a>>,
}

/// One topic filter with its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter<'a> {
    /// As it stood.
    whole: &'a str,
    options: u8,
}

impl<'a> Filter<'a> {
    /// The topics that are meant: without the group that shares them (section 4.8.2). Brokers of MQTT 3.1.1 know
    /// shared subscriptions, too.
    pub fn topics(&self) -> &'a str {
        split_shared(self.whole).unwrap_or(self.whole)
    }
}

impl<'a> Subscribe<'a> {
    pub fn parse(body: &'a [u8], version: Version) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let (id, properties) = head(&mut reader, version)?;
        let mut filters = Vec::new();
        while !reader.is_empty() {
            let whole = filter(&mut reader)?;
            let options = reader.byte()?;
            check_options(options, version)?;
            if filters.len() >= MAX_FILTERS {
                return Err(Malformed("filters"));
            }
            filters.push(Filter { whole, options });
        }
        match filters.is_empty() {
            true => Err(Malformed("filters")),
            false => Ok(Self {
                id,
                properties,
                filters,
            }),
        }
    }

    /// Appends it with those filters only that are allowed.
    pub fn put(
        &self,
        out: &mut Vec<u8>,
        version: Version,
        allowed: &[bool],
    ) -> Result<(), Malformed> {
        let mut body = self.id.to_be_bytes().to_vec();
        if version == Version::V5 {
            self.properties.put(&mut body, &[], &[]);
        }
        let kept = self
            .filters
            .iter()
            .zip(allowed)
            .filter(|(_, allowed)| **allowed);
        for (filter, _) in kept {
            put_binary(&mut body, filter.whole.as_bytes())?;
            body.push(filter.options);
        }
        packet::put(out, Kind::Subscribe, 0b0010, &body);
        Ok(())
    }
}

/// An UNSUBSCRIBE is well-formed: nobody needs a right to hear less.
pub fn check_unsubscribe(body: &[u8], version: Version) -> Result<(), Malformed> {
    let mut reader = Reader::new(body);
    head(&mut reader, version)?;
    if reader.is_empty() {
        return Err(Malformed("filters"));
    }
    while !reader.is_empty() {
        filter(&mut reader)?;
    }
    Ok(())
}

/// Appends the SUBACK of a broker with the denied filters put back in their places. `theirs` is what the broker sent
/// behind the packet identifier; where nothing was forwarded there is none.
pub fn put_suback(
    out: &mut Vec<u8>,
    version: Version,
    id: u16,
    theirs: Option<&[u8]>,
    allowed: &[bool],
) -> Result<(), Malformed> {
    let mut body = id.to_be_bytes().to_vec();
    let mut reader = Reader::new(theirs.unwrap_or_default());
    if version == Version::V5 {
        let properties = match theirs {
            Some(_) => Properties::read(&mut reader)?,
            None => Properties::NONE,
        };
        properties.put(&mut body, &[], &[]);
    }
    for allowed in allowed {
        body.push(match (allowed, version) {
            (true, _) => reader.byte()?,
            (false, Version::V3) => FAILURE_V3,
            (false, Version::V5) => NOT_AUTHORIZED_V5,
        });
    }
    reader.end()?;
    packet::put(out, Kind::SubAck, 0, &body);
    Ok(())
}

/// Packet identifier and properties.
fn head<'a>(reader: &mut Reader<'a>, version: Version) -> Result<(u16, Properties<'a>), Malformed> {
    let id = reader.packet_id()?;
    let properties = match version {
        Version::V3 => Properties::NONE,
        Version::V5 => Properties::read(reader)?,
    };
    Ok((id, properties))
}

/// A topic filter, shared or not (sections 4.7, 4.8.2).
fn filter<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Malformed> {
    let whole = reader.string()?;
    let topics = match whole.starts_with(SHARED) {
        true => split_shared(whole).ok_or(Malformed("filter"))?,
        false => whole,
    };
    let last = topics.split('/').count().saturating_sub(1);
    let sound = topics
        .split('/')
        .enumerate()
        .all(|(index, level)| match level {
            "+" => true,
            "#" => index == last,
            level => !level.contains(['+', '#']),
        });
    match sound && !topics.is_empty() && whole.len() <= MAX_TOPIC_BYTES {
        true => Ok(whole),
        false => Err(Malformed("filter")),
    }
}

/// The filter behind `$share/GROUP/`.
fn split_shared(whole: &str) -> Option<&str> {
    let (group, topics) = whole.strip_prefix(SHARED)?.split_once('/')?;
    (!group.is_empty() && !group.contains(['+', '#'])).then_some(topics)
}

/// Section 3.8.3.1. In 3.1.1 only the quality of service stands there.
fn check_options(options: u8, version: Version) -> Result<(), Malformed> {
    let (qos, retain_handling) = (options & 0b11, options >> 4 & 0b11);
    let reserved = match version {
        Version::V3 => options >> 2,
        Version::V5 => options >> 6,
    };
    match qos == 3 || retain_handling == 3 || reserved != 0 {
        true => Err(Malformed("flags")),
        false => Ok(()),
    }
}
