//! Management and data apart: a tunnel that carries all it can is cut as fast as an idle one.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use edgeward_tests::Lab;
use edgeward_tests::agent::Node;
use edgeward_tests::cloud::CloudOptions;
use edgeward_tests::eventually::eventually;

use crate::traffic::overlay;

/// Open by the quickstart's policy, for gateways.
const STATUS: u16 = 8080;
/// Streams that fill the tunnel.
const STREAMS: usize = 4;
/// What counts as a full tunnel here: far more than any control traffic, reached on a machine that is busy too.
const SATURATED_BYTES_PER_SECOND: u64 = 10_000_000;
/// From the order to the last byte, on a machine that runs other scenarios beside this one.
const DARK_WITHIN: Duration = Duration::from_secs(8);
/// A connection with nothing on the wire is given up after this long.
const STALLED: Duration = Duration::from_secs(2);

/// Bytes that came through, and when the last did, in microseconds since the start.
struct Meter {
    started: Instant,
    bytes: AtomicU64,
    last: AtomicU64,
    stop: AtomicBool,
}

#[test]
fn a_saturated_tunnel_goes_dark_as_fast_as_an_idle_one() -> anyhow::Result<()> {
    // `tests/bench/tunnel/cut` asks for more.
    let count = |name: &str, default: u64| -> anyhow::Result<u64> {
        Ok(std::env::var(name).map_or(Ok(default), |text| text.parse())?)
    };
    let (cuts, dark) = (
        count("EDGEWARD_CUTS", 2)?,
        count("EDGEWARD_DARK_SECONDS", 5)?,
    );
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    let a = lab.member("a", "gateway")?;
    let mut b = lab.member("b", "machine")?;
    let meter = Arc::new(Meter {
        started: Instant::now(),
        bytes: AtomicU64::new(0),
        last: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    let threads = saturate(&a, &b, &meter)?;
    let mut took = Vec::new();
    for cut in 0..cuts {
        await_saturation(&meter)?;
        let ordered = meter.started.elapsed();
        lab.cloud.edgeward(&["node", "quarantine", "b"])?;
        // Longer after the last one: it stays dark however long the other side goes on.
        let quiet = Duration::from_secs(if cut + 1 == cuts { dark } else { 2 });
        let last = await_dark(&meter, quiet)?;
        took.push(last.saturating_sub(ordered));
        lab.cloud.edgeward(&["node", "release", "b"])?;
        if cut > 0 && cut + 1 < cuts {
            // An agent that was turned away again and again waits longer before it asks; a new one asks at once.
            b.stop()?;
            b.start()?;
        }
    }
    println!("dark for {dark} s after the last one, while the other side went on");
    // Back again: the cuts left nothing that blocks.
    await_saturation(&meter)?;
    meter.stop.store(true, Ordering::SeqCst);
    for thread in threads {
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("a stream panicked"))?;
    }
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share).ceil() as usize];
    println!(
        "{cuts} cuts of a saturated tunnel, from the order to the last byte: p50 {} ms, p99 {} ms, worst {} ms",
        at(0.5).as_millis(),
        at(0.99).as_millis(),
        at(1.0).as_millis()
    );
    assert!(at(1.0) < DARK_WITHIN, "{took:?}");
    Ok(())
}

/// Fills the tunnel from `a` to `b` until told to stop, through every cut.
fn saturate(
    a: &Node,
    b: &Node,
    meter: &Arc<Meter>,
) -> anyhow::Result<Vec<std::thread::JoinHandle<()>>> {
    let target = SocketAddr::new(IpAddr::V6(overlay(b)?), STATUS);
    let listener = b
        .host()
        .inside(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, STATUS)))??;
    listener.set_nonblocking(true)?;
    let mut threads = vec![std::thread::spawn({
        let meter = Arc::clone(meter);
        move || serve(&listener, &meter)
    })];
    for _ in 0..STREAMS {
        let (host, meter) = (a.host().clone(), Arc::clone(meter));
        threads.push(std::thread::spawn(move || {
            let _no_namespace = host.inside(|| push(target, &meter));
        }));
    }
    Ok(threads)
}

fn serve(listener: &TcpListener, meter: &Arc<Meter>) {
    let mut readers = Vec::new();
    while !meter.stop.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((stream, _)) => {
                let meter = Arc::clone(meter);
                readers.push(std::thread::spawn(move || read(stream, &meter)));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    for reader in readers {
        let _ended = reader.join();
    }
}

fn read(mut stream: TcpStream, meter: &Meter) {
    let mut buffer = vec![0; 1 << 18];
    let _blocking = stream.set_nonblocking(false);
    let _bounded = stream.set_read_timeout(Some(STALLED));
    while !meter.stop.load(Ordering::SeqCst) {
        match stream.read(&mut buffer) {
            Ok(length) if length > 0 => {
                let now = meter.started.elapsed().as_micros() as u64;
                meter.bytes.fetch_add(length as u64, Ordering::SeqCst);
                meter.last.fetch_max(now, Ordering::SeqCst);
            }
            _ => return,
        }
    }
}

/// Sends all it can; connects again whenever the connection is gone.
fn push(target: SocketAddr, meter: &Meter) {
    let block = vec![0x55; 1 << 18];
    while !meter.stop.load(Ordering::SeqCst) {
        let Ok(mut stream) = TcpStream::connect_timeout(&target, Duration::from_secs(1)) else {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        let _bounded = stream.set_write_timeout(Some(STALLED));
        while !meter.stop.load(Ordering::SeqCst) {
            if stream.write_all(&block).is_err() {
                break;
            }
        }
    }
}

fn await_saturation(meter: &Meter) -> anyhow::Result<()> {
    eventually("the tunnel is full", Duration::from_secs(60), || {
        let before = meter.bytes.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_secs(1));
        let passed = meter.bytes.load(Ordering::SeqCst) - before;
        anyhow::ensure!(passed > SATURATED_BYTES_PER_SECOND, "{passed} bytes/s");
        Ok(())
    })
}

/// Waits until nothing has come for `quiet`; when the last byte came.
fn await_dark(meter: &Meter, quiet: Duration) -> anyhow::Result<Duration> {
    let last = || Duration::from_micros(meter.last.load(Ordering::SeqCst));
    eventually("nothing comes any more", quiet + DARK_WITHIN, || {
        let silent = meter.started.elapsed().saturating_sub(last());
        anyhow::ensure!(silent >= quiet, "the last byte came {silent:?} ago");
        Ok(())
    })?;
    Ok(last())
}
