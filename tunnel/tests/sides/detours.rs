//! Two tunnels without a wire between them: a relay carries for them, or channels do.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use edgeward_identity::SpiffeId;
use edgeward_tunnel::node::{Endpoint, PeerId};
use edgeward_tunnel::reach::message::relayed_header;
use edgeward_tunnel::reach::relay::{Account, Refused};
use edgeward_tunnel::reach::{Output, RouteId};
use edgeward_tunnel::shell::udp::any_address;

use super::{Choice, Namespace, PORT, Sides, SystemClock, open};
use edgeward_identity::Clock as _;

const ROUTE: RouteId = RouteId(0x7777_0001_0002_0003);
const RELAY: [&str; 2] = ["192.0.2.254", "198.51.100.254"];
const ENDS: [&str; 2] = ["192.0.2.1", "198.51.100.2"];

fn far(number: usize) -> SocketAddr {
    ["[100::1]:6", "[100::2]:6"][number].parse().unwrap()
}

fn at(ip: &str) -> Endpoint {
    Endpoint {
        remote: SocketAddr::new(ip.parse().unwrap(), PORT),
        local_ip: None,
    }
}

fn name(number: usize) -> SpiffeId {
    [
        "spiffe://plant.example/node/a",
        "spiffe://plant.example/node/b",
    ][number]
        .parse()
        .unwrap()
}

impl Sides {
    /// A third node between both, which forwards nothing but what its routes say.
    pub(crate) fn through_relay(choice: Choice) -> Self {
        let (a, b, middle) = (
            Namespace::new('a'),
            Namespace::new('b'),
            Namespace::new('r'),
        );
        let near = [
            ["192.0.2.1/24", "2001:db8:1::1/64"],
            ["192.0.2.254/24", "2001:db8:1::fe/64"],
        ];
        let farther = [
            ["198.51.100.254/24", "2001:db8:2::fe/64"],
            ["198.51.100.2/24", "2001:db8:2::2/64"],
        ];
        // Room for the relay's header: how a path of 1,500 bytes is told is tried elsewhere.
        a.join("near", &middle, near, 1600);
        middle.join("far", &b, farther, 1600);
        let relay = middle.inside(|| open(choice, "10.97.0.9", "fd97::9"));
        {
            let routes = relay.reach().relays();
            let mut routes = routes.lock();
            for number in [0, 1] {
                let peer = PeerId(number as u64 + 1);
                routes.place(peer, &name(number), at(ENDS[number]));
            }
            routes
                .open(PeerId(1), PeerId(2), ROUTE, SystemClock.boottime())
                .unwrap();
        }
        let mut sides = Self::start(a, b, Some(middle), choice, far(0), |tunnels| {
            for number in [0, 1] {
                let relay = at(RELAY[number]);
                let nothing_left = tunnels[number].reach().perform(Output::Detour {
                    address: far(number),
                    relay,
                    sources: vec![relay.remote],
                    route: ROUTE,
                });
                assert_eq!(nothing_left, None);
            }
        });
        sides.relay = Some(relay);
        sides
    }

    /// What leaves one tunnel by its channel enters the other, by hand.
    pub(crate) fn through_channels(choice: Choice) -> Self {
        Self::through_channels_with(choice, |_, _| Vec::new())
    }

    /// And after each datagram whatever `mischief` makes of it and of its number.
    pub(crate) fn through_channels_with(
        choice: Choice,
        mischief: fn(&[u8], usize) -> Vec<Vec<u8>>,
    ) -> Self {
        let (a, b) = (Namespace::new('a'), Namespace::new('b'));
        Self::start(a, b, None, choice, far(0), |tunnels| {
            for number in [0, 1] {
                let (own, other) = (&tunnels[number], Arc::downgrade(&tunnels[1 - number]));
                // Before there is a channel nothing gets in by its name.
                assert!(!own.inject(far(number), &[4, 0, 0, 0]));
                let mut channel = own.reach().open_channel(far(number)).unwrap();
                thread::spawn(move || {
                    let mut count = 0;
                    while let Some(datagram) = channel.blocking_recv() {
                        let Some(other) = other.upgrade() else {
                            return;
                        };
                        other.inject(far(1 - number), &datagram);
                        count += 1;
                        for forged in mischief(&datagram, count) {
                            other.inject(far(1 - number), &forged);
                        }
                    }
                });
            }
        })
    }

    /// What the relay carried.
    pub(crate) fn carried(&self) -> (Account, Refused) {
        let routes = self.relay.as_ref().unwrap().reach().relays();
        let routes = routes.lock();
        (routes.accounts()[0].clone(), routes.refused())
    }

    /// From the same machine as an end, but not from its port: who knows the number of a route knows nothing.
    pub(crate) fn strangers_get_nothing_through(&self) {
        let before = self.carried();
        self.a.inside(|| {
            let stranger = UdpSocket::bind(any_address(0)).unwrap();
            let relay = format!("::ffff:{}", RELAY[0]);
            let relay = SocketAddr::new(relay.parse().unwrap(), PORT);
            for route in [ROUTE, RouteId(1)] {
                let datagram = [&relayed_header(route)[..], &[4, 0, 0, 0, 1]].concat();
                stranger.send_to(&datagram, relay).unwrap();
            }
        });
        for _ in 0..200 {
            let (_, refused) = self.carried();
            if refused.wrong_source > before.1.wrong_source
                && refused.unknown_route > before.1.unknown_route
            {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("not refused: {:?}", self.carried());
    }

    /// From the first side's machine, to the second side's port; how many.
    pub(crate) fn strangers_flood(&self, rounds: usize) -> usize {
        let to: SocketAddr = format!("[::ffff:192.0.2.2]:{PORT}").parse().unwrap();
        self.a.inside(|| {
            let stranger = UdpSocket::bind(any_address(0)).unwrap();
            let mut sent = 0;
            for round in 0..rounds {
                let filler = vec![round as u8; 65_000];
                // What a handshake, an answer, a cookie and data look like, exact and not; nothing; far too much.
                for (kind, length) in [
                    (1, 148),
                    (1, 147),
                    (2, 92),
                    (3, 64),
                    (4, 32),
                    (4, 1_452),
                    (4, round % 32),
                    (round as u8, round % 1_472),
                    (4, if round % 50 == 0 { 65_000 } else { 0 }),
                ] {
                    let mut datagram = filler[..length].to_vec();
                    if let Some(start) = datagram.first_chunk_mut() {
                        *start = [kind, 0, 0, 0];
                    }
                    // The port's own buffer may be full.
                    sent += usize::from(stranger.send_to(&datagram, to).is_ok());
                }
                thread::sleep(Duration::from_micros(200));
            }
            sent
        })
    }

    /// Sources that no network has, messages of no bind and answers that nobody asked for stop at the door.
    pub(crate) fn the_door_stays_shut(&self) {
        let relay = self.relay.as_ref().unwrap();
        super::ip(&[
            "-n",
            &self.a.0,
            "addr",
            "add",
            "100::5/128",
            "dev",
            "near",
            "nodad",
        ]);
        self.a.inside(|| {
            let to: SocketAddr = format!("[2001:db8:1::fe]:{PORT}").parse().unwrap();
            let spoofer = UdpSocket::bind("[100::5]:0").unwrap();
            spoofer.send_to(&[0x40; 40], to).unwrap();
            let stranger = UdpSocket::bind(any_address(0)).unwrap();
            let knock = [&[5, 0, 0, 0][..], &[7; 60]].concat();
            let stun = [&[1, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[0; 12]].concat();
            let twice = [&relayed_header(ROUTE)[..], &relayed_header(ROUTE), &[1]].concat();
            for datagram in [knock, stun, twice] {
                stranger.send_to(&datagram, to).unwrap();
            }
        });
        for _ in 0..200 {
            let door = relay.reach().counters();
            if (door.spoofed, door.unknown, door.misrouted) == (1, 2, 1) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("{:?}", relay.reach().counters());
    }
}
