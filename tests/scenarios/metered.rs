//! What a node costs whose link is paid by the byte, with its challenges as they come: every byte on its cable.
//!
//! `tests/bench/tunnel/metered` asks for longer times and other values of `fresh`.

use std::time::{Duration, Instant};

use anyhow::Context;
use edgeward_tests::Lab;
use edgeward_tests::agent::Node;
use edgeward_tests::cloud::{CloudOptions, PORT};
use edgeward_tests::lab::{QUICKSTART_POLICY, copy_folder};
use edgeward_tests::netns::Host;
use edgeward_tests::process::run;

/// What an idle metered node may send and receive in a day where rules say nothing of `fresh`.
const DAY_BYTES: f64 = 1_000_000.0;
const DAY: f64 = 86_400.0;
/// `fresh` where a policy says nothing, in seconds.
const USUAL_FRESH: u64 = 600;
/// Challenges within one `fresh`: `ca/src/session/pace.rs`.
const PASSES: u64 = 3;
/// Challenges come earlier than a third of `fresh` by up to this share of it, evenly.
const JITTER: f64 = 1.0 / 16.0;
/// `fresh` here: what a challenge costs does not depend on how often it comes.
const FRESH: u64 = 48;
/// As the quickstart's policy says it.
const QUICKSTART_FRESH: &str = "\"10m\"";
/// Older than that by a minute: what its own tests take for too old.
const QUICKSTART_TOO_OLD: &str = "\"11m\"";
/// Longer than status and journal are gathered on a metered link.
const GATHERED: Duration = Duration::from_secs(75);
/// A challenge with its answer, its result and a heartbeat, headers and acknowledgements included.
const CHALLENGE_BYTES: u64 = 1_800;
const SAMPLE: Duration = Duration::from_millis(500);
/// How often the cloud is asked whether the node passed: so many times between two challenges.
const LOOKS: u64 = 8;
/// Before and after a look that found a pass, what came belongs to its challenge.
const AROUND: Duration = Duration::from_millis(1500);

/// The cable at one moment.
struct Sample {
    at: Instant,
    bytes: u64,
}

/// Between these two moments the node passed.
struct Pass {
    after: Instant,
    until: Instant,
}

/// What was seen.
#[derive(Debug, Default)]
struct Cost {
    challenges: u64,
    challenge_bytes: u64,
    /// Of the cheapest one: nothing else was told beside it.
    least: u64,
    quiet_bytes: u64,
    quiet_seconds: f64,
}

#[test]
fn an_idle_metered_node_costs_less_than_a_megabyte_a_day_with_its_challenges() -> anyhow::Result<()>
{
    let asked = |name: &str, default: u64| -> anyhow::Result<u64> {
        Ok(std::env::var(name).map_or(Ok(default), |text| text.parse())?)
    };
    let fresh = asked("EDGEWARD_METERED_FRESH", FRESH)?;
    let seconds = asked("EDGEWARD_METERED_SECONDS", 0)?;
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    lab.cloud
        .edgeward(&["policy", "apply", &policy_with(&lab, fresh)?])?;
    let node = lab.node("a")?;
    let config = node.folder().join("agent.toml");
    let before = std::fs::read_to_string(&config)?;
    std::fs::write(
        &config,
        format!("metered = true\nidle_after = \"4s\"\n{before}"),
    )?;
    let node = lab.enrolled(node, "gateway")?;
    let _b = lab.member("b", "machine")?;
    // Its peer keeps all bound, and it lets the bind go for which nobody has a use.
    lab.cloud
        .await_event(&["--type", "bind.closed", "--node", "b"])?;
    let port = format!(":{PORT}");
    let mut sockets = node.host().command("ss");
    let told = run(sockets.args(["-tnoH", "dport", "=", port.as_str()]))?;
    // Nobody pings: the kernel must find out where the session is gone.
    assert!(told.contains("keepalive"), "{told}");
    if seconds > 0 {
        // What enrolment and the bind have to tell is gathered for so long.
        std::thread::sleep(GATHERED);
    }
    let enough = match seconds {
        // One challenge at least, and quiet before or after it.
        0 => Duration::from_secs(fresh * 5 / 3 / PASSES),
        seconds => Duration::from_secs(seconds),
    };
    let (samples, passes) = watch(&lab, &node, fresh, enough)?;
    let cost = cost_of(&samples, &passes);
    anyhow::ensure!(cost.challenges > 0, "nothing was asked: {cost:?}");
    let (challenge, quiet) = (cost.challenge(), cost.quiet_a_second());
    println!(
        "| {fresh} | {} | {} | {challenge:.0} | {:.0} | {:.0} | {:.0} |",
        enough.as_secs(),
        cost.challenges,
        quiet * 60.0,
        a_day(&cost, fresh) / 1000.0,
        a_day(&cost, USUAL_FRESH) / 1000.0,
    );
    assert!(cost.least <= CHALLENGE_BYTES, "{cost:?}");
    if seconds > 0 {
        let day = a_day(&cost, USUAL_FRESH);
        assert!(day <= DAY_BYTES, "{day:.0} bytes a day: {cost:?}");
    }
    // The node is really asked, and really answers.
    let shown = lab.cloud.json(&["node", "show", "a"])?;
    assert_eq!(shown["state"], "trusted", "{shown:#}");
    Ok(())
}

impl Cost {
    fn challenge(&self) -> f64 {
        self.challenge_bytes as f64 / self.challenges as f64
    }

    fn quiet_a_second(&self) -> f64 {
        self.quiet_bytes as f64 / self.quiet_seconds.max(1.0)
    }
}

fn a_day(cost: &Cost, fresh: u64) -> f64 {
    let every = fresh as f64 / PASSES as f64 * (1.0 - JITTER / 2.0);
    cost.quiet_a_second() * DAY + cost.challenge() * DAY / every
}

/// Sums what came by challenges and between them.
fn cost_of(samples: &[Sample], passes: &[Pass]) -> Cost {
    let mut each = vec![0; passes.len()];
    let (mut quiet_bytes, mut quiet_seconds) = (0, 0.0);
    for pair in samples.windows(2) {
        let (bytes, took) = (pair[1].bytes - pair[0].bytes, pair[1].at - pair[0].at);
        let asked = passes.iter().position(|pass| {
            pair[1].at + AROUND >= pass.after && pair[0].at <= pass.until + AROUND
        });
        match asked {
            Some(number) => each[number] += bytes,
            None => {
                quiet_bytes += bytes;
                quiet_seconds += took.as_secs_f64();
            }
        }
    }
    Cost {
        challenges: each.len() as u64,
        challenge_bytes: each.iter().sum(),
        least: each.iter().copied().min().unwrap_or(u64::MAX),
        quiet_bytes,
        quiet_seconds,
    }
}

/// Until a moment between two challenges, the first one after `enough`.
fn watch(
    lab: &Lab,
    node: &Node,
    fresh: u64,
    enough: Duration,
) -> anyhow::Result<(Vec<Sample>, Vec<Pass>)> {
    let look = Duration::from_secs(fresh) / (PASSES * LOOKS) as u32;
    let passed = || -> anyhow::Result<String> {
        let shown = lab.cloud.json(&["node", "show", node.name()])?;
        Ok(shown["attested"].to_string())
    };
    let (begun, mut known) = (Instant::now(), passed()?);
    let (mut samples, mut passes, mut looked) = (Vec::new(), Vec::new(), Instant::now());
    loop {
        samples.push(Sample {
            at: Instant::now(),
            bytes: carried(node.host())?,
        });
        std::thread::sleep(SAMPLE);
        if looked.elapsed() < look {
            continue;
        }
        let (after, now) = (std::mem::replace(&mut looked, Instant::now()), passed()?);
        if std::mem::replace(&mut known, now.clone()) != now {
            let until = looked;
            passes.push(Pass { after, until });
        } else if begun.elapsed() >= enough && after.elapsed() >= AROUND {
            return Ok((samples, passes));
        }
    }
}

/// Bytes in and out of a host's cable, headers of Ethernet included.
fn carried(host: &Host) -> anyhow::Result<u64> {
    let namespace = std::fs::File::open(format!("/run/netns/{}", host.namespace()))?;
    let text = std::thread::scope(|scope| -> anyhow::Result<String> {
        scope
            .spawn(|| {
                nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
                Ok(std::fs::read_to_string("/proc/thread-self/net/dev")?)
            })
            .join()
            .map_err(|_| anyhow::anyhow!("a thread panicked"))?
    })?;
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("eth0:"))
        .context("no eth0")?;
    let columns: Vec<u64> = line
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let (received, sent) = (columns.first(), columns.get(8));
    received
        .zip(sent)
        .map(|(received, sent)| received + sent)
        .context("no counters")
}

/// The quickstart's policy with another `fresh`.
fn policy_with(lab: &Lab, fresh: u64) -> anyhow::Result<String> {
    let folder = lab.folder().join("metered-policy");
    copy_folder(QUICKSTART_POLICY.as_ref(), &folder)?;
    let mut changed = 0;
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path)?;
        changed += text.matches(QUICKSTART_FRESH).count();
        let text = text
            .replace(QUICKSTART_FRESH, &format!("\"{fresh}s\""))
            .replace(QUICKSTART_TOO_OLD, &format!("\"{}s\"", fresh + 60));
        std::fs::write(&path, text)?;
    }
    anyhow::ensure!(changed > 0, "the quickstart's policy says nothing of fresh");
    Ok(folder.to_string_lossy().into_owned())
}
