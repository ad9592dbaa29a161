//! PUBLISH (MQTT 5.0, section 3.3).

use super::bytes::{Malformed, Reader, put_binary, put_variable};
use super::packet::{Kind, Packet, Version};
use super::property::{self, Properties};

/// One message.
#[derive(Clone, Copy, Debug)]
pub struct Publish<'a> {
    /// Duplicate, quality of service, retain: as they stood.
    flags: u8,
    /// Empty where an alias stands for it.
    pub topic: &'a str,
    /// None at quality of service 0.
    pub id: Option<u16>,
    properties: Properties<'a>,
    payload: &'a [u8],
}

impl<'a> Publish<'a> {
    pub fn parse(packet: &Packet<'a>, version: Version) -> Result<Self, Malformed> {
        let flags = packet.flags;
        let qos = flags >> 1 & 0b11;
        // A message that is not acknowledged is never sent again (section 3.3.1.1).
        if qos == 3 || (qos == 0 && flags & 0b1000 != 0) {
            return Err(Malformed("flags"));
        }
        let mut reader = Reader::new(packet.body);
        let may_be_aliased = version == Version::V5 && packet.body.starts_with(&[0, 0]);
        let topic = match may_be_aliased {
            true => reader.string()?,
            false => reader.topic_name()?,
        };
        let id = match qos {
            0 => None,
            _ => Some(reader.packet_id()?),
        };
        let properties = match version {
            Version::V3 => Properties::NONE,
            Version::V5 => Properties::read(&mut reader)?,
        };
        let publish = Self {
            flags,
            topic,
            id,
            properties,
            payload: reader.rest(),
        };
        match publish.alias() {
            Some(0) => Err(Malformed("topic-alias")),
            None if topic.is_empty() => Err(Malformed("topic")),
            _ => Ok(publish),
        }
    }

    pub fn alias(&self) -> Option<u16> {
        let number = self.properties.number(property::TOPIC_ALIAS)?;
        u16::try_from(number).ok()
    }

    /// Whether it is delivered exactly once: acknowledged in four steps.
    pub fn is_exactly_once(&self) -> bool {
        self.flags >> 1 & 0b11 == 2
    }

    /// Appends it with its topic spelled out. For MQTT 5 only: in 3.1.1 topics have no other form.
    pub fn put_without_alias(&self, out: &mut Vec<u8>, topic: &str) -> Result<(), Malformed> {
        let mut head = Vec::new();
        put_binary(&mut head, topic.as_bytes())?;
        if let Some(id) = self.id {
            head.extend_from_slice(&id.to_be_bytes());
        }
        self.properties
            .put(&mut head, &[property::TOPIC_ALIAS], &[]);
        out.push((Kind::Publish as u8 + 1) << 4 | self.flags);
        put_variable(out, head.len() + self.payload.len());
        out.extend_from_slice(&head);
        out.extend_from_slice(self.payload);
        Ok(())
    }
}
