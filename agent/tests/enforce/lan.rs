//! One enforcement, and devices without an agent on a LAN of its node: a bridge with a cable to each.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use edgeward_agent::enforce::Nets;
use edgeward_audit::EventKind;
use edgeward_identity::{Clock, SpiffeId, SystemClock};
use edgeward_policy::slice::{GroupId, Slice, Term};
use edgeward_policy::{Proto, Recognition, Seconds, SliceDevice};

use crate::fleet::{Fleet, Side, held, slice};
use crate::lab::{Lab, Namespaces, enter, eventually, ip};

const SOON: Duration = Duration::from_secs(10);
/// Longer than any answer takes, and the first of TCP's repeated attempts.
const TRY: Duration = Duration::from_millis(1500);
/// Guarded by policy, and not.
const PORT: u16 = 502;
const OTHER_PORT: u16 = 503;
const NODE4: &str = "198.51.100.1";
const NODE6: &str = "2001:db8:1::1";
const PLC_MAC: &str = "02:00:00:00:00:11";
const OTHER_MAC: &str = "02:00:00:00:00:99";

/// Namespaces of devices, on the bridge `br0` of node `a`.
struct Lan {
    namespaces: Namespaces,
    devices: Vec<&'static str>,
}

impl Lan {
    fn new() -> Option<Self> {
        let namespaces = Namespaces::new()?;
        let node = namespaces.name("a");
        ip(&["-n", &node, "link", "add", "br0", "type", "bridge"]);
        for address in [format!("{NODE4}/24"), format!("{NODE6}/64")] {
            ip(&["-n", &node, "addr", "add", &address, "dev", "br0", "nodad"]);
        }
        ip(&["-n", &node, "link", "set", "br0", "up"]);
        Some(Self {
            namespaces,
            devices: Vec::new(),
        })
    }

    /// A device with two addresses of each family: the one with this last number, and one ten above.
    fn add(&mut self, device: &'static str, mac: &str, last: u8) {
        let (node, name) = (self.namespaces.name("a"), self.namespaces.name(device));
        let port = format!("to-{device}");
        ip(&["netns", "add", &name]);
        self.devices.push(device);
        ip(&[
            "link", "add", &port, "netns", &node, "type", "veth", "peer", "name", "eth0", "netns",
            &name,
        ]);
        ip(&["-n", &node, "link", "set", &port, "master", "br0", "up"]);
        ip(&["-n", &name, "link", "set", "eth0", "address", mac, "up"]);
        for last in [last, last + 10] {
            for address in [
                format!("198.51.100.{last}/24"),
                format!("2001:db8:1::{last}/64"),
            ] {
                ip(&["-n", &name, "addr", "add", &address, "dev", "eth0", "nodad"]);
            }
        }
    }

    fn at<T: Send>(&self, namespace: &str, act: impl FnOnce() -> T + Send) -> T {
        let path = Path::new("/var/run/netns").join(self.namespaces.name(namespace));
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                enter(&path);
                act()
            });
            inside.join().unwrap()
        })
    }

    /// A connection from an address of the device.
    fn connect(&self, from: &str, source: &str, to: &str, port: u16) -> std::io::Result<Flow> {
        let source: IpAddr = source.parse().unwrap();
        let to = SocketAddr::new(to.parse().unwrap(), port);
        let stream = self.at(from, || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let socket = match source {
                    IpAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
                    IpAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
                };
                socket.bind(SocketAddr::new(source, 0))?;
                let stream = tokio::time::timeout(TRY, socket.connect(to)).await??;
                stream.into_std()
            })
        })?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(TRY))?;
        Ok(Flow(stream))
    }

    fn reaches(&self, from: &str, source: &str, to: &str, port: u16) -> bool {
        let asked = self.connect(from, source, to, port);
        asked.and_then(|mut flow| flow.ask()).is_ok()
    }

    fn nft(&self) -> String {
        self.at("a", || {
            let list = ["list", "table", "inet", "edgeward_edgeward0_lan"];
            let output = Command::new("nft").args(list).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        })
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for device in &self.devices {
            let name = self.namespaces.name(device);
            let _gone = Command::new("ip").args(["netns", "del", &name]).output();
        }
    }
}

struct Flow(TcpStream);

impl Flow {
    fn ask(&mut self) -> std::io::Result<()> {
        self.0.write_all(b"?")?;
        self.0.read_exact(&mut [0; 5])
    }

    /// Asks for this many bytes, a multiple of 256.
    fn fetch(&mut self, blocks: u8) -> std::io::Result<usize> {
        self.0.write_all(&[blocks])?;
        let mut all = vec![0; usize::from(blocks) * 4096];
        self.0.read_exact(&mut all)?;
        Ok(all.len())
    }
}

/// Answers `?` with `hello`, and any other byte with as many blocks of 4 KiB, on both families.
fn serve(lan: &Lan, port: u16) {
    let listener = lan.at("a", || TcpListener::bind(("::", port)).unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() {
                    let answer = match byte {
                        [b'?'] => b"hello".to_vec(),
                        [blocks] => vec![7; usize::from(blocks) * 4096],
                    };
                    if stream.write_all(&answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

fn device(name: &str, mac: Option<&str>, address: Option<&str>) -> SliceDevice {
    SliceDevice {
        id: id(name),
        groups: vec![GroupId(0)],
        net: "lan0".to_owned(),
        recognised: Recognition {
            mac: mac.map(|mac| mac.parse().unwrap()),
            ip: address.map(|address| address.parse().unwrap()),
            certificate: None,
        },
        seen_as: None,
    }
}

fn id(name: &str) -> SpiffeId {
    format!("spiffe://plant.example/device/{name}")
        .parse()
        .unwrap()
}

/// One guarded port on `lan0`, open to the group that all devices are in.
fn lan_slice(node: &Lab, fresh: u64, devices: Vec<SliceDevice>) -> Slice {
    let peer = "spiffe://plant.example/node/b".parse().unwrap();
    let mut slice = slice(&node.id(), &peer, Side::To);
    slice.devices = devices;
    let interface = &mut slice.interfaces[0];
    interface.net = "lan0".to_owned();
    (interface.proto, interface.port) = (Proto::Tcp, PORT);
    for row in &mut interface.rows {
        let term = Term {
            own: Some(Seconds::new(fresh)),
            default: Seconds::new(fresh),
            most: None,
        };
        (row.fresh, row.offline) = (term, term);
    }
    slice
}

fn publish(node: &Lab, slice: Slice) {
    node.publisher.slice.send_replace(Some(held(slice)));
}

fn node_on(lan: &Lan, fleet: &Fleet) -> Lab {
    let mut node = Lab::new(&lan.namespaces, fleet, "a");
    let nets = BTreeMap::from([("lan0".to_owned(), "br0".parse().unwrap())]);
    node.nets = Nets::new(nets, &"edgeward0".parse().unwrap()).unwrap();
    node.attest(fleet, SystemClock.now());
    node
}

fn skip() {
    println!("needs root, ip and nft: skipped");
}

#[test]
fn a_device_reaches_what_policy_names_by_its_addresses_and_nobody_else_does() {
    let Some(mut lan) = Lan::new() else {
        return skip();
    };
    lan.add("plc", PLC_MAC, 7);
    lan.add("other", OTHER_MAC, 8);
    let fleet = Fleet::new();
    let mut node = node_on(&lan, &fleet);
    serve(&lan, PORT);
    serve(&lan, OTHER_PORT);
    node.start();
    // Nothing is guarded that no policy names.
    assert!(lan.reaches("other", "198.51.100.8", NODE4, PORT));

    let both = || {
        vec![
            device("plc", Some(PLC_MAC), Some("198.51.100.7")),
            device("plc6", Some(PLC_MAC), Some("2001:db8:1::7")),
        ]
    };
    publish(&node, lan_slice(&node, 600, both()));
    eventually(SOON, "the table is there", || {
        lan.nft().contains("198.51.100.7")
    });
    for (from, source, to, port, reached) in [
        ("plc", "198.51.100.7", NODE4, PORT, true),
        ("plc", "2001:db8:1::7", NODE6, PORT, true),
        // Its MAC with another address, and others altogether.
        ("plc", "198.51.100.17", NODE4, PORT, false),
        ("plc", "2001:db8:1::11", NODE6, PORT, false),
        ("other", "198.51.100.8", NODE4, PORT, false),
        ("other", "2001:db8:1::8", NODE6, PORT, false),
        // What no policy names is not ours.
        ("other", "198.51.100.8", NODE4, OTHER_PORT, true),
    ] {
        assert_eq!(
            lan.reaches(from, source, to, port),
            reached,
            "{from} {source} {port}"
        );
    }
    // Its address with another MAC.
    let (plc, other) = (lan.namespaces.name("plc"), lan.namespaces.name("other"));
    ip(&["-n", &plc, "link", "set", "eth0", "down"]);
    ip(&[
        "-n",
        &other,
        "addr",
        "add",
        "198.51.100.7/24",
        "dev",
        "eth0",
    ]);
    ip(&[
        "-n",
        &lan.namespaces.name("a"),
        "neigh",
        "flush",
        "dev",
        "br0",
    ]);
    assert!(lan.reaches("other", "198.51.100.7", NODE4, OTHER_PORT));
    assert!(!lan.reaches("other", "198.51.100.7", NODE4, PORT));
    ip(&[
        "-n",
        &other,
        "addr",
        "del",
        "198.51.100.7/24",
        "dev",
        "eth0",
    ]);
    ip(&["-n", &plc, "link", "set", "eth0", "up"]);
    for address in ["2001:db8:1::7/64", "2001:db8:1::17/64"] {
        ip(&[
            "-n", &plc, "addr", "replace", address, "dev", "eth0", "nodad",
        ]);
    }
    ip(&[
        "-n",
        &lan.namespaces.name("a"),
        "neigh",
        "flush",
        "dev",
        "br0",
    ]);

    // A rule that no longer allows ends an open connection; one that still does is not disturbed.
    let mut ended = lan.connect("plc", "198.51.100.7", NODE4, PORT).unwrap();
    let mut kept = lan.connect("plc", "2001:db8:1::7", NODE6, PORT).unwrap();
    ended.ask().unwrap();
    kept.ask().unwrap();
    let mut devices = both();
    devices[0].groups.clear();
    publish(&node, lan_slice(&node, 600, devices));
    eventually(SOON, "the lease is gone", || {
        !lan.nft().contains(". 198.51.100.7 timeout")
    });
    assert!(ended.ask().is_err());
    kept.ask().unwrap();

    // Counted, told, and recorded.
    let status = || node.status().lan;
    eventually(SOON, "counters are read", || {
        let lan = status();
        lan.rules
            .get("a-reads")
            .is_some_and(|count| count.packets > 10)
            && lan.guards.first().is_some_and(|guard| guard.dropped > 5)
    });
    let known = status();
    assert_eq!(known.guards[0].device, "br0");
    let seen = known
        .devices
        .iter()
        .find(|device| device.id == id("plc6"))
        .unwrap();
    assert!(
        seen.seen_secs.is_some() && seen.allowed == ["line3/modbus"],
        "{seen:?}"
    );
    let said = |kind, actor: &str, key: &str, value: &str| {
        node.recorder.events().iter().any(|event| {
            event.kind == kind
                && event.actor.to_string() == actor
                && event.detail.get(key) == Some(value)
        })
    };
    let device6 = id("plc6").to_string();
    eventually(SOON, "recorded", || {
        said(EventKind::FlowAllowed, &device6, "state", "vouched")
            && said(
                EventKind::FlowDenied,
                "anonymous:198.51.100.8",
                "mac",
                OTHER_MAC,
            )
            && said(
                EventKind::FlowDenied,
                &id("plc").to_string(),
                "source",
                "198.51.100.7",
            )
    });
    let denied: u64 = node
        .recorder
        .events()
        .iter()
        .filter(|event| event.kind == EventKind::FlowDenied)
        .filter_map(|event| event.detail.get("packets")?.parse::<u64>().ok())
        .sum();
    assert!(denied >= 6, "{denied}");
    node.stop();
}

#[test]
fn a_node_that_is_not_trusted_lets_nobody_in_and_its_table_outlives_it() {
    let Some(mut lan) = Lan::new() else {
        return skip();
    };
    lan.add("plc", PLC_MAC, 7);
    let fleet = Fleet::new();
    let mut node = node_on(&lan, &fleet);
    serve(&lan, PORT);
    node.start();
    // Known by its MAC alone, on both families.
    let devices = || vec![device("plc", Some(PLC_MAC), None)];
    publish(&node, lan_slice(&node, 600, devices()));
    eventually(SOON, "guarded", || lan.nft().contains("tcp . 502"));
    let mut flow = lan.connect("plc", "198.51.100.17", NODE4, PORT).unwrap();
    flow.ask().unwrap();
    assert!(lan.reaches("plc", "2001:db8:1::7", NODE6, PORT));

    node.publisher.result.send_replace(None);
    eventually(SOON, "closed", || {
        !lan.nft().contains("02:00:00:00:00:11 timeout")
    });
    assert!(flow.ask().is_err());
    assert!(!lan.reaches("plc", "198.51.100.7", NODE4, PORT));
    node.attest(&fleet, SystemClock.now());
    eventually(SOON, "open again", || {
        lan.reaches("plc", "198.51.100.7", NODE4, PORT)
    });

    // The lease is ten seconds from the node's own pass, and the agent is gone before it ends.
    node.attest(&fleet, SystemClock.now());
    publish(&node, lan_slice(&node, 10, devices()));
    eventually(SOON, "a short lease", || {
        let table = lan.nft();
        (5..10).any(|left| table.contains(&format!("00:11 timeout {left}s")))
    });
    let begun = Instant::now();
    let mut flow = lan.connect("plc", "198.51.100.7", NODE4, PORT).unwrap();
    flow.ask().unwrap();
    node.stop();
    flow.ask().unwrap();
    eventually(2 * SOON, "the kernel ends the lease", || {
        flow.ask().is_err()
    });
    println!("ended {:?} after it began", begun.elapsed());
    assert!(lan.nft().contains("guarded"));
    assert!(!lan.reaches("plc", "198.51.100.7", NODE4, PORT));

    // A new agent takes the table over.
    let mut node = node_on(&lan, &fleet);
    node.start();
    assert!(!lan.reaches("plc", "198.51.100.7", NODE4, PORT));
    publish(&node, lan_slice(&node, 600, devices()));
    eventually(SOON, "open again", || {
        lan.reaches("plc", "198.51.100.7", NODE4, PORT)
    });
    node.stop();
}

#[test]
fn errors_about_an_allowed_flow_pass_so_that_its_path_mtu_is_found() {
    let Some(mut lan) = Lan::new() else {
        return skip();
    };
    lan.add("router", "02:00:00:00:00:01", 9);
    let (node_ns, router) = (lan.namespaces.name("a"), lan.namespaces.name("router"));
    let far = lan.namespaces.name("far");
    ip(&["netns", "add", &far]);
    lan.devices.push("far");
    ip(&[
        "link", "add", "eth1", "netns", &router, "type", "veth", "peer", "name", "eth0", "netns",
        &far,
    ]);
    for (at, dev, v4, v6) in [
        (&router, "eth1", "203.0.113.1/24", "2001:db8:2::1/64"),
        (&far, "eth0", "203.0.113.7/24", "2001:db8:2::7/64"),
    ] {
        ip(&["-n", at, "addr", "add", v4, "dev", dev]);
        ip(&["-n", at, "addr", "add", v6, "dev", dev, "nodad"]);
        ip(&["-n", at, "link", "set", dev, "up"]);
    }
    // The far end does not know how narrow the way to it is: only the router's errors tell.
    ip(&["-n", &router, "link", "set", "eth1", "mtu", "1280"]);
    lan.at("router", || {
        for path in [
            "/proc/sys/net/ipv4/ip_forward",
            "/proc/sys/net/ipv6/conf/all/forwarding",
        ] {
            std::fs::write(path, "1").unwrap();
        }
    });
    for (net, by) in [
        ("203.0.113.0/24", "198.51.100.9"),
        ("2001:db8:2::/64", "2001:db8:1::9"),
    ] {
        ip(&["-n", &node_ns, "route", "add", net, "via", by]);
    }
    for (net, by) in [
        ("198.51.100.0/24", "203.0.113.1"),
        ("2001:db8:1::/64", "2001:db8:2::1"),
    ] {
        ip(&["-n", &far, "route", "add", net, "via", by]);
    }
    let fleet = Fleet::new();
    let mut node = node_on(&lan, &fleet);
    serve(&lan, PORT);
    node.start();
    let devices = vec![
        device("far4", None, Some("203.0.113.7")),
        device("far6", None, Some("2001:db8:2::7")),
    ];
    publish(&node, lan_slice(&node, 600, devices));
    eventually(SOON, "guarded", || lan.nft().contains("203.0.113.7"));
    for (source, to) in [("203.0.113.7", NODE4), ("2001:db8:2::7", NODE6)] {
        // Addresses of the link are looked for first.
        eventually(SOON, "the way is there", || {
            lan.reaches("far", source, to, PORT)
        });
        let mut flow = lan.connect("far", source, to, PORT).unwrap();
        assert_eq!(flow.fetch(100).unwrap(), 409_600, "{source}");
        let route = lan.at("a", || {
            let output = Command::new("ip").args(["route", "get", source]).output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        });
        assert!(route.contains("mtu 1280"), "{route}");
    }
    node.stop();
}

/// Leases of the measurement: devices, and ports that each may reach.
const MANY: (u16, u16) = (100, 10);

/// `MANY` leases, the one of the live flows, and `marked` or not the one that comes and goes.
fn many(node: &Lab, round: u64, marked: bool) -> Slice {
    let mut devices = vec![
        device("live", Some(PLC_MAC), Some("198.51.100.7")),
        device("marked", Some(PLC_MAC), Some("198.51.100.17")),
    ];
    if !marked {
        devices[1].groups.clear();
    }
    for number in 0..MANY.0 {
        let address = format!("198.51.{}.{}", 101 + round % 2, number + 1);
        devices.push(device(
            &format!("d{number}"),
            Some(OTHER_MAC),
            Some(&address),
        ));
    }
    let mut slice = lan_slice(node, 600, devices);
    let first = slice.interfaces[0].clone();
    for port in 1..MANY.1 {
        let mut more = first.clone();
        more.name = format!("more-{port}");
        more.port = 10_000 + port;
        slice.interfaces.push(more);
    }
    slice
}

/// Prints how long it takes from the new slice to the last answer; tests/bench/README.md asks for more rounds.
#[test]
fn a_slice_ends_one_flow_among_a_thousand_leases_and_leaves_the_others_alone() {
    let Some(mut lan) = Lan::new() else {
        return skip();
    };
    lan.add("plc", PLC_MAC, 7);
    let fleet = Fleet::new();
    let mut node = node_on(&lan, &fleet);
    serve(&lan, PORT);
    node.start();
    publish(&node, many(&node, 0, true));
    eventually(SOON, "guarded", || lan.nft().contains("198.51.100.17"));
    let mut kept: Vec<Flow> = (0..20)
        .map(|_| lan.connect("plc", "198.51.100.7", NODE4, PORT).unwrap())
        .collect();
    for (what, churn) in [("two of a thousand leases", 0), ("all of them", 1)] {
        let took = rounds(&lan, &node, &mut kept, churn);
        println!(
            "{what}: median {:?}, most {:?}",
            took[took.len() / 2],
            took[took.len() - 1]
        );
    }
    node.stop();
}

fn rounds(lan: &Lan, node: &Lab, kept: &mut [Flow], churn: u64) -> Vec<Duration> {
    let mut took = Vec::new();
    let asked = std::env::var("EDGEWARD_ROUNDS").ok();
    let most = asked.and_then(|rounds| rounds.parse().ok()).unwrap_or(2);
    for round in 1..=most {
        let mut flow = lan.connect("plc", "198.51.100.17", NODE4, PORT).unwrap();
        let asking = std::thread::spawn(move || {
            let mut last = Instant::now();
            while flow.ask().is_ok() {
                last = Instant::now();
            }
            last
        });
        kept.iter_mut().for_each(|flow| flow.ask().unwrap());
        let begun = Instant::now();
        publish(node, many(node, round * churn, false));
        took.push(asking.join().unwrap().saturating_duration_since(begun));
        kept.iter_mut().for_each(|flow| flow.ask().unwrap());
        publish(node, many(node, round * churn, true));
        eventually(SOON, "open again", || {
            lan.reaches("plc", "198.51.100.17", NODE4, PORT)
        });
    }
    took.sort();
    took
}

/// The same port, forwarded by the gateway to what listens at [`OTHER_PORT`] of the node itself.
fn forwarded_slice(node: &Lab, port: u16) -> Slice {
    let devices = vec![device("plc", Some(PLC_MAC), Some("198.51.100.7"))];
    let mut slice = lan_slice(node, 600, devices);
    let interface = &mut slice.interfaces[0];
    interface.port = port;
    interface.to = Some(SocketAddr::new("127.0.0.1".parse().unwrap(), OTHER_PORT));
    slice
}

#[test]
fn what_listens_behind_a_forwarded_port_is_never_reached_past_the_gateway() {
    const FREE_PORT: u16 = 504;
    let Some(mut lan) = Lan::new() else {
        return skip();
    };
    lan.add("plc", PLC_MAC, 7);
    let fleet = Fleet::new();
    let mut node = node_on(&lan, &fleet);
    serve(&lan, PORT);
    serve(&lan, OTHER_PORT);
    node.start();
    let reaches = |port| lan.reaches("plc", "198.51.100.7", NODE4, port);
    assert!(reaches(PORT));

    // Somebody else listens at the port already, so the gateway cannot: the device is allowed in, but not to that.
    publish(&node, forwarded_slice(&node, PORT));
    eventually(SOON, "the port is guarded", || {
        lan.nft().contains("set guarded") && !reaches(PORT)
    });

    publish(&node, forwarded_slice(&node, FREE_PORT));
    eventually(SOON, "the gateway serves the port", || reaches(FREE_PORT));
    // What policy does not name any more is not ours.
    eventually(SOON, "the first port is not guarded any more", || {
        reaches(PORT)
    });

    // Without an agent the kernel closes the port by itself, whatever listens there then.
    node.stop();
    serve(&lan, FREE_PORT);
    eventually(Duration::from_secs(45), "the port closes", || {
        !reaches(FREE_PORT)
    });
    assert!(reaches(PORT));
}
