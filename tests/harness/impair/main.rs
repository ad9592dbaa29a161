//! The process behind [`edgeward_tests::impair::Cable`]: two TAP devices and what happens between them.
//!
//! `edgeward-impair NEAR FAR` makes both, says `ready`, then reads orders, one a line: `both FAULTS` or
//! `out FAULTS`, and says `set`. Ends with its input.

#![expect(
    clippy::disallowed_methods,
    reason = "a process of the test network: it has no clock to turn and nothing to shut down"
)]

use std::io::{BufRead as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use edgeward_tests::impair::{Faults, Line};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

/// Longest frame, in bytes: an MTU of 1500 with the Ethernet header and a tag.
const FRAME: usize = 1_518;
/// How soon new faults reach a line that waits, in milliseconds.
const LOOK_MS: u64 = 20;

fn main() -> anyhow::Result<()> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let [near, far] = &names[..] else {
        anyhow::bail!("usage: edgeward-impair NEAR FAR");
    };
    let (near, far) = (Arc::new(device(near)?), Arc::new(device(far)?));
    let lines = [
        start(near.clone(), far.clone(), 1),
        start(far.clone(), near.clone(), 2),
    ];
    println!("ready");
    for order in std::io::stdin().lock().lines() {
        let order = order?;
        let (which, words) = order.split_once(' ').context("an order has two parts")?;
        let faults = Faults::parse(words)?;
        let count = match which {
            "both" => 2,
            "out" => 1,
            other => anyhow::bail!("no such direction: {other}"),
        };
        for line in &lines[..count] {
            lock(line).set(faults);
        }
        println!("set");
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn device(name: &str) -> anyhow::Result<SyncDevice> {
    let device = DeviceBuilder::new()
        .name(name)
        .layer(Layer::L2)
        .build_sync()
        .with_context(|| format!("cannot make {name}"))?;
    device.set_nonblocking(true)?;
    Ok(device)
}

fn start(from: Arc<SyncDevice>, to: Arc<SyncDevice>, seed: u64) -> Arc<Mutex<Line>> {
    let line = Arc::new(Mutex::new(Line::new(seed)));
    let running = line.clone();
    std::thread::spawn(move || {
        if let Err(error) = pass(&from, &to, &running) {
            eprintln!("edgeward-impair: {error:#}");
            std::process::exit(1);
        }
    });
    line
}

/// Takes frames from one device and gives them to the other when their time comes.
fn pass(from: &SyncDevice, to: &SyncDevice, line: &Mutex<Line>) -> anyhow::Result<()> {
    let (started, mut buffer) = (Instant::now(), [0; FRAME]);
    loop {
        let mut line_now = lock(line);
        while let Some(frame) = line_now.leave(started.elapsed()) {
            // A device that is down or full loses the frame, as a cable does.
            let _lost = to.send(&frame);
        }
        let wait = line_now.due().map_or(LOOK_MS, |leaves| {
            let left = leaves.saturating_sub(started.elapsed());
            (left.as_micros() as u64).div_ceil(1_000).min(LOOK_MS)
        });
        drop(line_now);
        let mut readable = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        let ready = poll(
            &mut readable,
            PollTimeout::try_from(Duration::from_millis(wait))?,
        )?;
        if ready == 0 {
            continue;
        }
        let mut line_now = lock(line);
        // A bounded batch, so that what is due leaves under load.
        for _ in 0..64 {
            match from.recv(&mut buffer) {
                Ok(length) => line_now.accept(buffer[..length].to_vec(), started.elapsed()),
                // While the device is down or moves between namespaces there is nothing to read.
                Err(_) => {
                    if readable[0]
                        .revents()
                        .is_some_and(|events| events.contains(PollFlags::POLLERR))
                    {
                        drop(line_now);
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    break;
                }
            }
        }
    }
}

fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}
