use super::*;

#[test]
fn a_batch_arrives_whole_with_and_without_offload() {
    for offload in [
        UdpOffload::default(),
        UdpOffload {
            gso: false,
            gro: true,
        },
        UdpOffload {
            gso: false,
            gro: false,
        },
    ] {
        let a = UdpPort::bind("127.0.0.1:0".parse().unwrap(), offload).unwrap();
        let b = UdpPort::bind("127.0.0.1:0".parse().unwrap(), offload).unwrap();
        let bytes: Vec<u8> = (0..2500u32).map(|i| (i % 251) as u8).collect();
        a.try_send(&Transmit {
            to: b.local_addr().unwrap(),
            local_ip: None,
            ecn: None,
            segment_size: Some(1000),
            bytes: &bytes,
        })
        .unwrap();
        let received = receive_all(&b, 3);
        let lengths: Vec<usize> = received.iter().map(Vec::len).collect();
        assert_eq!(lengths, [1000, 1000, 500], "{offload:?}");
        assert_eq!(received.concat(), bytes);
    }
}

#[test]
fn one_ipv6_socket_serves_ipv4_and_shows_plain_addresses() {
    let both = UdpPort::bind(any_address(0), UdpOffload::default()).unwrap();
    let port = both.local_addr().unwrap().port();
    let four = UdpPort::bind("127.0.0.1:0".parse().unwrap(), UdpOffload::default()).unwrap();
    four.try_send(&Transmit {
        to: SocketAddr::new("127.0.0.1".parse().unwrap(), port),
        local_ip: None,
        ecn: None,
        segment_size: None,
        bytes: b"hello",
    })
    .unwrap();
    let mut buffer = vec![0; RECV_BUFFER_BYTES];
    let mut meta = [RecvMeta::default()];
    for _ in 0..10_000 {
        if both
            .recv(&mut [IoSliceMut::new(&mut buffer)], &mut meta)
            .is_ok()
        {
            break;
        }
        std::thread::yield_now();
    }
    assert_eq!(meta[0].addr, four.local_addr().unwrap());
    assert_eq!(meta[0].dst_ip, Some("127.0.0.1".parse().unwrap()));
    both.try_send(&Transmit {
        to: meta[0].addr,
        local_ip: meta[0].dst_ip,
        ecn: None,
        segment_size: None,
        bytes: b"back",
    })
    .unwrap();
    assert_eq!(receive_all(&four, 1), [b"back".to_vec()]);
}

#[test]
fn the_loopback_route_takes_what_it_says() {
    for to in ["127.0.0.1:9", "[::ffff:127.0.0.1]:9", "[::1]:9"] {
        let to = to.parse().unwrap();
        let mtu = route_mtu(to, 0).unwrap();
        let room = mtu - usize::from(outer_headers(to));
        assert_eq!(too_long(to, room, 0), None, "{to}");
        assert_eq!(
            too_long(to, room + 1, 0),
            Some(u16::try_from(mtu).unwrap_or(u16::MAX))
        );
    }
}

#[test]
fn segments_that_no_path_takes_are_refused_for_this_batch_only() {
    let a = UdpPort::bind("127.0.0.1:0".parse().unwrap(), UdpOffload::default()).unwrap();
    let b = UdpPort::bind("127.0.0.1:0".parse().unwrap(), UdpOffload::default()).unwrap();
    let segments = a.max_segments();
    assert!(segments > 1, "this kernel segments");
    // Port 0 is never a destination: EINVAL, as a driver without the offload answers, but not for this reason.
    let refused = a.try_send(&Transmit {
        to: "127.0.0.1:0".parse().unwrap(),
        local_ip: None,
        ecn: None,
        segment_size: None,
        bytes: b"x",
    });
    assert!(refused.is_err());
    assert_eq!(a.send_failures(), 1);
    assert_eq!(a.max_segments(), segments);
    let bytes = [7; 3000];
    let sent = a.send(
        &Transmit {
            to: b.local_addr().unwrap(),
            local_ip: None,
            ecn: Some(Ecn::Ect0),
            segment_size: Some(1000),
            bytes: &bytes,
        },
        true,
    );
    assert_eq!(sent.unwrap(), Sent::Whole);
    assert_eq!(receive_all(&b, 3).concat(), bytes);
}

#[test]
fn a_datagram_leaves_from_the_address_it_came_to() {
    let a = UdpPort::bind(any_address(0), UdpOffload::default()).unwrap();
    let b = UdpPort::bind(any_address(0), UdpOffload::default()).unwrap();
    for (own, to) in [("127.0.0.7", "127.0.0.1"), ("::1", "::1")] {
        let bytes = [9; 2500];
        a.try_send(&Transmit {
            to: SocketAddr::new(to.parse().unwrap(), b.local_addr().unwrap().port()),
            local_ip: Some(own.parse().unwrap()),
            ecn: None,
            segment_size: Some(1000),
            bytes: &bytes,
        })
        .unwrap();
        let mut buffer = vec![0; RECV_BUFFER_BYTES];
        let mut meta = [RecvMeta::default()];
        let mut length = 0;
        for _ in 0..10_000 {
            match b.recv(&mut [IoSliceMut::new(&mut buffer)], &mut meta) {
                Ok(_) => length += meta[0].len,
                Err(_) => std::thread::yield_now(),
            }
            if length == bytes.len() {
                break;
            }
        }
        assert_eq!(length, bytes.len());
        assert_eq!(meta[0].addr.ip(), own.parse::<IpAddr>().unwrap());
    }
}

#[test]
fn an_address_that_is_gone_does_not_end_segmentation() {
    let a = UdpPort::bind("127.0.0.1:0".parse().unwrap(), UdpOffload::default()).unwrap();
    let b = UdpPort::bind("127.0.0.1:0".parse().unwrap(), UdpOffload::default()).unwrap();
    let gone = Transmit {
        to: b.local_addr().unwrap(),
        local_ip: Some("192.0.2.99".parse().unwrap()),
        ecn: None,
        segment_size: Some(100),
        bytes: &[1; 1_000],
    };
    assert!(a.send(&gone, true).is_err());
    assert!(a.max_segments() > 1, "given up for good");
}

#[test]
fn what_the_kernel_does_not_segment_leaves_one_by_one_from_then_on() {
    let a = UdpPort::bind("127.0.0.1:0".parse().unwrap(), UdpOffload::default()).unwrap();
    let b = UdpPort::bind("127.0.0.1:0".parse().unwrap(), UdpOffload::default()).unwrap();
    assert!(a.max_segments() > 1);
    // More segments than any kernel takes: EINVAL, as where a device cannot segment at all.
    let bytes: Vec<u8> = (0..255).collect();
    let sent = a.send(
        &Transmit {
            to: b.local_addr().unwrap(),
            local_ip: None,
            ecn: None,
            segment_size: Some(1),
            bytes: &bytes,
        },
        true,
    );
    assert_eq!(sent.unwrap(), Sent::Whole);
    assert_eq!(a.max_segments(), 1);
    assert_eq!(receive_all(&b, bytes.len()).concat(), bytes);
}
