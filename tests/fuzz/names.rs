//! Targets for what comes to the agent's name server, and for the file that it shares with others.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use edgeward_agent::names::answer::{Carrier, MAX_DATAGRAM_BYTES, Reply, answer};
use edgeward_agent::names::book::Book;
use edgeward_agent::names::resolv_conf::{MAX_SERVERS, Present};
use edgeward_agent::names::upstream::answers;
use edgeward_agent::view::Overlay;
use edgeward_identity::SpiffeId;
use edgeward_identity::overlay::ipv6_of;

const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 55));

/// `a` of `plant.example`, before it has a policy.
static BOOK: LazyLock<Book> = LazyLock::new(|| {
    let node: SpiffeId = "spiffe://plant.example/node/a".parse().expect("an id");
    let overlay = Overlay {
        v6: ipv6_of(&node),
        v4: Some(Ipv4Addr::new(100, 64, 0, 1)),
    };
    Book::new(&node, overlay, None, &["cloud.plant.example".to_owned()]).expect("a zone")
});

/// Whatever is asked, what is said is an answer to it, and fits.
pub fn questions(bytes: &[u8]) {
    for carrier in [Carrier::Datagram, Carrier::Stream] {
        let said = match answer(bytes, &BOOK, carrier, true) {
            Reply::Silence => continue,
            Reply::Answer(_, said) => said,
            Reply::Elsewhere { refusal, .. } => refusal,
        };
        assert_eq!(said[..2], bytes[..2]);
        assert_eq!(said[2] & 0x80, 0x80);
        let most = usize::from(MAX_DATAGRAM_BYTES);
        assert!(carrier == Carrier::Stream || said.len() <= most);
    }
    // A question answers nothing.
    let is_response = bytes.get(2).is_some_and(|flags| flags & 0x80 != 0);
    assert!(is_response || !answers(bytes, bytes));
}

pub fn asked() -> Vec<Vec<u8>> {
    let ask = |name: &[u8], rtype: u8| {
        let head = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0";
        [&head[..], name, &[0, rtype, 0, 1]].concat()
    };
    let mut with_opt = ask(b"\x01a\x05plant\x07example\0", 28);
    with_opt[11] = 1;
    with_opt.extend(b"\0\0\x29\x10\0\0\0\0\0\0\0");
    vec![
        with_opt,
        ask(b"\x01a\x05plant\x07example\0", 1),
        ask(b"\x01b\x05plant\x07example\0", 252),
        ask(b"\x05cloud\x05plant\x07example\0", 1),
        ask(b"\x011\x010\x0264\x03100\x07in-addr\x04arpa\0", 12),
        ask(b"\x03www\x04else\x07example\0", 1),
    ]
}

/// Whatever stands in the file, it comes back.
pub fn resolv_conf(bytes: &[u8]) {
    let before = Present::read(bytes).before();
    assert!(before.servers(OWN).len() <= MAX_SERVERS);
    assert_eq!(Present::read(&before.with(OWN)), Present::Ours(before));
}

pub fn resolv_confs() -> Vec<Vec<u8>> {
    let plain = b"nameserver 192.0.2.1\nsearch a.example\noptions edns0".to_vec();
    let ours = Present::read(&plain).before().with(OWN);
    vec![plain, ours]
}
