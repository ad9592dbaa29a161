use super::*;

/// CONNECT with these flags, properties (length included; for MQTT 5 only) and payload.
fn connect(level: u8, flags: u8, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let head = [0, 4, b'M', b'Q', b'T', b'T', level, flags, 0, 60];
    [&head[..], properties, payload].concat()
}

fn bad(bytes: &[u8]) -> BadConnect {
    Connect::parse(bytes).unwrap_err()
}

const ID: &[u8] = &[0, 2, b'i', b'd'];

#[test]
fn flags_that_contradict_each_other_are_malformed() {
    // Reserved; a will's quality or retention without a will; quality 3; in 3.1.1 a password without a user.
    for flags in [0x01, 0x08, 0x20, 0x1c, 0x40] {
        let wrong = bad(&connect(
            4,
            flags,
            &[],
            &[ID, &[0, 1, b't', 0, 0, 0, 0]].concat(),
        ));
        assert_eq!(
            wrong,
            BadConnect::Malformed(Malformed("flags")),
            "{flags:#x}"
        );
    }
}

#[test]
fn other_protocols_and_other_versions_are_told_apart() {
    for level in [0, 3, 6, 0x84, 0x85] {
        assert_eq!(
            bad(&connect(level, 2, &[], ID)),
            BadConnect::Version,
            "{level}"
        );
    }
    let old = [&[0, 6][..], b"MQIsdp", &[3, 2, 0, 60], ID].concat();
    assert_eq!(bad(&old), BadConnect::Version);
    let other = [&[0, 4][..], b"AMQP", &[4, 2, 0, 60], ID].concat();
    assert_eq!(bad(&other), BadConnect::Malformed(Malformed("protocol")));
}

#[test]
fn what_is_cut_or_too_long_is_malformed() {
    let will = [0, 1, b't', 0, 2, b'h', b'i'];
    let whole = connect(
        4,
        0xc6,
        &[],
        &[ID, &will, &[0, 1, b'u', 0, 1, b'p']].concat(),
    );
    assert!(Connect::parse(&whole).is_ok());
    for length in 0..whole.len() {
        assert!(Connect::parse(&whole[..length]).is_err(), "{length}");
    }
    assert!(Connect::parse(&[&whole[..], &[0]].concat()).is_err());
    let long = vec![b'a'; MAX_CLIENT_ID_BYTES + 1];
    let mut id = Vec::new();
    put_binary(&mut id, &long).unwrap();
    assert!(Connect::parse(&connect(4, 2, &[], &id)).is_err());
}

#[test]
fn a_will_goes_to_a_topic_and_not_to_a_filter() {
    for topic in [&b"a/#"[..], b"+", b""] {
        let mut will = ID.to_vec();
        put_binary(&mut will, topic).unwrap();
        put_binary(&mut will, b"gone").unwrap();
        assert_eq!(
            bad(&connect(4, 0x06, &[], &will)),
            BadConnect::Malformed(Malformed("topic"))
        );
    }
}

#[test]
fn a_packet_size_of_nothing_is_malformed() {
    let none = [5, property::MAXIMUM_PACKET_SIZE, 0, 0, 0, 0];
    assert!(Connect::parse(&connect(5, 2, &none, ID)).is_err());
}

#[test]
fn an_exchange_of_its_own_is_seen() {
    let method = [4, property::AUTHENTICATION_METHOD, 0, 1, b'x'];
    let bytes = connect(5, 2, &method, ID);
    assert!(Connect::parse(&bytes).unwrap().wants_exchange());
    let data = [4, property::AUTHENTICATION_DATA, 0, 1, b'x'];
    let bytes = connect(5, 2, &data, ID);
    assert!(Connect::parse(&bytes).unwrap().wants_exchange());
}

#[test]
fn a_broker_sees_the_identity_and_neither_user_nor_password() {
    let credentials = [0, 4, b'r', b'o', b'o', b't', 0, 2, b'p', b'w'];
    let bytes = connect(4, 0xc2, &[], &[ID, &credentials].concat());
    let mut out = Vec::new();
    let connect = Connect::parse(&bytes).unwrap();
    connect.put(&mut out, "spiffe://a/node/b", "id").unwrap();
    let packet = packet::first(&out).unwrap().unwrap();
    let user = [&[0, 17][..], b"spiffe://a/node/b"].concat();
    let id = [&[0, 20][..], b"spiffe://a/node/b|id"].concat();
    assert_eq!(
        packet.body,
        [
            &[0, 4, b'M', b'Q', b'T', b'T', 4, 0x82, 0, 60][..],
            &id,
            &user
        ]
        .concat()
    );
}

#[test]
fn limits_of_mqtt_5_become_those_of_the_gateway() {
    let properties = [
        &[11, property::TOPIC_ALIAS_MAXIMUM, 0, 9][..],
        &[property::MAXIMUM_PACKET_SIZE, 0, 0, 1, 0],
        &[0x21, 0, 5],
    ]
    .concat();
    let bytes = connect(5, 2, &properties, ID);
    let mut out = Vec::new();
    Connect::parse(&bytes)
        .unwrap()
        .put(&mut out, "s", "id")
        .unwrap();
    let seen = Connect::parse(packet::first(&out).unwrap().unwrap().body).unwrap();
    // The broker must not use aliases, and the smaller size stays.
    assert_eq!(seen.properties.number(property::TOPIC_ALIAS_MAXIMUM), None);
    assert_eq!(
        seen.properties.number(property::MAXIMUM_PACKET_SIZE),
        Some(256)
    );
    assert_eq!(seen.properties.number(0x21), Some(5));
    assert_eq!(seen.client_id, "s|id");
}

#[test]
fn no_two_identities_reach_the_same_session() {
    let seen = |identity: &str, id: &str| {
        let mut payload = Vec::new();
        put_binary(&mut payload, id.as_bytes()).unwrap();
        let bytes = connect(4, 2, &[], &payload);
        let mut out = Vec::new();
        Connect::parse(&bytes)
            .unwrap()
            .put(&mut out, identity, id)
            .unwrap();
        let body = packet::first(&out).unwrap().unwrap().body;
        Connect::parse(body).unwrap().client_id.to_owned()
    };
    // One whose path begins with another's, and identifiers that try to look like the rest of a path.
    let [one, other] = ["spiffe://d/node/a", "spiffe://d/node/a/b"];
    for [id, imitation] in [["x", "/b|x"], ["x", "b|x"], ["|x", "/b||x"]] {
        assert_ne!(seen(other, id), seen(one, imitation));
    }
    // The first separator ends the identity, whatever follows.
    assert_eq!(seen(one, "x|y").split_once(BETWEEN_IDS), Some((one, "x|y")));
}

#[test]
fn an_answer_bounds_aliases_and_names_what_was_assigned() {
    let bytes = [
        &[1, 0][..],
        &[17, property::TOPIC_ALIAS_MAXIMUM, 0xff, 0xff],
        &[property::ASSIGNED_CLIENT_ID, 0, 4, b'a', b'u', b't', b'o'],
        &[property::SERVER_REFERENCE, 0, 4, b'a', b'w', b'a', b'y'],
    ]
    .concat();
    let answer = ConnAck::parse(&bytes, Version::V5).unwrap();
    assert_eq!(answer.aliases(), MAX_ALIASES);
    let mut out = Vec::new();
    answer.put(&mut out, Version::V5, Some("fresh")).unwrap();
    let body = packet::first(&out).unwrap().unwrap().body;
    let seen = ConnAck::parse(body, Version::V5).unwrap().properties;
    assert_eq!(
        seen.number(property::TOPIC_ALIAS_MAXIMUM),
        Some(u32::from(MAX_ALIASES))
    );
    assert_eq!(
        seen.find(property::ASSIGNED_CLIENT_ID),
        Some(property::Value::Text("fresh"))
    );
    assert_eq!(seen.find(property::SERVER_REFERENCE), None);
}

#[test]
fn answers_that_cannot_be_are_malformed() {
    for body in [&[0][..], &[2, 0], &[1, 5], &[0, 0, 0]] {
        assert!(ConnAck::parse(body, Version::V3).is_err(), "{body:?}");
    }
    assert!(ConnAck::parse(&[0, 0], Version::V5).is_err());
}
