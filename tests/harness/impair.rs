//! A cable with faults: delay, jitter, loss, reordering, duplication, corruption, and a cut. The kernels that
//! tests run on have no netem, so frames pass through a process of our own between two TAP devices.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::Context as _;

use crate::bin_dir;
use crate::lab::Lab;
use crate::netns::{Host, Network, ip};

mod line;

pub use line::{Line, QUEUE_FRAMES, Random};

/// How long the process may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// What happens to the frames of one direction. Shares are of a thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    pub delay_ms: u32,
    /// Up to this much is added, in order.
    pub jitter_ms: u32,
    pub loss: u32,
    /// These come [`Faults::LATE_MS`] later than in order.
    pub reorder: u32,
    pub duplicate: u32,
    /// One bit of these is turned.
    pub corrupt: u32,
    /// Nothing passes.
    pub cut: bool,
}

/// A host's cable. Without faults until told; gone with the process.
#[derive(Debug)]
pub struct Cable {
    child: Child,
    orders: ChildStdin,
    answers: Receiver<String>,
}

impl Faults {
    /// How late a reordered frame is.
    pub const LATE_MS: u32 = 5;

    /// The words of one order.
    pub fn words(&self) -> String {
        format!(
            "{} {} {} {} {} {} {}",
            self.delay_ms,
            self.jitter_ms,
            self.loss,
            self.reorder,
            self.duplicate,
            self.corrupt,
            u32::from(self.cut)
        )
    }

    pub fn parse(words: &str) -> anyhow::Result<Self> {
        let numbers = words
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<Vec<u32>, _>>()?;
        let [delay_ms, jitter_ms, loss, reorder, duplicate, corrupt, cut] = numbers[..] else {
            anyhow::bail!("not seven numbers: {words}");
        };
        anyhow::ensure!(
            [loss, reorder, duplicate, corrupt]
                .iter()
                .all(|share| *share <= 1_000),
            "more than all of the frames: {words}"
        );
        Ok(Self {
            delay_ms,
            jitter_ms,
            loss,
            reorder,
            duplicate,
            corrupt,
            cut: cut != 0,
        })
    }
}

impl Cable {
    /// Both directions alike from now on. Returns when it is so.
    pub fn set(&mut self, faults: &Faults) -> anyhow::Result<()> {
        writeln!(self.orders, "both {}", faults.words())?;
        self.answered("set")
    }

    /// One direction only, as seen from the host.
    pub fn set_outgoing(&mut self, faults: &Faults) -> anyhow::Result<()> {
        writeln!(self.orders, "out {}", faults.words())?;
        self.answered("set")
    }

    fn lay(host: &Host) -> anyhow::Result<Self> {
        let socket = host.socket();
        // Made here under names of their own, then moved to where they belong.
        let (near, far) = (scratch(), scratch());
        let mut child = Command::new(bin_dir()?.join("edgeward-impair"))
            .args([&near, &far])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("edgeward-impair")?;
        let orders = child.stdin.take().context("no orders")?;
        let output = BufReader::new(child.stdout.take().context("no answers")?);
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let cable = Self {
            child,
            orders,
            answers,
        };
        cable.answered("ready")?;
        for (device, namespace, name) in [
            (&near, host.namespace(), "eth0"),
            (&far, socket.namespace(), socket.port()),
        ] {
            ip(&["link", "set", device, "netns", namespace, "name", name])?;
        }
        Ok(cable)
    }

    fn answered(&self, expected: &str) -> anyhow::Result<()> {
        let answer = self
            .answers
            .recv_timeout(ANSWER)
            .context("edgeward-impair does not answer")?;
        anyhow::ensure!(answer == expected, "edgeward-impair says {answer:?}");
        Ok(())
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _ended_already = self.child.wait();
    }
}

impl Network {
    /// As [`Network::host`], on a cable whose faults the test sets.
    pub fn host_by_cable(&mut self, name: &str, number: u8) -> anyhow::Result<(Host, Cable)> {
        let mut cable = None;
        let host = self.host_by(name, number, |host| {
            cable = Some(Cable::lay(host)?);
            Ok(())
        })?;
        Ok((host, cable.context("no cable")?))
    }
}

impl Lab {
    /// A machine on a cable whose faults the test sets, its TPM on.
    pub fn node_by_cable(&mut self, name: &str) -> anyhow::Result<(crate::agent::Node, Cable)> {
        let number = self.number()?;
        let (host, cable) = self.network.host_by_cable(name, number)?;
        let mut node = self.node_on(&host, name)?;
        node.tpm.power_on()?;
        Ok((node, cable))
    }
}

/// A name for a device that no other test has.
fn scratch() -> String {
    static DEVICES: AtomicU32 = AtomicU32::new(0);
    let number = DEVICES.fetch_add(1, Ordering::Relaxed);
    format!("ewi{}-{number}", std::process::id())
}

#[cfg(test)]
mod tests;
