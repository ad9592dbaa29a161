use super::*;
use crate::gateway::mqtt::packet::{MAX_PACKET_BYTES, put};
use crate::gateway::mqtt::{connect, property};

/// May publish below `out/`, and subscribe below `in/`, until that is taken away.
#[derive(Clone, Default)]
struct Partly {
    lost: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Rights for Partly {
    fn may(&mut self, request: Request<'_>) -> bool {
        let lost = self.lost.load(std::sync::atomic::Ordering::SeqCst);
        !lost
            && match request {
                Request::Publish { topic } => topic.starts_with("out/"),
                Request::Subscribe { filter } => filter.starts_with("in/"),
            }
    }

    fn still(&mut self, request: Request<'_>) -> bool {
        self.may(request)
    }
}

struct Line {
    session: Session<Partly>,
    rights: Partly,
    out: Outboxes,
}

impl Line {
    fn new() -> Self {
        let rights = Partly::default();
        let session = Session::new(rights.clone(), "spiffe://d/node/a".into(), "fresh".into());
        Self {
            session,
            rights,
            out: Outboxes::default(),
        }
    }

    /// Connected, with nothing left to be sent.
    fn open(version: Version) -> Self {
        let mut line = Self::new();
        line.client(&connecting(version, None)).unwrap();
        let answer: &[u8] = match version {
            Version::V3 => &[0x20, 2, 0, 0],
            Version::V5 => &[0x20, 6, 0, 0, 3, property::TOPIC_ALIAS_MAXIMUM, 0, 2],
        };
        line.broker(answer).unwrap();
        line.taken();
        line
    }

    fn client(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.session
            .client_sent(&mut Inbox::of(bytes), &mut self.out, Instant::now())
    }

    fn broker(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.session
            .server_sent(&mut Inbox::of(bytes), &mut self.out)
    }

    /// What goes to the broker and what goes to the client.
    fn taken(&mut self) -> (Vec<u8>, Vec<u8>) {
        let out = std::mem::take(&mut self.out);
        (out.to_server.bytes, out.to_client.bytes)
    }

    fn lose_rights(&self) {
        self.rights
            .lost
            .store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

fn text(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    super::super::bytes::put_binary(&mut out, text.as_bytes()).unwrap();
    out
}

fn whole(kind: Kind, flags: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, kind, flags, &parts.concat());
    out
}

fn connecting(version: Version, will: Option<&str>) -> Vec<u8> {
    let (level, none): (u8, &[u8]) = match version {
        Version::V3 => (4, &[]),
        Version::V5 => (5, &[0]),
    };
    let flags = if will.is_some() { 0x06 } else { 0x02 };
    let will = will.map_or(Vec::new(), |topic| {
        [none, &text(topic), &text("gone")].concat()
    });
    let head = [&text("MQTT")[..], &[level, flags, 0, 60], none].concat();
    whole(Kind::Connect, 0, &[&head, &text("me"), &will])
}

fn publish(version: Version, qos: u8, topic: &str) -> Vec<u8> {
    let id: &[u8] = if qos > 0 { &[0, 7] } else { &[] };
    let none: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    whole(Kind::Publish, qos << 1, &[&text(topic), id, none, b"21"])
}

fn malformed(result: Result<(), End>) -> &'static str {
    match result {
        Err(End::Malformed(what)) => what,
        other => panic!("not malformed: {other:?}"),
    }
}

const BOTH: [Version; 2] = [Version::V3, Version::V5];
const EMPTY: &[u8] = &[];

#[test]
fn nothing_but_connect_comes_first_and_only_once() {
    for version in BOTH {
        let mut line = Line::new();
        assert_eq!(
            malformed(line.client(&publish(version, 0, "out/a"))),
            "packet-type"
        );
        assert!(line.taken().0.is_empty());
        let mut line = Line::open(version);
        assert_eq!(
            malformed(line.client(&connecting(version, None))),
            "packet-type"
        );
        assert!(line.taken().0.is_empty());
    }
}

#[test]
fn another_version_is_told_and_reaches_no_broker() {
    let mut line = Line::new();
    let mut bytes = connecting(Version::V3, None);
    bytes[8] = 3;
    assert_eq!(malformed(line.client(&bytes)), "version");
    assert_eq!(line.taken(), (vec![], vec![0x20, 2, 0, 1]));
}

#[test]
fn a_will_needs_the_right_to_publish() {
    for (version, answer) in [
        (Version::V3, &[0x20, 2, 0, 5][..]),
        (Version::V5, &[0x20, 3, 0, 0x87, 0]),
    ] {
        let mut line = Line::new();
        let refused = line.client(&connecting(version, Some("elsewhere")));
        assert!(matches!(refused, Err(End::Refused)));
        assert_eq!(line.taken(), (vec![], answer.to_vec()));
        let mut line = Line::new();
        line.client(&connecting(version, Some("out/gone"))).unwrap();
        assert!(!line.taken().0.is_empty());
    }
}

#[test]
fn a_will_is_taken_back_once_the_right_is_lost() {
    for version in BOTH {
        let mut line = Line::new();
        line.client(&connecting(version, Some("out/gone"))).unwrap();
        assert_eq!(
            line.session.last_words(),
            EMPTY,
            "the right is there: it is published"
        );
        line.lose_rights();
        assert_eq!(line.session.last_words(), [0xe0, 0]);
    }
    // Nor can it be asked for at leaving.
    let mut line = Line::new();
    line.client(&connecting(Version::V5, Some("out/gone")))
        .unwrap();
    line.broker(&[0x20, 3, 0, 0, 0]).unwrap();
    line.taken();
    line.lose_rights();
    assert!(matches!(line.client(&[0xe0, 1, 4]), Err(End::ClientClosed)));
    assert_eq!(
        (line.taken().0, line.session.last_words()),
        (vec![], vec![0xe0, 0])
    );
}

#[test]
fn a_client_that_takes_leave_has_no_last_words_said_for_it() {
    let mut line = Line::new();
    line.client(&connecting(Version::V3, Some("out/gone")))
        .unwrap();
    line.taken();
    assert!(matches!(line.client(&[0xe0, 0]), Err(End::ClientClosed)));
    line.lose_rights();
    assert_eq!(
        (line.taken().0, line.session.last_words()),
        (vec![0xe0, 0], vec![])
    );
}

#[test]
fn an_exchange_to_prove_oneself_is_refused() {
    let mut line = Line::new();
    let method = [4, property::AUTHENTICATION_METHOD, 0, 1, b'x'];
    let head = [&text("MQTT")[..], &[5, 2, 0, 60], &method].concat();
    let refused = line.client(&whole(Kind::Connect, 0, &[&head, &text("me")]));
    assert!(matches!(refused, Err(End::Refused)));
    assert_eq!(line.taken(), (vec![], vec![0x20, 3, 0, 0x8c, 0]));
    let mut line = Line::open(Version::V5);
    assert_eq!(malformed(line.client(&[0xf0, 0])), "packet-type");
}

#[test]
fn a_client_without_a_name_gets_one_that_nobody_can_guess() {
    let nameless = |level: u8, flags: u8, none: &[u8]| {
        let head = [&text("MQTT")[..], &[level, flags, 0, 60], none].concat();
        whole(Kind::Connect, 0, &[&head, &text("")])
    };
    let mut line = Line::new();
    assert!(matches!(
        line.client(&nameless(4, 0, &[])),
        Err(End::Refused)
    ));
    assert_eq!(line.taken(), (vec![], vec![0x20, 2, 0, 2]));
    let mut line = Line::new();
    line.client(&nameless(5, 0, &[0])).unwrap();
    let (to_broker, _) = line.taken();
    let seen = connect::Connect::parse(&to_broker[2..]).unwrap();
    assert_eq!(seen.client_id, "spiffe://d/node/a|fresh");
    line.broker(&[0x20, 3, 0, 0, 0]).unwrap();
    let (_, to_client) = line.taken();
    let answer = connect::ConnAck::parse(&to_client[2..], Version::V5).unwrap();
    let assigned = answer.properties.find(property::ASSIGNED_CLIENT_ID);
    assert_eq!(assigned, Some(property::Value::Text("fresh")));
}

#[test]
fn a_denied_message_is_acknowledged_and_reaches_no_broker() {
    let cases: [(Version, u8, &[u8]); 6] = [
        (Version::V3, 0, &[]),
        (Version::V3, 1, &[0x40, 2, 0, 7]),
        (Version::V3, 2, &[0x50, 2, 0, 7]),
        (Version::V5, 0, &[]),
        (Version::V5, 1, &[0x40, 3, 0, 7, 0x87]),
        (Version::V5, 2, &[0x50, 3, 0, 7, 0x87]),
    ];
    for (version, qos, answer) in cases {
        let mut line = Line::open(version);
        line.client(&publish(version, qos, "elsewhere")).unwrap();
        assert_eq!(line.taken(), (vec![], answer.to_vec()), "{version:?} {qos}");
    }
}

#[test]
fn the_rest_of_a_denied_delivery_is_answered_here_once() {
    let mut line = Line::open(Version::V3);
    line.client(&publish(Version::V3, 2, "elsewhere")).unwrap();
    line.taken();
    line.client(&[0x62, 2, 0, 7]).unwrap();
    assert_eq!(line.taken(), (vec![], vec![0x70, 2, 0, 7]));
    // From then on the identifier is the broker's business.
    line.client(&[0x62, 2, 0, 7]).unwrap();
    assert_eq!(line.taken(), (vec![0x62, 2, 0, 7], vec![]));
    // As it is where the same identifier is used for something allowed before that.
    line.client(&publish(Version::V3, 2, "elsewhere")).unwrap();
    line.client(&publish(Version::V3, 2, "out/a")).unwrap();
    line.taken();
    line.client(&[0x62, 2, 0, 7]).unwrap();
    assert_eq!(line.taken(), (vec![0x62, 2, 0, 7], vec![]));
}

#[test]
fn deliveries_half_done_are_bounded() {
    let mut line = Line::open(Version::V3);
    let mut bytes = publish(Version::V3, 2, "elsewhere");
    let at = bytes.len() - 4;
    for id in 1..=u16::try_from(MAX_HALF_DONE).unwrap() {
        bytes[at..at + 2].copy_from_slice(&id.to_be_bytes());
        line.client(&bytes).unwrap();
    }
    bytes[at..at + 2].copy_from_slice(&u16::MAX.to_be_bytes());
    assert_eq!(malformed(line.client(&bytes)), "in-flight");
}

#[test]
fn what_is_allowed_goes_on_as_it_came() {
    for version in BOTH {
        let mut line = Line::open(version);
        for qos in 0..3 {
            let bytes = publish(version, qos, "out/a");
            line.client(&bytes).unwrap();
            assert_eq!(line.taken(), (bytes, vec![]));
        }
        for bytes in [[0xc0, 0].to_vec(), [0x40, 2, 0, 9].to_vec()] {
            line.client(&bytes).unwrap();
            assert_eq!(line.taken(), (bytes, vec![]));
        }
    }
}

#[test]
fn messages_that_cannot_be_end_it() {
    for version in BOTH {
        let none: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        for (flags, parts, word) in [
            (0b0110, [&text("out/a")[..], &[0, 7]], "flags"),
            (0b1000, [&text("out/a"), &[]], "flags"),
            (0b0000, [&text("out/+"), &[]], "topic"),
            (0b0010, [&text("out/a"), &[0, 0]], "packet-id"),
            (0b0000, [&[0, 9, b'a'], &[]], "length"),
        ] {
            let mut line = Line::open(version);
            let bytes = whole(Kind::Publish, flags, &[parts[0], parts[1], none]);
            assert_eq!(malformed(line.client(&bytes)), word);
            assert_eq!(line.taken(), (vec![], vec![]));
        }
        let mut line = Line::open(version);
        assert!(
            line.client(&whole(Kind::Publish, 0, &[&text(""), none]))
                .is_err()
        );
    }
}

fn aliased(topic: &str, alias: u8) -> Vec<u8> {
    let properties = [3, property::TOPIC_ALIAS, 0, alias];
    whole(Kind::Publish, 0, &[&text(topic), &properties, b"21"])
}

#[test]
fn an_alias_is_decided_by_its_topic_and_never_reaches_the_broker() {
    let mut line = Line::open(Version::V5);
    let plain = publish(Version::V5, 0, "out/a");
    line.client(&aliased("out/a", 1)).unwrap();
    line.client(&aliased("", 1)).unwrap();
    assert_eq!(line.taken().0, [&plain[..], &plain].concat());
    // Named by a message that is denied, it stands all the same, and is denied all the same.
    line.client(&aliased("elsewhere", 1)).unwrap();
    line.client(&aliased("", 1)).unwrap();
    assert_eq!(line.taken(), (vec![], vec![]));
}

#[test]
fn aliases_unknown_or_beyond_what_was_agreed_end_it() {
    for bytes in [
        aliased("", 1),
        aliased("out/a", 3),
        aliased("out/a", 0),
        aliased("", 0),
    ] {
        let mut line = Line::open(Version::V5);
        assert_eq!(malformed(line.client(&bytes)), "topic-alias");
    }
    // Before the broker has said how many there may be, there may be none.
    let mut line = Line::new();
    line.client(&connecting(Version::V5, None)).unwrap();
    assert_eq!(malformed(line.client(&aliased("out/a", 1))), "topic-alias");
}

fn subscribe(version: Version, filters: &[&str]) -> Vec<u8> {
    let none: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    let filters: Vec<u8> = filters
        .iter()
        .flat_map(|filter| [&text(filter)[..], &[1]].concat())
        .collect();
    whole(Kind::Subscribe, 2, &[&[0, 9], none, &filters])
}

#[test]
fn denied_filters_fail_and_the_others_are_subscribed_to() {
    for version in BOTH {
        let (none, denied): (&[u8], u8) = match version {
            Version::V3 => (&[], 0x80),
            Version::V5 => (&[0], 0x87),
        };
        let mut line = Line::open(version);
        line.client(&subscribe(version, &["#", "elsewhere"]))
            .unwrap();
        let answer = whole(Kind::SubAck, 0, &[&[0, 9], none, &[denied, denied]]);
        assert_eq!(line.taken(), (vec![], answer));

        line.client(&subscribe(version, &["in/#"])).unwrap();
        assert_eq!(line.taken(), (subscribe(version, &["in/#"]), vec![]));

        line.client(&subscribe(version, &["#", "in/a", "x", "in/b"]))
            .unwrap();
        assert_eq!(
            line.taken(),
            (subscribe(version, &["in/a", "in/b"]), vec![])
        );
        // The identifier is in use until it is answered.
        assert_eq!(
            malformed(line.client(&subscribe(version, &["in/a"]))),
            "packet-id"
        );
        line.broker(&whole(Kind::SubAck, 0, &[&[0, 9], none, &[1, 0x80]]))
            .unwrap();
        let answer = whole(
            Kind::SubAck,
            0,
            &[&[0, 9], none, &[denied, 1, denied, 0x80]],
        );
        assert_eq!(line.taken(), (vec![], answer));
    }
}

#[test]
fn an_answer_to_other_filters_than_were_asked_for_ends_it() {
    for codes in [&[1][..], &[1, 1, 1]] {
        let mut line = Line::open(Version::V3);
        line.client(&subscribe(Version::V3, &["#", "in/a", "in/b"]))
            .unwrap();
        let answer = whole(Kind::SubAck, 0, &[&[0, 9], codes]);
        assert!(matches!(line.broker(&answer), Err(End::ServerMalformed(_))));
    }
}

#[test]
fn a_shared_subscription_is_one_to_its_topics() {
    for version in BOTH {
        let mut line = Line::open(version);
        let shared = subscribe(version, &["$share/in/in/a"]);
        line.client(&shared).unwrap();
        assert_eq!(line.taken(), (shared, vec![]));
        line.client(&subscribe(version, &["$share/in/elsewhere"]))
            .unwrap();
        assert!(line.taken().0.is_empty());
        for filter in ["$share/in", "$share//in/a", "$share/+/in/a", "$share/in/"] {
            let mut line = Line::open(version);
            assert_eq!(
                malformed(line.client(&subscribe(version, &[filter]))),
                "filter"
            );
        }
    }
}

#[test]
fn filters_and_options_that_cannot_be_end_it() {
    for version in BOTH {
        for filter in ["", "a#", "a/#/b", "a+/b"] {
            let mut line = Line::open(version);
            assert_eq!(
                malformed(line.client(&subscribe(version, &[filter]))),
                "filter"
            );
        }
        let mut line = Line::open(version);
        assert_eq!(malformed(line.client(&subscribe(version, &[]))), "filters");
        for options in [3, 0x30, 0x40, 0xc0] {
            let mut bytes = subscribe(version, &["in/a"]);
            *bytes.last_mut().unwrap() = options;
            assert_eq!(
                malformed(Line::open(version).client(&bytes)),
                "flags",
                "{options:#x}"
            );
        }
        let none: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        let unsubscribe = whole(Kind::Unsubscribe, 2, &[&[0, 9], none]);
        assert_eq!(
            malformed(Line::open(version).client(&unsubscribe)),
            "filters"
        );
        let unsubscribe = whole(Kind::Unsubscribe, 2, &[&[0, 9], none, &text("elsewhere")]);
        let mut line = Line::open(version);
        line.client(&unsubscribe).unwrap();
        assert_eq!(line.taken().0, unsubscribe);
    }
}

#[test]
fn what_comes_back_without_the_right_to_hear_it_is_kept_back() {
    for version in BOTH {
        let mut line = Line::open(version);
        let answers: [&[u8]; 3] = [&[], &[0x40, 2, 0, 7], &[0x50, 2, 0, 7]];
        for (qos, answer) in (0..).zip(answers) {
            line.broker(&publish(version, qos, "elsewhere")).unwrap();
            assert_eq!(line.taken(), (answer.to_vec(), vec![]));
        }
        line.broker(&[0x62, 2, 0, 7]).unwrap();
        assert_eq!(line.taken(), (vec![0x70, 2, 0, 7], vec![]));
        line.broker(&[0x62, 2, 0, 7]).unwrap();
        assert_eq!(line.taken(), (vec![], vec![0x62, 2, 0, 7]));
        let message = publish(version, 2, "in/a");
        line.broker(&message).unwrap();
        assert_eq!(line.taken(), (vec![], message.clone()));
        // An old subscription outlives its right in the broker, but not here.
        line.lose_rights();
        line.broker(&message).unwrap();
        assert_eq!(line.taken(), (vec![0x50, 2, 0, 7], vec![]));
    }
}

#[test]
fn a_broker_that_does_not_keep_to_the_protocol_is_left() {
    let mut early = Line::new();
    early.client(&connecting(Version::V3, None)).unwrap();
    let wrong = early.broker(&publish(Version::V3, 0, "in/a"));
    assert!(matches!(wrong, Err(End::ServerMalformed("packet-type"))));
    for bytes in [
        &[0x20, 2, 0, 0][..],
        &connecting(Version::V5, None),
        &[0xf0, 0],
        &aliased("in/a", 1),
        &[0x30, 0xff, 0xff, 0xff, 0x7f],
    ] {
        let mut line = Line::open(Version::V5);
        assert!(
            matches!(line.broker(bytes), Err(End::ServerMalformed(_))),
            "{bytes:?}"
        );
        assert!(line.taken().1.is_empty());
    }
}

#[test]
fn a_packet_comes_in_any_number_of_pieces_up_to_the_longest() {
    let mut line = Line::open(Version::V3);
    let bytes = publish(Version::V3, 1, "out/a");
    for length in 0..bytes.len() {
        line.client(&bytes[..length]).unwrap();
        assert_eq!(line.taken(), (vec![], vec![]));
    }
    let body = [&text("out/a")[..], &vec![0; MAX_PACKET_BYTES]].concat();
    let long = whole(Kind::Publish, 0, &[&body]);
    assert_eq!(malformed(line.client(&long)), "packet-size");
}
