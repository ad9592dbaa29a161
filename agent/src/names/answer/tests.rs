use super::*;
use crate::names::book::wire_name;
use crate::names::testing::{Scene, reach};

fn book() -> Book {
    Scene::new(&["b", "c"]).with(reach(0)).book()
}

fn question(name: &str, rtype: Rtype) -> Vec<u8> {
    ask(&wire_name(name).unwrap(), rtype, Class::IN)
}

fn ask(name: &WireName, rtype: Rtype, class: Class) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(0x1234);
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    builder.push((name, rtype, class)).unwrap();
    builder.finish()
}

fn with_opt(name: &str, rtype: Rtype, version: u8) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec().question();
    builder.push((&wire_name(name).unwrap(), rtype)).unwrap();
    let mut builder = builder.additional();
    builder
        .opt(|opt| {
            opt.set_udp_payload_size(4096);
            opt.set_version(version);
            Ok(())
        })
        .unwrap();
    builder.finish()
}

fn answered(bytes: &[u8]) -> (Outcome, Message<Vec<u8>>) {
    match answer(bytes, &book(), Carrier::Datagram, false) {
        Reply::Answer(outcome, bytes) => (outcome, Message::from_octets(bytes).unwrap()),
        other => panic!("{other:?}"),
    }
}

fn said(bytes: &[u8]) -> (Outcome, Rcode) {
    let (outcome, message) = answered(bytes);
    (outcome, message.header().rcode())
}

#[test]
fn what_is_no_question_gets_no_answer() {
    let mut response = question("b.plant.example", Rtype::A);
    response[2] |= 0x80;
    for bytes in [&response[..], &[0; 11], &[]] {
        let reply = answer(bytes, &book(), Carrier::Datagram, false);
        assert_eq!(reply, Reply::Silence);
    }
}

#[test]
fn whole_zones_and_everything_at_once_are_refused() {
    for rtype in [
        Rtype::AXFR,
        Rtype::IXFR,
        Rtype::ANY,
        Rtype::MAILA,
        Rtype::MAILB,
    ] {
        for name in ["plant.example", "b.plant.example", "elsewhere.example"] {
            let (outcome, message) = answered(&question(name, rtype));
            assert_eq!(
                (outcome, message.header().rcode()),
                (Outcome::Refused, Rcode::REFUSED)
            );
            assert_eq!(message.header_counts().ancount(), 0);
        }
    }
    let chaos = ask(&wire_name("version.bind").unwrap(), Rtype::TXT, Class::CH);
    assert_eq!(said(&chaos), (Outcome::Refused, Rcode::REFUSED));
}

#[test]
fn a_peer_that_may_not_be_reached_reads_as_one_that_is_not_there() {
    let (_, hidden) = answered(&question("c.plant.example", Rtype::AAAA));
    let (_, absent) = answered(&question("z.plant.example", Rtype::AAAA));
    assert_eq!(hidden.header().rcode(), Rcode::NXDOMAIN);
    let after = |message: &Message<Vec<u8>>| message.as_slice()[14..].to_vec();
    assert_eq!(after(&hidden), after(&absent));
    assert_eq!(hidden.header(), absent.header());
}

#[test]
fn messages_that_are_cut_or_ask_twice_are_malformed() {
    let sound = question("b.plant.example", Rtype::A);
    let mut two = sound.clone();
    two[5] = 2;
    let mut none = sound.clone();
    none[5] = 0;
    let mut update = sound.clone();
    update[2] |= 5 << 3;
    let mut carries_answer = sound.clone();
    carries_answer[7] = 1;
    let mut promises_more = sound.clone();
    promises_more[11] = 1;
    for bytes in [
        &two,
        &none,
        &carries_answer,
        &promises_more,
        &sound[..sound.len() - 1].to_vec(),
        // A name that points at itself.
        &[&sound[..12], &[0xc0, 12, 0, 1, 0, 1]].concat(),
    ] {
        assert_eq!(said(bytes), (Outcome::Malformed, Rcode::FORMERR));
    }
    assert_eq!(said(&update), (Outcome::Malformed, Rcode::NOTIMP));
    let (outcome, message) = answered(&with_opt("b.plant.example", Rtype::A, 1));
    assert_eq!(outcome, Outcome::Malformed);
    let opt = message.opt().unwrap();
    assert_eq!(opt.rcode(message.header()), OptRcode::BADVERS);
}

#[test]
fn a_question_of_another_zone_is_handed_back_with_a_refusal() {
    let bytes = question("www.elsewhere.example", Rtype::A);
    let Reply::Elsewhere { whose, refusal } = answer(&bytes, &book(), Carrier::Datagram, false)
    else {
        panic!("answered");
    };
    let refusal = Message::from_octets(refusal).unwrap();
    assert_eq!(whose, Whose::Foreign);
    assert_eq!(refusal.header().rcode(), Rcode::REFUSED);
    assert_eq!(refusal.header().id(), 0x1234);
    assert!(!refusal.header().aa());
}

#[test]
fn nothing_longer_than_the_asker_takes_goes_into_a_datagram() {
    let long = ["x"; 60].join(".");
    let name = format!("{long}.plant.example");
    for bytes in [question(&name, Rtype::A), with_opt(&name, Rtype::A, 0)] {
        let Reply::Answer(_, answer) = answer(&bytes, &book(), Carrier::Datagram, false) else {
            panic!("silent");
        };
        assert!(answer.len() <= 512, "{}", answer.len());
    }
}

#[test]
fn a_name_is_answered_with_its_addresses_and_an_address_with_its_name() {
    let scene = Scene::new(&["b"]).with(reach(0));
    let b = scene.peer(0);
    let (outcome, message) = answered(&question("B.Plant.example", Rtype::AAAA));
    assert_eq!(outcome, Outcome::Found);
    assert!(message.header().aa() && message.header().qr() && message.header().rd());
    let records: Vec<_> = message
        .answer()
        .unwrap()
        .limit_to::<Aaaa>()
        .map(Result::unwrap)
        .collect();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].data().addr(), b.v6);
    assert_eq!(records[0].ttl().as_secs(), TTL_SECS);
    let (_, message) = answered(&question("b.plant.example", Rtype::A));
    let v4 = message.answer().unwrap().limit_to::<A>().next();
    assert_eq!(Some(v4.unwrap().unwrap().data().addr()), b.v4);
    let reverse = Name::<Vec<u8>>::reverse_from_addr(b.v6.into()).unwrap();
    let (_, message) = answered(&ask(&reverse, Rtype::PTR, Class::IN));
    let pointer = message.answer().unwrap().limit_to::<Ptr<_>>().next();
    let to = pointer.unwrap().unwrap().data().ptrdname().to_string();
    assert_eq!(to, "b.plant.example");
}

#[test]
fn what_is_not_there_says_how_long_that_may_be_believed() {
    for (name, rtype, rcode) in [
        ("z.plant.example", Rtype::A, Rcode::NXDOMAIN),
        ("b.plant.example", Rtype::MX, Rcode::NOERROR),
        ("plant.example", Rtype::A, Rcode::NOERROR),
    ] {
        let (_, message) = answered(&with_opt(name, rtype, 0));
        assert_eq!(message.header().rcode(), rcode, "{name}");
        assert_eq!(message.header_counts().ancount(), 0);
        let mut soa = message.authority().unwrap().limit_to::<Soa<_>>();
        let soa = soa.next().unwrap().unwrap();
        assert_eq!(soa.data().minimum().as_secs(), NEGATIVE_TTL_SECS);
        assert!(name.ends_with(&soa.owner().to_string()));
        let opt = message.opt().unwrap();
        assert_eq!(opt.udp_payload_size(), MAX_DATAGRAM_BYTES);
    }
}

#[test]
fn before_a_policy_the_asker_is_told_to_come_again() {
    let scene = Scene::new(&["b"]).with(reach(0));
    let book = Book::new(&scene.node(), scene.overlay(), None, &[]).unwrap();
    let bytes = question("b.plant.example", Rtype::A);
    match answer(&bytes, &book, Carrier::Stream, true) {
        Reply::Answer(Outcome::NoPolicy, bytes) => {
            let message = Message::from_octets(bytes).unwrap();
            assert_eq!(message.header().rcode(), Rcode::SERVFAIL);
            assert!(message.header().ra());
        }
        other => panic!("{other:?}"),
    }
}
