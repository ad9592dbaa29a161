use std::collections::BTreeMap;

use edgeward_policy::slice::beyond::is_internet;

use super::*;

fn overlay() -> Overlay {
    Overlay {
        v6: "fd00::7".parse().unwrap(),
        v4: Some("100.64.0.7".parse().unwrap()),
    }
}

fn nets(texts: &[&str]) -> BTreeSet<IpNet> {
    texts.iter().map(|net| net.parse().unwrap()).collect()
}

/// What the kernel would do, by its documented order: a rule's table answers by its longest prefix, unless that is
/// suppressed or thrown.
struct Machine {
    steering: Steering,
    main: BTreeMap<IpNet, &'static str>,
}

#[derive(Clone, Copy)]
struct Packet {
    to: IpAddr,
    from: Option<IpAddr>,
    own: bool,
    marked: bool,
}

impl Packet {
    fn to(to: &str) -> Self {
        Self {
            to: to.parse().unwrap(),
            from: None,
            own: true,
            marked: false,
        }
    }

    fn from(self, from: &str) -> Self {
        let from = Some(from.parse().unwrap());
        Self { from, ..self }
    }
}

impl Machine {
    fn new(steering: Steering, main: &[(&str, &'static str)]) -> Self {
        let main = main.iter().map(|(net, via)| (net.parse().unwrap(), *via));
        Self {
            steering,
            main: main.collect(),
        }
    }

    fn way(&self, packet: Packet) -> &'static str {
        let family = match packet.to {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        };
        let rules = self.steering.rules.iter();
        for rule in rules.filter(|rule| rule.family == family) {
            if !matches(rule.whose, packet) {
                continue;
            }
            let (answer, more_than) = match rule.does {
                Does::Leave | Does::End => break,
                Does::Ask { table, more_than } => (self.ask(table, packet.to), more_than),
            };
            if let Some((bits, via)) = answer
                && more_than.is_none_or(|least| bits > least)
                && via != "throw"
            {
                return via;
            }
        }
        self.ask(Asked::Main, packet.to)
            .map_or("unreachable", |(_, via)| via)
    }

    fn ask(&self, table: Asked, to: IpAddr) -> Option<(u8, &'static str)> {
        let ours = |number: u32| -> Vec<(IpNet, u32, &'static str)> {
            let routes = self.steering.routes.iter();
            routes
                .filter(|route| route.table == number)
                .map(|route| (route.to, route.metric(), via(route.via)))
                .collect()
        };
        let routes = match table {
            Asked::Main => self.main.iter().map(|(net, via)| (*net, 0, *via)).collect(),
            Asked::Nets => ours(TABLE_NETS),
            Asked::Exit => ours(TABLE_EXIT),
        };
        let known = routes.into_iter().filter(|(net, ..)| net.contains(&to));
        known
            .max_by_key(|(net, metric, _)| (net.prefix_len(), u32::MAX - metric))
            .map(|(net, _, via)| (net.prefix_len(), via))
    }
}

fn via(via: Via) -> &'static str {
    match via {
        Via::Tunnel => "tunnel",
        Via::Throw => "throw",
        Via::Nowhere => "nowhere",
    }
}

fn matches(whose: Whose, packet: Packet) -> bool {
    let Packet {
        from, own, marked, ..
    } = packet;
    match whose {
        Whose::Anybody => true,
        Whose::Agent => marked,
        Whose::Own => own,
        // The kernel takes a source that is not chosen yet for zeroes in IPv4, and for none in IPv6.
        Whose::From(net) | Whose::OwnFrom(net) => {
            let unset = Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            let from = from.or(unset.filter(|_| packet.to.is_ipv4()));
            let right = matches!(whose, Whose::From(_)) || own;
            right && from.is_some_and(|from| net.contains(&from))
        }
    }
}

const MAIN: [(&str, &str); 4] = [
    ("0.0.0.0/0", "uplink"),
    ("192.168.7.0/24", "lan"),
    ("62.1.0.0/16", "other"),
    ("::/0", "uplink"),
];

fn leaving(used: ExitUse, is_bound: bool) -> Machine {
    let leaving = Leaving::new(used, is_bound);
    Machine::new(Steering::new(&BTreeSet::new(), leaving, overlay()), &MAIN)
}

#[test]
fn without_the_exit_the_internet_is_closed_unless_the_operator_says_otherwise() {
    let closed = leaving(ExitUse::Only, false);
    for to in ["9.9.9.9", "2a00::1"] {
        assert_eq!(closed.way(Packet::to(to)), "nowhere");
        for used in [ExitUse::Prefer, ExitUse::ByRoute] {
            let open = leaving(used, false);
            assert!(open.steering.rules.is_empty() && open.steering.routes.is_empty());
            assert_eq!(open.way(Packet::to(to)), "uplink");
        }
    }
    // The device goes with a process that dies: what refuses stays.
    let mut crashed = leaving(ExitUse::Only, true);
    assert_eq!(crashed.way(Packet::to("9.9.9.9")), "tunnel");
    crashed
        .steering
        .routes
        .retain(|route| route.via != Via::Tunnel);
    assert_eq!(crashed.way(Packet::to("9.9.9.9")), "nowhere");
}

#[test]
fn nothing_but_the_internet_goes_through_an_exit() {
    let machine = leaving(ExitUse::Only, true);
    let steps = (0_u32..=255).flat_map(|first| {
        (0_u32..256).map(move |second| Ipv4Addr::from_bits(first << 24 | second << 16 | 0x0107))
    });
    for to in steps {
        let packet = Packet::to(&to.to_string());
        let expected = match (is_internet(to.into()), to.octets()) {
            (_, [62, 1, ..]) => "other",
            (true, _) => "tunnel",
            (false, _) => "uplink",
        };
        assert_eq!(machine.way(packet), expected, "{to}");
    }
    for (to, expected) in [
        ("192.168.7.9", "lan"),
        ("2a00::1", "tunnel"),
        ("2001:db8::1", "uplink"),
        ("fd00::9", "uplink"),
        ("ff02::1", "uplink"),
    ] {
        assert_eq!(machine.way(Packet::to(to)), expected, "{to}");
    }
}

#[test]
fn what_the_agent_sends_and_what_could_not_pass_the_exit_go_their_own_way() {
    for machine in [leaving(ExitUse::Only, true), leaving(ExitUse::Only, false)] {
        for to in ["9.9.9.9", "2a00::1"] {
            let packet = Packet::to(to);
            let marked = Packet {
                marked: true,
                ..packet
            };
            assert_eq!(machine.way(marked), "uplink");
        }
        let answered = Packet::to("9.9.9.9").from("192.168.7.2");
        assert_eq!(machine.way(answered), "uplink", "called from outside");
        let answered = Packet::to("2a00::1").from("2a01::7");
        assert_eq!(machine.way(answered), "uplink", "called from outside");
        let forwarded = Packet {
            own: false,
            ..Packet::to("9.9.9.9").from("192.168.7.9")
        };
        assert_eq!(machine.way(forwarded), "uplink", "another's");
        let own = Packet::to("9.9.9.9").from("100.64.0.7");
        assert_ne!(machine.way(own), "uplink");
    }
}

#[test]
fn networks_behind_peers_and_the_machines_own_answer_as_one_table_would() {
    let main = [
        ("0.0.0.0/0", "uplink"),
        ("10.0.0.0/8", "corporate"),
        ("10.7.3.0/24", "lan"),
        ("172.16.0.0/12", "same"),
    ];
    let nets = nets(&["10.7.0.0/16", "10.7.3.0/25", "172.16.0.0/12", "62.0.0.0/8"]);
    let machine = Machine::new(Steering::new(&nets, Leaving::Own, overlay()), &main);
    for (to, expected) in [
        ("10.8.0.1", "corporate"),
        ("10.7.1.1", "tunnel"),
        ("10.7.3.200", "lan"),
        ("10.7.3.1", "tunnel"),
        ("172.16.0.1", "same"),
        ("62.9.9.9", "tunnel"),
        ("9.9.9.9", "uplink"),
    ] {
        let packet = Packet::to(to);
        assert_eq!(machine.way(packet), expected, "{to}");
        let marked = Packet {
            marked: true,
            ..packet
        };
        assert_ne!(
            machine.way(marked),
            "tunnel",
            "{to}: the cloud may be there"
        );
    }
    // Also beside an exit, whatever that calls no internet.
    let both = Steering::new(&nets, Leaving::new(ExitUse::Only, true), overlay());
    let machine = Machine::new(both, &main);
    for to in ["10.7.1.1", "9.9.9.9", "62.9.9.9"] {
        assert_eq!(machine.way(Packet::to(to)), "tunnel", "{to}");
    }
    assert_eq!(machine.way(Packet::to("10.8.0.1")), "corporate");
}

#[test]
fn a_machine_without_an_address_in_the_overlay_sends_nothing_of_that_family() {
    let overlay = Overlay {
        v4: None,
        ..overlay()
    };
    let steering = Steering::new(&BTreeSet::new(), Leaving::new(ExitUse::Only, true), overlay);
    let machine = Machine::new(steering, &MAIN);
    assert_eq!(machine.way(Packet::to("9.9.9.9")), "nowhere");
    assert_eq!(machine.way(Packet::to("2a00::1")), "tunnel");
}
