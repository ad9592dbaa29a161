//! The test network itself: a NAT that lets in what it should not would make every proof of reach worthless.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use edgeward_tests::impair::Faults;
use edgeward_tests::nat::{Nat, Site};
use edgeward_tests::netns::{Host, Network};
use edgeward_tests::process::run;

/// The inside's own port in every test.
const INSIDE: u16 = 5_000;

/// An exchange of datagrams as a script of one line each: who sends from which port to whom. The socket
/// listens on its port before, and what arrives there within half a second is printed as `ADDRESS PORT TEXT`.
const PEER: &str = r#"
import socket, sys, time
port, wait, sends = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("0.0.0.0", port))
for line in sends:
    address, to, text = line.split(",")
    s.sendto(text.encode(), (address, int(to)))
end = time.monotonic() + wait
while (left := end - time.monotonic()) > 0:
    s.settimeout(left)
    try:
        text, (address, source) = s.recvfrom(2048)
    except TimeoutError:
        break
    except OSError:
        continue
    print(address, source, text.decode(), flush=True)
"#;

struct Outside {
    network: Network,
    one: Host,
    two: Host,
}

fn outside() -> anyhow::Result<Outside> {
    edgeward_tests::require_root()?;
    let mut network = Network::new()?;
    let (one, two) = (network.host("one", 1)?, network.host("two", 2)?);
    Ok(Outside { network, one, two })
}

/// Sends and listens; what arrived.
fn talk(host: &Host, port: u16, wait: f32, sends: &[(String, &str)]) -> Command {
    let mut command = host.command("python3");
    command.args(["-c", PEER, &port.to_string(), &wait.to_string()]);
    for (to, text) in sends {
        command.arg(format!("{},{text}", to.replace(':', ",")));
    }
    command
}

/// Where `listener` sees the inside's port come from.
fn seen_by(listener: &Host, inside: &Host, text: &str) -> anyhow::Result<SocketAddr> {
    let ear = std::thread::spawn({
        let mut command = talk(listener, 7_000, 1.0, &[]);
        move || run(&mut command)
    });
    std::thread::sleep(Duration::from_millis(400));
    run(&mut talk(
        inside,
        INSIDE,
        0.0,
        &[(format!("{}:7000", listener.ipv4()), text)],
    ))?;
    let heard = ear
        .join()
        .map_err(|_| anyhow::anyhow!("the listener panicked"))??;
    let words: Vec<&str> = heard.split_whitespace().collect();
    anyhow::ensure!(words.len() == 3 && words[2] == text, "heard {heard:?}");
    Ok(format!("{}:{}", words[0], words[1]).parse()?)
}

/// Whether what `from` sends from `port` to `to` arrives at the inside's port.
fn gets_in(inside: &Host, from: &Host, port: u16, to: SocketAddr) -> anyhow::Result<bool> {
    let ear = std::thread::spawn({
        let mut command = talk(inside, INSIDE, 1.0, &[]);
        move || run(&mut command)
    });
    std::thread::sleep(Duration::from_millis(400));
    run(&mut talk(from, port, 0.0, &[(to.to_string(), "knock")]))?;
    let heard = ear
        .join()
        .map_err(|_| anyhow::anyhow!("the listener panicked"))??;
    Ok(heard.contains("knock"))
}

fn site(outside: &mut Outside, nat: Nat) -> anyhow::Result<(Site, Host)> {
    let mut site = outside.network.site("nat", 9, nat)?;
    let inside = outside.network.host_at(&mut site, "in")?;
    Ok((site, inside))
}

#[test]
fn a_full_cone_lets_everybody_in_once_the_inside_has_sent_to_anybody() -> anyhow::Result<()> {
    let mut outside = outside()?;
    let (site, inside) = site(&mut outside, Nat::FullCone)?;
    let before: SocketAddr = format!("{}:{INSIDE}", site.public()).parse()?;
    assert!(
        !gets_in(&inside, &outside.two, 7_000, before)?,
        "in without a mapping"
    );
    let seen = seen_by(&outside.one, &inside, "a")?;
    assert_eq!(seen, seen_by(&outside.two, &inside, "b")?);
    site.forget()?;
    let seen = seen_by(&outside.one, &inside, "c")?;
    assert!(gets_in(&inside, &outside.two, 7_001, seen)?, "not let in");
    Ok(())
}

#[test]
fn a_port_restricted_cone_maps_alike_and_lets_in_only_whom_the_inside_has_sent_to()
-> anyhow::Result<()> {
    let mut outside = outside()?;
    let (mut site, inside) = site(&mut outside, Nat::PortRestricted)?;
    let seen = seen_by(&outside.one, &inside, "a")?;
    assert_eq!(seen.ip().to_string(), site.public());
    assert!(
        !gets_in(&inside, &outside.two, 7_000, seen)?,
        "a stranger is let in"
    );
    assert!(
        !gets_in(&inside, &outside.one, 7_001, seen)?,
        "another port of a known address is let in"
    );
    assert!(gets_in(&inside, &outside.one, 7_000, seen)?, "not let in");
    // The stranger's knocks left no trace: the mapping towards it is still the same.
    assert_eq!(seen, seen_by(&outside.two, &inside, "b")?);

    let moved = site.rebind(&inside, INSIDE)?;
    assert!(
        !gets_in(&inside, &outside.one, 7_000, seen)?,
        "the old mapping lives"
    );
    let after = seen_by(&outside.one, &inside, "c")?;
    assert_eq!(after.port(), moved);
    assert_eq!(after, seen_by(&outside.two, &inside, "d")?);
    assert!(gets_in(&inside, &outside.one, 7_000, after)?, "not let in");
    assert_ne!(site.rebind(&inside, INSIDE)?, moved, "moved twice");
    assert_ne!(after, seen_by(&outside.one, &inside, "e")?);
    Ok(())
}

#[test]
fn two_hosts_behind_one_router_have_mappings_of_their_own() -> anyhow::Result<()> {
    let mut outside = outside()?;
    let (mut site, inside) = site(&mut outside, Nat::PortRestricted)?;
    let other = outside.network.host_at(&mut site, "in2")?;
    let (first, second) = (
        seen_by(&outside.one, &inside, "a")?,
        seen_by(&outside.one, &other, "b")?,
    );
    assert_eq!(first.ip(), second.ip());
    assert_ne!(first.port(), second.port());
    Ok(())
}

#[test]
fn a_symmetric_nat_shows_another_port_to_everybody() -> anyhow::Result<()> {
    let mut outside = outside()?;
    let (_site, inside) = site(&mut outside, Nat::Symmetric)?;
    let to_one = seen_by(&outside.one, &inside, "a")?;
    let to_two = seen_by(&outside.two, &inside, "b")?;
    assert_ne!(to_one.port(), to_two.port());
    assert!(
        !gets_in(&inside, &outside.two, 7_000, to_one)?,
        "a stranger is let in"
    );
    assert!(gets_in(&inside, &outside.one, 7_000, to_one)?, "not let in");
    Ok(())
}

#[test]
fn a_mapping_is_forgotten_after_its_time() -> anyhow::Result<()> {
    let mut outside = outside()?;
    let (site, inside) = site(&mut outside, Nat::PortRestricted)?;
    site.mapping_lasts(3)?;
    let seen = seen_by(&outside.one, &inside, "a")?;
    assert!(gets_in(&inside, &outside.one, 7_000, seen)?, "not let in");
    std::thread::sleep(Duration::from_millis(4_500));
    assert!(
        !gets_in(&inside, &outside.one, 7_000, seen)?,
        "the mapping outlives its time"
    );
    Ok(())
}

#[test]
fn where_only_tcp_to_known_ports_passes_no_datagram_does() -> anyhow::Result<()> {
    let mut outside = outside()?;
    let (_site, inside) = site(&mut outside, Nat::TcpOnly(&[443, 7_443]))?;
    assert!(
        seen_by(&outside.one, &inside, "a").is_err(),
        "a datagram passed"
    );
    for (port, passes) in [(7_443, true), (8_000, false)] {
        let accept = format!(
            "import socket; s = socket.create_server(('', {port})); s.settimeout(3); s.accept()[0].sendall(b'x')"
        );
        let mut server = outside.one.command("python3");
        let ear = std::thread::spawn(move || run(server.args(["-c", &accept])).is_ok());
        std::thread::sleep(Duration::from_millis(500));
        let connect = format!(
            "import socket; s = socket.create_connection(('{}', {port}), 1.5); assert s.recv(1) == b'x'",
            outside.one.ipv4()
        );
        let connected = run(inside.command("python3").args(["-c", &connect])).is_ok();
        let _timed_out = ear.join();
        assert_eq!(connected, passes, "port {port}");
    }
    Ok(())
}

#[test]
fn a_switch_loses_what_it_is_told_to() -> anyhow::Result<()> {
    let outside = outside()?;
    let answered = |percent| -> anyhow::Result<u32> {
        outside.network.lose(&outside.two, percent)?;
        let mut ping = outside.one.command("ping");
        ping.args(["-q", "-c", "300", "-i", "0.002", "-W", "1"]);
        let output = edgeward_tests::process::output(ping.arg(outside.two.ipv4()))?;
        let text = String::from_utf8(output.stdout)?;
        let received = text
            .split(", ")
            .find_map(|part| part.strip_suffix(" received"))
            .ok_or_else(|| anyhow::anyhow!("{text}"))?;
        Ok(received.parse()?)
    };
    assert_eq!(answered(0)?, 300);
    // Both ways: 0.8 * 0.8 come back.
    let some = answered(20)?;
    assert!((140..=240).contains(&some), "{some} of 300");
    assert_eq!(answered(100)?, 0);
    assert_eq!(answered(0)?, 300);
    Ok(())
}

#[test]
fn a_cable_has_the_faults_that_it_is_told() -> anyhow::Result<()> {
    let mut outside = outside()?;
    let (host, mut cable) = outside.network.host_by_cable("far", 5)?;
    // Replies per request, those that came twice counted, and the shortest round trip in milliseconds.
    let mut pings = |faults: &Faults, count: u32| -> anyhow::Result<(u32, f64)> {
        cable.set(faults)?;
        let mut ping = outside.one.command("ping");
        ping.args(["-c", &count.to_string(), "-i", "0.01", "-W", "1"]);
        let output = edgeward_tests::process::output(ping.arg(host.ipv4()))?;
        let text = String::from_utf8(output.stdout)?;
        let times: Vec<f64> = text
            .lines()
            .filter_map(|line| line.split_once("time=")?.1.split(' ').next()?.parse().ok())
            .collect();
        let shortest = times.iter().copied().fold(f64::INFINITY, f64::min);
        Ok((times.len() as u32, shortest))
    };
    let plain = pings(&Faults::default(), 50)?;
    assert_eq!(plain.0, 50);
    let slow = Faults {
        delay_ms: 30,
        ..Faults::default()
    };
    let (answers, shortest) = pings(&slow, 50)?;
    assert_eq!(answers, 50);
    assert!((60.0..200.0).contains(&shortest), "{shortest} ms");
    let twice = Faults {
        duplicate: 1_000,
        ..Faults::default()
    };
    assert!(pings(&twice, 20)?.0 > 20);
    let lossy = Faults {
        loss: 300,
        ..Faults::default()
    };
    let (some, _) = pings(&lossy, 100)?;
    assert!((20..80).contains(&some), "{some} of 100");
    let cut = Faults {
        cut: true,
        ..Faults::default()
    };
    assert_eq!(pings(&cut, 10)?.0, 0);
    assert_eq!(pings(&Faults::default(), 20)?.0, 20);
    Ok(())
}
