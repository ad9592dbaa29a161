//! One connection of MQTT between its two streams: what goes on, what is answered in the broker's place, and what the
//! broker is told in the client's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use edgeward_policy::l7::mqtt::Request;

use super::bytes::Malformed;
use super::connect::{BadConnect, ConnAck, Connect, Refusal, refuse};
use super::packet::{self, Kind, Packet, Version, ack_id, put_ack};
use super::publish::Publish;
use super::subscribe::{Subscribe, check_unsubscribe, put_suback};
use crate::gateway::relay::{Between, End, Inbox, Outbox, Outboxes};

/// Most messages of one direction whose delivery is half acknowledged here, in the place of the other side.
pub const MAX_HALF_DONE: usize = 1024;
/// Most subscriptions of which a part was denied and the rest not answered yet.
pub const MAX_PARTLY_DENIED: usize = 64;

/// MQTT 5.0, table 2-6.
const NOT_AUTHORIZED: u8 = 0x87;
const DISCONNECT_WITH_WILL: u8 = 0x04;

/// What the caller may.
pub trait Rights: Send {
    /// Something new: counted for the records.
    fn may(&mut self, request: Request<'_>) -> bool;

    /// Something that was allowed before and goes on.
    fn still(&mut self, request: Request<'_>) -> bool;
}

/// One connection.
pub struct Session<R> {
    rights: R,
    identity: String,
    /// The identifier of a client that names none.
    fresh_id: String,
    stage: Stage,
    version: Version,
    /// The client named no identifier.
    assigned: bool,
    /// The topic of the will, until the client takes leave.
    will: Option<String>,
    aliases: HashMap<u16, String>,
    most_aliases: u16,
    /// Of the client's messages, and of the broker's, those that the gateway took in the place of the other side.
    taken_from_client: BTreeSet<u16>,
    taken_from_broker: BTreeSet<u16>,
    /// Filters of subscriptions under way that are not allowed whole, by packet identifier.
    partly_denied: BTreeMap<u16, Vec<bool>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing has come.
    Silent,
    /// CONNECT was passed on.
    Opening,
    /// CONNACK came.
    Open,
    Left,
}

impl<R: Rights> Session<R> {
    /// `identity` is who the broker is told to be connected, `fresh_id` what nobody can guess.
    pub fn new(rights: R, identity: String, fresh_id: String) -> Self {
        Self {
            rights,
            identity,
            fresh_id,
            stage: Stage::Silent,
            version: Version::V3,
            assigned: false,
            will: None,
            aliases: HashMap::new(),
            most_aliases: 0,
            taken_from_client: BTreeSet::new(),
            taken_from_broker: BTreeSet::new(),
            partly_denied: BTreeMap::new(),
        }
    }

    fn client_packet(&mut self, packet: &Packet<'_>, out: &mut Outboxes) -> Result<(), End> {
        if self.stage == Stage::Silent {
            return match packet.kind {
                Kind::Connect => self.connect(packet.body, out),
                _ => Err(End::Malformed("packet-type")),
            };
        }
        match packet.kind {
            Kind::Publish => self.publish(packet, out)?,
            Kind::Subscribe => self.subscribe(packet, out)?,
            Kind::Unsubscribe => {
                check_unsubscribe(packet.body, self.version)?;
                pass(packet, &mut out.to_server);
            }
            Kind::PubAck | Kind::PubRec | Kind::PubComp => {
                ack_id(packet, self.version)?;
                pass(packet, &mut out.to_server);
            }
            Kind::PubRel => {
                let id = ack_id(packet, self.version)?;
                match self.taken_from_client.remove(&id) {
                    true => put_ack(&mut out.to_client.bytes, Kind::PubComp, id, None),
                    false => pass(packet, &mut out.to_server),
                }
            }
            Kind::PingReq if packet.body.is_empty() => pass(packet, &mut out.to_server),
            Kind::PingReq => return Err(End::Malformed("length")),
            Kind::Disconnect => return self.disconnect(packet, out),
            // An exchange to prove oneself, which was not agreed to; a second CONNECT; what only brokers say.
            _ => return Err(End::Malformed("packet-type")),
        }
        Ok(())
    }

    fn connect(&mut self, body: &[u8], out: &mut Outboxes) -> Result<(), End> {
        let connect = match Connect::parse(body) {
            Ok(connect) => connect,
            Err(BadConnect::Malformed(malformed)) => return Err(malformed.into()),
            Err(BadConnect::Version) => {
                refuse(&mut out.to_client.bytes, Version::V3, Refusal::Version);
                return Err(End::Malformed("version"));
            }
        };
        self.version = connect.version;
        let refusal = self.refusal_of(&connect);
        if let Some(refusal) = refusal {
            refuse(&mut out.to_client.bytes, self.version, refusal);
            return Err(End::Refused);
        }
        self.assigned = connect.client_id.is_empty();
        let client_id = match self.assigned {
            true => &self.fresh_id,
            false => connect.client_id,
        };
        connect.put(&mut out.to_server.bytes, &self.identity, client_id)?;
        self.will = connect.will.map(|will| will.topic.to_owned());
        self.stage = Stage::Opening;
        Ok(())
    }

    fn refusal_of(&mut self, connect: &Connect<'_>) -> Option<Refusal> {
        if connect.wants_exchange() {
            return Some(Refusal::AuthenticationMethod);
        }
        // Without a name of its own a client has no session to come back to (MQTT 3.1.1, section 3.1.3.1).
        if connect.version == Version::V3 && connect.client_id.is_empty() && !connect.clean {
            return Some(Refusal::ClientId);
        }
        let will = connect.will?;
        let allowed = self.rights.may(Request::Publish { topic: will.topic });
        (!allowed).then_some(Refusal::NotAuthorized)
    }

    fn publish(&mut self, packet: &Packet<'_>, out: &mut Outboxes) -> Result<(), End> {
        let publish = Publish::parse(packet, self.version)?;
        // Aliases end here: the broker sees whole topics, whatever became of the message that first named one.
        let topic = match publish.alias() {
            None => publish.topic.to_owned(),
            Some(alias) => self.resolve(alias, publish.topic)?,
        };
        if self.rights.may(Request::Publish { topic: &topic }) {
            if let Some(id) = publish.id {
                self.taken_from_client.remove(&id);
            }
            let to_server = &mut out.to_server;
            match publish.alias() {
                None => pass(packet, to_server),
                Some(_) => publish.put_without_alias(&mut to_server.bytes, &topic)?,
            }
            return Ok(());
        }
        // Dropped, and acknowledged as brokers do: 3.1.1 has no word for a denial but the end of the connection.
        let Some(id) = publish.id else { return Ok(()) };
        let reason = match self.version {
            Version::V3 => None,
            Version::V5 => Some(NOT_AUTHORIZED),
        };
        let kind = match publish.is_exactly_once() {
            true => Kind::PubRec,
            false => Kind::PubAck,
        };
        // In MQTT 5 a refused message has no further steps.
        if kind == Kind::PubRec && reason.is_none() {
            remember(&mut self.taken_from_client, id).ok_or(End::Malformed("in-flight"))?;
        }
        put_ack(&mut out.to_client.bytes, kind, id, reason);
        Ok(())
    }

    fn resolve(&mut self, alias: u16, topic: &str) -> Result<String, End> {
        if alias > self.most_aliases {
            return Err(End::Malformed("topic-alias"));
        }
        if topic.is_empty() {
            let known = self.aliases.get(&alias).cloned();
            return known.ok_or(End::Malformed("topic-alias"));
        }
        self.aliases.insert(alias, topic.to_owned());
        Ok(topic.to_owned())
    }

    fn subscribe(&mut self, packet: &Packet<'_>, out: &mut Outboxes) -> Result<(), End> {
        let subscribe = Subscribe::parse(packet.body, self.version)?;
        if self.partly_denied.contains_key(&subscribe.id) {
            return Err(End::Malformed("packet-id"));
        }
        let may = |filter: &super::subscribe::Filter<'_>| {
            let filter = filter.topics();
            self.rights.may(Request::Subscribe { filter })
        };
        let allowed: Vec<bool> = subscribe.filters.iter().map(may).collect();
        if allowed.iter().all(|allowed| *allowed) {
            pass(packet, &mut out.to_server);
        } else if allowed.iter().any(|allowed| *allowed) {
            if self.partly_denied.len() >= MAX_PARTLY_DENIED {
                return Err(End::Malformed("in-flight"));
            }
            subscribe.put(&mut out.to_server.bytes, self.version, &allowed)?;
            self.partly_denied.insert(subscribe.id, allowed);
        } else {
            let to_client = &mut out.to_client.bytes;
            put_suback(to_client, self.version, subscribe.id, None, &allowed)?;
        }
        Ok(())
    }

    fn disconnect(&mut self, packet: &Packet<'_>, out: &mut Outboxes) -> Result<(), End> {
        if self.version == Version::V3 && !packet.body.is_empty() {
            return Err(End::Malformed("length"));
        }
        // MQTT 5 can ask for the will all the same.
        let wants_will = packet.body.first() == Some(&DISCONNECT_WITH_WILL);
        if !(wants_will && self.will_is_void()) {
            pass(packet, &mut out.to_server);
            self.stage = Stage::Left;
        }
        Err(End::ClientClosed)
    }

    /// Whether there is a will that its client may not publish any more.
    fn will_is_void(&mut self) -> bool {
        let rights = &mut self.rights;
        let will = self.will.as_deref();
        will.is_some_and(|topic| !rights.still(Request::Publish { topic }))
    }

    fn broker_packet(&mut self, packet: &Packet<'_>, out: &mut Outboxes) -> Result<(), End> {
        if self.stage == Stage::Opening {
            return match packet.kind {
                Kind::ConnAck => self.accepted(packet.body, out),
                _ => Err(End::ServerMalformed("packet-type")),
            };
        }
        match packet.kind {
            Kind::Publish => self.deliver(packet, out)?,
            Kind::SubAck => self.subscribed(packet, out)?,
            Kind::PubRel => {
                let id = ack_id(packet, self.version)?;
                match self.taken_from_broker.remove(&id) {
                    true => put_ack(&mut out.to_server.bytes, Kind::PubComp, id, None),
                    false => pass(packet, &mut out.to_client),
                }
            }
            Kind::PubAck | Kind::PubRec | Kind::PubComp | Kind::UnsubAck | Kind::PingResp => {
                pass(packet, &mut out.to_client);
            }
            Kind::Disconnect if self.version == Version::V5 => pass(packet, &mut out.to_client),
            _ => return Err(End::ServerMalformed("packet-type")),
        }
        Ok(())
    }

    fn accepted(&mut self, body: &[u8], out: &mut Outboxes) -> Result<(), End> {
        let answer = ConnAck::parse(body, self.version)?;
        let assigned = self.assigned.then_some(self.fresh_id.as_str());
        answer.put(&mut out.to_client.bytes, self.version, assigned)?;
        self.most_aliases = answer.aliases();
        self.stage = Stage::Open;
        Ok(())
    }

    /// Old sessions, and subscriptions of the broker's own making, may hold what is no longer (or never was) allowed.
    fn deliver(&mut self, packet: &Packet<'_>, out: &mut Outboxes) -> Result<(), End> {
        let publish = Publish::parse(packet, self.version)?;
        // The broker was told that nobody here knows aliases.
        if publish.alias().is_some() {
            return Err(End::ServerMalformed("topic-alias"));
        }
        let request = Request::Subscribe {
            filter: publish.topic,
        };
        // What is allowed is not counted a second time.
        if self.rights.still(request) || self.rights.may(request) {
            if let Some(id) = publish.id {
                self.taken_from_broker.remove(&id);
            }
            pass(packet, &mut out.to_client);
            return Ok(());
        }
        let Some(id) = publish.id else { return Ok(()) };
        let kind = match publish.is_exactly_once() {
            true => {
                remember(&mut self.taken_from_broker, id)
                    .ok_or(End::ServerMalformed("in-flight"))?;
                Kind::PubRec
            }
            false => Kind::PubAck,
        };
        put_ack(&mut out.to_server.bytes, kind, id, None);
        Ok(())
    }

    fn subscribed(&mut self, packet: &Packet<'_>, out: &mut Outboxes) -> Result<(), End> {
        let mut reader = super::bytes::Reader::new(packet.body);
        let id = reader.packet_id()?;
        match self.partly_denied.remove(&id) {
            None => pass(packet, &mut out.to_client),
            Some(allowed) => {
                let theirs = Some(reader.rest());
                put_suback(&mut out.to_client.bytes, self.version, id, theirs, &allowed)?;
            }
        }
        Ok(())
    }
}

impl<R: Rights> Between for Session<R> {
    fn client_sent(
        &mut self,
        bytes: &mut Inbox,
        out: &mut Outboxes,
        _now: Instant,
    ) -> Result<(), End> {
        while let Some(packet) = packet::first(bytes.untaken())? {
            let taken = packet.whole.len();
            self.client_packet(&packet, out)?;
            bytes.take(taken);
        }
        Ok(())
    }

    fn server_sent(&mut self, bytes: &mut Inbox, out: &mut Outboxes) -> Result<(), End> {
        let theirs = |end| match end {
            End::Malformed(what) => End::ServerMalformed(what),
            other => other,
        };
        loop {
            let first = packet::first(bytes.untaken()).map_err(End::from);
            let Some(packet) = first.map_err(theirs)? else {
                return Ok(());
            };
            let taken = packet.whole.len();
            self.broker_packet(&packet, out).map_err(theirs)?;
            bytes.take(taken);
        }
    }

    /// A will that may not be published any more is taken back.
    fn last_words(&mut self) -> Vec<u8> {
        let connected = matches!(self.stage, Stage::Opening | Stage::Open);
        let mut words = Vec::new();
        if connected && self.will_is_void() {
            packet::put(&mut words, Kind::Disconnect, 0, &[]);
        }
        words
    }
}

impl From<Malformed> for End {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed.0)
    }
}

fn pass(packet: &Packet<'_>, out: &mut Outbox) {
    out.bytes.extend_from_slice(packet.whole);
}

/// `None`: there is no more room.
fn remember(ids: &mut BTreeSet<u16>, id: u16) -> Option<()> {
    if ids.len() >= MAX_HALF_DONE && !ids.contains(&id) {
        return None;
    }
    ids.insert(id);
    Some(())
}

#[cfg(test)]
mod tests;
