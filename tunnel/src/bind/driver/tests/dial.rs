use super::*;

/// A socket that takes everything and answers nothing.
fn hole() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

/// Sends on between one caller and `to`; of what comes back, everything after the first datagram is late.
fn slow_line(to: SocketAddr, late: Duration, stop: Arc<AtomicBool>) -> SocketAddr {
    let (front, back) = (hole(), hole());
    for socket in [&front, &back] {
        socket
            .set_read_timeout(Some(Duration::from_millis(2)))
            .unwrap();
    }
    let address = front.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 2048];
        let (mut caller, mut answers) = (None, 0);
        let mut waiting: Vec<(Instant, Vec<u8>)> = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            if let Ok((length, from)) = front.recv_from(&mut buffer) {
                caller = Some(from);
                back.send_to(&buffer[..length], to).unwrap();
            }
            if let Ok((length, _)) = back.recv_from(&mut buffer) {
                let wait = if answers == 0 { Duration::ZERO } else { late };
                answers += 1;
                waiting.push((Instant::now() + wait, buffer[..length].to_vec()));
            }
            waiting.retain(|(at, bytes)| {
                let due = *at <= Instant::now();
                if due {
                    front.send_to(bytes, caller.unwrap()).unwrap();
                }
                !due
            });
        }
    });
    address
}

async fn armed_at(a: &Running, b: &Running) -> SocketAddr {
    a.meets(b).await;
    a.handle.want(b.target.clone()).await.unwrap();
    eventually("armed", || !a.wireguard.armed.lock().is_empty()).await;
    a.wireguard.armed.lock()[0].1.address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_addresses_cost_a_moment_and_no_signature() {
    let fleet = Fleet::new("plant.example");
    let (a, mut b) = two(&fleet);
    let holes: Vec<UdpSocket> = (0..4).map(|_| hole()).collect();
    let alive = b.target.endpoints[0];
    b.target.endpoints = holes
        .iter()
        .map(|hole| hole.local_addr().unwrap())
        .collect();
    b.target.endpoints.push(alive);
    let begun = Instant::now();
    assert_eq!(armed_at(&a, &b).await, alive);
    let took = begun.elapsed();
    assert!(took < HANDSHAKE_TIMEOUT, "one after the other: {took:?}");
    assert_eq!(a.signatures.load(Ordering::Relaxed), 1);
    assert_eq!(b.signatures.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_answers_is_waited_for_and_nobody_signs_twice() {
    let fleet = Fleet::new("plant.example");
    let (a, mut b) = two(&fleet);
    let stop = Arc::new(AtomicBool::new(false));
    let direct = b.target.endpoints[0];
    // Slower than the next address would be started, had nothing come back.
    let slow = slow_line(direct, Duration::from_millis(800), Arc::clone(&stop));
    b.target.endpoints = vec![slow, direct];
    assert_eq!(armed_at(&a, &b).await, slow);
    assert_eq!(b.signatures.load(Ordering::Relaxed), 1);
    stop.store(true, Ordering::Relaxed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_no_address_answers_the_dial_fails_once() {
    let fleet = Fleet::new("plant.example");
    let (mut a, mut b) = two(&fleet);
    let hole = hole();
    b.target.endpoints = vec![hole.local_addr().unwrap(); 3];
    a.meets(&b).await;
    a.handle.want(b.target.clone()).await.unwrap();
    let Event::DialFailed { peer, reason } = a.event().await else {
        panic!("the dial fails");
    };
    assert_eq!(peer, b.target.id);
    assert!(reason.contains("no answer in time"), "{reason}");
    assert_eq!(a.signatures.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_found_during_a_dial_is_tried_at_once() {
    let fleet = Fleet::new("plant.example");
    let (a, mut b) = two(&fleet);
    let hole = hole();
    let alive = std::mem::replace(&mut b.target.endpoints, vec![hole.local_addr().unwrap()]);
    a.meets(&b).await;
    a.handle.want(b.target.clone()).await.unwrap();
    // The dial is under way once something has come to the address.
    hole.set_read_timeout(Some(HANDSHAKE_TIMEOUT)).unwrap();
    let heard = tokio::task::spawn_blocking(move || hole.recv_from(&mut [0; 2048]).map(|_| hole));
    let _hole = heard.await.unwrap().unwrap();
    b.target.endpoints.extend(&alive);
    let begun = Instant::now();
    assert_eq!(armed_at(&a, &b).await, alive[0]);
    let took = begun.elapsed();
    assert!(
        took < HANDSHAKE_TIMEOUT / 2,
        "after the first dial: {took:?}"
    );
    assert_eq!(b.signatures.load(Ordering::Relaxed), 1);
}
