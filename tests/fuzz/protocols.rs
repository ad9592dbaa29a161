//! Targets for the protocols that the gateway reads: whatever comes, what goes on is well-formed and allowed.

use std::time::Instant;

use edgeward_agent::ext_authz::question::Question;
use edgeward_agent::gateway::modbus::exception::Exception;
use edgeward_agent::gateway::modbus::line::Line;
use edgeward_agent::gateway::modbus::{frame, pdu};
use edgeward_agent::gateway::mqtt::packet::{self, Kind, Version};
use edgeward_agent::gateway::mqtt::publish::Publish;
use edgeward_agent::gateway::mqtt::session::{Rights, Session};
use edgeward_agent::gateway::mqtt::subscribe::Subscribe;
use edgeward_agent::gateway::relay::{Between, Inbox, Outboxes};
use edgeward_policy::l7::modbus::Request as ModbusRequest;
use edgeward_policy::l7::mqtt::Request;
use edgeward_wire::ext_authz::attribute_context::{HttpRequest, Peer, Request as Asked};
use edgeward_wire::ext_authz::{AttributeContext, CheckRequest};
use prost::Message;

/// May read, below address 1000.
fn may(request: &ModbusRequest) -> Result<(), Exception> {
    let low = |addresses: [(u16, u16); 2]| addresses.iter().all(|(_, last)| *last < 1000);
    match request.function <= 4 && request.addresses.is_some_and(low) {
        true => Ok(()),
        false => Err(Exception::IllegalFunction),
    }
}

/// A client's bytes, and then the same as answers of its server.
pub fn modbus(bytes: &[u8]) {
    let (mut line, mut out) = (Line::new(Box::new(may)), Outboxes::default());
    let mut inbox = Inbox::of(bytes);
    let _ = line.client_sent(&mut inbox, &mut out, Instant::now());
    let mut forwarded = out.to_server.bytes.as_slice();
    while let Some((frame, taken)) = frame::first(forwarded).unwrap() {
        let request = pdu::parse(frame.unit, frame.pdu).unwrap();
        assert_eq!(may(&request), Ok(()));
        forwarded = &forwarded[taken..];
    }
    assert!(forwarded.is_empty());
    let _ = line.server_sent(&mut Inbox::of(bytes), &mut out);
    let mut answers = out.to_client.bytes.as_slice();
    while let Some((_, taken)) = frame::first(answers).unwrap() {
        answers = &answers[taken..];
    }
    assert!(answers.is_empty());
}

pub fn modbus_frames() -> Vec<Vec<u8>> {
    let pdus: &[&[u8]] = &[
        &[3, 0, 10, 0, 2],
        &[4, 3, 231, 0, 2],
        &[15, 0, 10, 0, 10, 2, 0xcd, 1],
        &[16, 0, 10, 0, 2, 4, 0, 1, 0, 2],
        &[20, 14, 6, 0, 4, 0, 1, 0, 2, 6, 0, 3, 0, 9, 0, 2],
        &[21, 13, 6, 0, 4, 0, 7, 0, 3, 6, 0xaf, 4, 0xbe, 0x10, 0x0d],
        &[23, 0, 3, 0, 6, 0, 14, 0, 1, 2, 0, 0xff],
        &[43, 14, 1, 0],
    ];
    let frames = pdus.iter().map(|pdu| {
        let mut bytes = Vec::new();
        let frame = frame::Frame {
            transaction: 1,
            unit: 1,
            pdu,
        };
        frame::write(&mut bytes, &frame);
        bytes
    });
    let all: Vec<Vec<u8>> = frames.collect();
    let together = all.concat();
    all.into_iter().chain([together]).collect()
}

/// May publish below `out/` and subscribe below `in/`.
struct Below;

impl Rights for Below {
    fn may(&mut self, request: Request<'_>) -> bool {
        match request {
            Request::Publish { topic } => topic.starts_with("out/"),
            Request::Subscribe { filter } => filter.starts_with("in/"),
        }
    }

    fn still(&mut self, request: Request<'_>) -> bool {
        self.may(request)
    }
}

const CONNECT_V3: &[u8] = b"\x10\x0e\0\x04MQTT\x04\x02\0\x3c\0\x02me";
const CONNECT_V5: &[u8] = b"\x10\x0f\0\x04MQTT\x05\x02\0\x3c\0\0\x02me";
const CONNACK_V3: &[u8] = b"\x20\x02\0\0";
const CONNACK_V5: &[u8] = b"\x20\x06\0\0\x03\x22\0\x08";

const VERSIONS: [(Version, &[u8], &[u8]); 2] = [
    (Version::V3, CONNECT_V3, CONNACK_V3),
    (Version::V5, CONNECT_V5, CONNACK_V5),
];

/// A session that has begun.
fn open(connect: &[u8], accepted: &[u8]) -> Session<Below> {
    let (mut session, mut out) = (silent(), Outboxes::default());
    let connected = session.client_sent(&mut Inbox::of(connect), &mut out, Instant::now());
    let accepted = session.server_sent(&mut Inbox::of(accepted), &mut out);
    assert!(connected.is_ok() && accepted.is_ok());
    session
}

fn silent() -> Session<Below> {
    Session::new(
        Below,
        "spiffe://plant.example/node/a".into(),
        "fresh".into(),
    )
}

fn packets(mut bytes: &[u8]) -> Vec<packet::Packet<'_>> {
    let mut all = Vec::new();
    while let Some(packet) = packet::first(bytes).unwrap() {
        bytes = &bytes[packet.whole.len()..];
        all.push(packet);
    }
    assert!(bytes.is_empty());
    all
}

/// A client's bytes: as the first that come, and in open sessions of both versions.
pub fn mqtt_client(bytes: &[u8]) {
    let mut out = Outboxes::default();
    let _ = silent().client_sent(&mut Inbox::of(bytes), &mut out, Instant::now());
    packets(&out.to_client.bytes);
    for packet in packets(&out.to_server.bytes).iter().take(1) {
        let id = b"spiffe://plant.example/node/a|";
        assert!(
            packet.kind == Kind::Connect && packet.body.windows(id.len()).any(|part| part == id)
        );
    }
    for (version, connect, accepted) in VERSIONS {
        let (mut session, mut out) = (open(connect, accepted), Outboxes::default());
        let _ = session.client_sent(&mut Inbox::of(bytes), &mut out, Instant::now());
        packets(&out.to_client.bytes);
        for packet in packets(&out.to_server.bytes) {
            match packet.kind {
                Kind::Publish => {
                    let publish = Publish::parse(&packet, version).unwrap();
                    assert!(publish.topic.starts_with("out/") && publish.alias().is_none());
                }
                Kind::Subscribe => {
                    let subscribe = Subscribe::parse(packet.body, version).unwrap();
                    let filters = subscribe.filters.iter();
                    assert!(
                        filters
                            .clone()
                            .all(|filter| filter.topics().starts_with("in/"))
                    );
                }
                Kind::Connect | Kind::Auth => panic!("{:?} in an open session", packet.kind),
                _ => {}
            }
        }
    }
}

/// A broker's bytes, in open sessions of both versions and before.
pub fn mqtt_broker(bytes: &[u8]) {
    for (version, connect, accepted) in VERSIONS {
        let (mut session, mut out) = (silent(), Outboxes::default());
        let connected = session.client_sent(&mut Inbox::of(connect), &mut out, Instant::now());
        assert!(connected.is_ok());
        let _ = session.server_sent(&mut Inbox::of(bytes), &mut out);
        let (mut session, mut out) = (open(connect, accepted), Outboxes::default());
        let _ = session.server_sent(&mut Inbox::of(bytes), &mut out);
        packets(&out.to_server.bytes);
        for packet in packets(&out.to_client.bytes) {
            if packet.kind == Kind::Publish {
                let publish = Publish::parse(&packet, version).unwrap();
                assert!(publish.topic.starts_with("in/"));
            }
        }
    }
}

pub fn mqtt_packets() -> Vec<Vec<u8>> {
    let all: Vec<Vec<u8>> = [
        CONNECT_V3,
        CONNECT_V5,
        CONNACK_V3,
        CONNACK_V5,
        // With a will, a user and a password.
        b"\x10\x1f\0\x04MQTT\x04\xc6\0\x3c\0\x02me\0\x05out/w\0\x01x\0\x01u\0\x02pw",
        b"\x30\x09\0\x05out/ahi",
        b"\x32\x0b\0\x05out/a\0\x0721",
        b"\x34\x0c\0\x05out/a\0\x07\0\x32\x31",
        b"\x30\x0c\0\x05out/a\x03\x23\0\x01x",
        b"\x30\x07\0\0\x03\x23\0\x01x",
        b"\x32\x0a\0\x03in/\0\x07\0hi",
        b"\x82\x09\0\x09\0\x04in/#\x01",
        b"\x82\x16\0\x09\0\0\x04in/#\x01\0\x09elsewhere\0",
        b"\x90\x03\0\x09\x01",
        b"\xa2\x08\0\x09\0\x04in/#",
        b"\x62\x02\0\x07",
        b"\xe0\0",
        b"\xc0\0",
    ]
    .iter()
    .map(|bytes| bytes.to_vec())
    .collect();
    let together = all[5..].concat();
    all.into_iter().chain([together]).collect()
}

/// A proxy's question, as protobuf.
pub fn ext_authz(bytes: &[u8]) {
    if let Ok(request) = CheckRequest::decode(bytes) {
        drop(Question::read(&request));
    }
}

pub fn questions() -> Vec<Vec<u8>> {
    let names = [("service", "line3"), ("interface", "web")];
    let request = CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(Peer {
                principal: "spiffe://plant.example/node/a".to_owned(),
                certificate: "%2D%2D%2D%2D%2DBEGIN%20CERTIFICATE%2D%2D%2D%2D%2D%0A".to_owned(),
                ..Peer::default()
            }),
            request: Some(Asked {
                http: Some(HttpRequest {
                    method: "GET".to_owned(),
                    path: "/status/a%20b?c".to_owned(),
                }),
            }),
            context_extensions: names
                .map(|(key, name)| (key.to_owned(), name.to_owned()))
                .into(),
        }),
    };
    vec![request.encode_to_vec()]
}
