use super::*;

const PEERS: u8 = 200;
/// Far more than the one peer that is due needs, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Every other peer is locked, both its halves: whoever as much as looked at one would not come back.
#[test]
fn only_the_peer_that_is_due_is_looked_at() {
    let node = Arc::new(node(1));
    for number in 1..=PEERS {
        let peer = PeerConfig {
            id: PeerId(number.into()),
            public_key: keys(number.wrapping_add(1)).public(),
            keys: keys(1),
            allowed_ips: vec![format!("10.1.0.{number}/32").parse().unwrap()],
            valid_until: at(1_000 + u64::from(number)),
            ..config_of_b(Role::Responder, 7)
        };
        node.arm(peer, at(10), &mut Vec::new()).unwrap();
    }
    assert_eq!(node.poll_timeout(), Some(at(1_001)));
    let table = node.table.read();
    let others: Vec<Arc<Peer>> = table.peers.values().cloned().collect();
    drop(table);
    let others: Vec<&Arc<Peer>> = others.iter().filter(|peer| peer.id != PeerId(1)).collect();
    assert_eq!(others.len(), usize::from(PEERS) - 1);
    let locked: Vec<_> = others
        .iter()
        .map(|peer| (peer.state.lock(), peer.link.write()))
        .collect();
    let (done, waited) = std::sync::mpsc::channel();
    let ticking = std::thread::spawn({
        let node = Arc::clone(&node);
        move || {
            node.handle_timeout(at(1_001), &mut Vec::new());
            done.send(()).unwrap();
        }
    });
    let ended = waited.recv_timeout(PATIENCE);
    drop(locked);
    ticking.join().unwrap();
    assert_eq!(ended, Ok(()), "another peer was looked at");
    assert_eq!(
        node.poll_event(),
        Some(Event::LeaseEnded { peer: PeerId(1) })
    );
    assert_eq!(node.poll_event(), None);
    assert_eq!(node.poll_timeout(), Some(at(1_002)));
}
