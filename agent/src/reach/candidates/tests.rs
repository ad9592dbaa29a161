use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn known(local: &[&str]) -> Known {
    Known {
        port: 51820,
        local: local.iter().map(|text| ip(text)).collect(),
        ..Known::default()
    }
}

fn texts(known: &Known) -> Vec<String> {
    known.candidates().iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_is_sent_to_ourselves_to_everybody_or_to_nobody() {
    for address in [
        "127.0.0.1:51820",
        "[::1]:51820",
        "[::ffff:127.0.0.1]:51820",
        "0.0.0.0:51820",
        "0.1.2.3:51820",
        "255.255.255.255:51820",
        "224.0.0.1:51820",
        "[ff02::1]:51820",
        "[::]:51820",
        "192.0.2.1:0",
    ] {
        assert!(!may_be_sent_to(address.parse().unwrap()), "{address}");
    }
    assert!(may_be_sent_to("192.168.1.1:51820".parse().unwrap()));
}

#[test]
fn link_local_addresses_are_told_only_where_there_is_nothing_else() {
    let both = known(&["fe80::1", "192.168.1.7"]);
    assert_eq!(texts(&both), ["192.168.1.7:51820"]);
    let alone = known(&["fe80::1"]);
    assert_eq!(texts(&alone), ["[fe80::1]:51820"]);
}

#[test]
fn there_are_never_more_than_the_cloud_takes() {
    let many: Vec<String> = (0..100).map(|last| format!("192.0.2.{last}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(known(&many).candidates().len(), MAX_ENDPOINTS);
}

#[test]
fn what_leads_to_the_cloud_comes_first_and_guesses_last() {
    let known = Known {
        towards_cloud: Some(ip("192.168.1.7")),
        reflexive: Some("203.0.113.5:4321".parse().unwrap()),
        observed: vec![
            "203.0.113.5:4321".parse().unwrap(),
            "203.0.113.5:9999".parse().unwrap(),
        ],
        session: Some(ip("203.0.113.5")),
        ..known(&["10.1.1.1", "192.168.1.7", "2001:db8::7"])
    };
    assert_eq!(
        texts(&known),
        [
            "192.168.1.7:51820",
            "[2001:db8::7]:51820",
            "203.0.113.5:4321",
            "203.0.113.5:9999",
            "10.1.1.1:51820",
            "203.0.113.5:51820",
        ]
    );
}

#[test]
fn a_node_behind_a_router_knows_it() {
    let mut known = known(&["192.168.1.7"]);
    assert_eq!(known.is_translated(), None);
    known.reflexive = Some("203.0.113.5:51820".parse().unwrap());
    assert_eq!(known.is_translated(), Some(true));
    known.reflexive = Some("192.168.1.7:51820".parse().unwrap());
    assert_eq!(known.is_translated(), Some(false));
    known.reflexive = Some("192.168.1.7:4000".parse().unwrap());
    assert_eq!(known.is_translated(), Some(true));
}
