//! The agent is killed, or the power is cut, at any moment.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::wait::{WaitPidFlag, waitpid};

use super::super::super::testing::with_own_mounts;
use super::*;

const VOLUME: &str = "EDGEWARD_TEST_APPS_GROUND";
const KILLS: u64 = 50;
const POWER_CUTS: u64 = 12;
const VERSIONS: u64 = 60;
const DISKS: [&str; 2] = ["state", "volume"];

/// Installs one version after the other until somebody stops it, and says which are in use.
fn install_on(ground: &Path) {
    let volume = Volume::open(&ground.join("volume")).unwrap();
    let limits = super::super::super::testing::LIMITS;
    let (installer, _) = Installer::open(volume, &ground.join("state"), limits).unwrap();
    let mut published = Published::new();
    let first = current(&installer).map_or(1, |version| version.parse::<u64>().unwrap() + 1);
    for version in first..first + VERSIONS {
        release(&mut published, &version.to_string());
        install(&installer, &mut published, APP);
        println!("in use: {version}");
    }
}

/// This test's own program, told to install.
fn installer_on(ground: &Path, test: &str) -> std::process::Child {
    let name = format!("apps::installer::tests::stopped::{test}");
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture", "--test-threads=1"])
        .env(VOLUME, ground)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Reads until the first version is in use, then gives the pipe back.
fn first_in_use(out: &mut impl BufRead) -> u64 {
    let mut line = String::new();
    loop {
        line.clear();
        assert_ne!(out.read_line(&mut line).unwrap(), 0, "it ended");
        if let Some(version) = line.trim().strip_prefix("in use: ") {
            return version.parse().unwrap();
        }
    }
}

fn last_in_use(out: impl BufRead, first: u64) -> u64 {
    out.lines()
        .map_while(Result::ok)
        .filter_map(|line| line.strip_prefix("in use: ").and_then(|it| it.parse().ok()))
        .last()
        .unwrap_or(first)
}

/// Both images as they were at one moment. Their file systems write on their own too: read in turn until neither
/// changed between two readings, so that both were as read when the first reading ended.
fn at_one_moment(ground: &Path) -> [Vec<u8>; 2] {
    let read = || DISKS.map(|name| std::fs::read(ground.join(format!("{name}.img"))).unwrap());
    let mut last = read();
    for _ in 0..50 {
        let now = read();
        if now == last {
            return now;
        }
        last = now;
    }
    panic!("the images never rest");
}

fn wait(millis: u64) {
    let (_keep, never) = std::sync::mpsc::channel::<()>();
    let _ = never.recv_timeout(Duration::from_millis(millis));
}

#[test]
fn an_agent_that_is_killed_at_any_moment_leaves_a_whole_release_in_use() {
    if let Some(ground) = std::env::var_os(VOLUME) {
        return install_on(Path::new(&ground));
    }
    with_own_mounts(|| {
        let ground = Ground::mounted(16 << 20, &[]);
        let mut swept = 0;
        for run in 0..KILLS {
            let mut child = installer_on(
                ground.path(),
                "an_agent_that_is_killed_at_any_moment_leaves_a_whole_release_in_use",
            );
            let mut out = BufReader::new(child.stdout.take().unwrap());
            let first = first_in_use(&mut out);
            wait(run * 7 % 61);
            child.kill().unwrap();
            child.wait().unwrap();
            let said = last_in_use(out, first);
            let staging = ground.volume().join(".staging");
            swept += std::fs::read_dir(staging).unwrap().count();
            let (installer, _) = ground.open();
            let used: u64 = current(&installer).unwrap().parse().unwrap();
            assert!(used == said || used == said + 1, "{used} after {said}");
            assert_sound(&ground, &installer);
        }
        assert!(swept > 0, "no kill met a staging");
    });
}

#[test]
fn a_power_cut_at_any_moment_leaves_a_whole_release_in_use() {
    if let Some(ground) = std::env::var_os(VOLUME) {
        return install_on(Path::new(&ground));
    }
    with_own_mounts(|| {
        let mut ground = Ground::mounted(16 << 20, &[]);
        let (image, state) = (ground.path().join("state.img"), ground.state());
        ground.mount(&image, &state, 16 << 20, &[]);
        for run in 0..POWER_CUTS {
            let mut child = installer_on(
                ground.path(),
                "a_power_cut_at_any_moment_leaves_a_whole_release_in_use",
            );
            let mut out = BufReader::new(child.stdout.take().unwrap());
            let first = first_in_use(&mut out);
            wait(run * 11 % 47);
            let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
            waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
            // What reached the images by now is what a disk would have: the rest is in the kernel's memory.
            let mut after = Ground::new();
            for (name, bytes) in DISKS.iter().zip(at_one_moment(ground.path())) {
                let copy = after.path().join(format!("{name}.img"));
                std::fs::write(&copy, bytes).unwrap();
                let folder = after.path().join(name);
                after.mount_again(&copy, &folder);
            }
            child.kill().unwrap();
            child.wait().unwrap();
            let said = last_in_use(out, first);
            let (installer, _) = after.open();
            let used: u64 = current(&installer).unwrap().parse().unwrap();
            assert!(used == said || used == said + 1, "{used} after {said}");
            assert_sound(&after, &installer);
        }
    });
}
