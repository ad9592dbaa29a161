//! Limits that the group of an application holds, told by the kernel's own counts.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::lab::{Lab, eventually};
use edgeward_guard::cgroup::Cgroup;
use edgeward_guard::launch::order::Limits;

/// A group below that of all, as the supervisor makes it, with a shell in it.
fn limited(limits: &Limits, script: &str) -> (Lab, Cgroup, std::process::Child) {
    let lab = Lab::new();
    let apps = Cgroup::of_all(lab.apps.folder()).unwrap();
    let group = apps.child("app").unwrap();
    assert_eq!(group.limit(limits).unwrap(), Vec::<&str>::new());
    let enter = format!("echo $$ >\"$0/cgroup.procs\"; {script}");
    let child = Command::new("sh")
        .args(["-c", &enter])
        .arg(group.folder())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    (lab, group, child)
}

fn count(folder: &Path, file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(folder.join(file)).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap().parse().unwrap()
}

#[test]
fn tasks_beyond_the_limit_of_the_group_are_not_made() {
    let limits = Limits {
        tasks: Some(4),
        ..Limits::default()
    };
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; sleep 1000";
    let (_lab, group, mut child) = limited(&limits, script);
    eventually(|| (count(group.folder(), "pids.events", "max") > 0).then_some(()));
    let current = std::fs::read_to_string(group.folder().join("pids.current")).unwrap();
    assert!(current.trim().parse::<u64>().unwrap() <= 4, "{current}");
    group.end(Duration::from_secs(5)).unwrap();
    child.wait().unwrap();
}

#[test]
fn memory_beyond_the_limit_of_the_group_ends_the_application() {
    let limits = Limits {
        memory_bytes: Some(64 << 20),
        ..Limits::default()
    };
    // Held by several processes together, none of which takes too much by itself.
    let take = "for i in 1 2 3 4; do perl -e '$x = \"x\" x (30 << 20); sleep 1000' & done; wait";
    let (_lab, group, mut child) = limited(&limits, take);
    eventually(|| (count(group.folder(), "memory.events", "oom_kill") > 0).then_some(()));
    let peak = std::fs::read_to_string(group.folder().join("memory.peak")).unwrap();
    assert!(peak.trim().parse::<u64>().unwrap() <= 64 << 20, "{peak}");
    group.end(Duration::from_secs(5)).unwrap();
    child.wait().unwrap();
}

#[test]
fn a_share_of_a_processor_is_all_that_the_group_gets() {
    let limits = Limits {
        cpu_percent: Some(20),
        ..Limits::default()
    };
    let (_lab, group, mut child) = limited(&limits, "while :; do :; done & while :; do :; done");
    eventually(|| (count(group.folder(), "cpu.stat", "nr_throttled") > 2).then_some(()));
    let used = || count(group.folder(), "cpu.stat", "usage_usec");
    let (begun, before) = (Instant::now(), used());
    std::thread::park_timeout(Duration::from_secs(3));
    let share = (used() - before) as f64 / begun.elapsed().as_micros() as f64;
    assert!(share < 0.25, "{share}");
    group.end(Duration::from_secs(5)).unwrap();
    child.wait().unwrap();
}

#[test]
fn a_group_is_frozen_and_killed_with_all_that_forks_in_it() {
    let forks = "exec perl -e 'fork while 1'";
    let limits = Limits {
        tasks: Some(16),
        ..Limits::default()
    };
    let (_lab, group, mut child) = limited(&limits, forks);
    eventually(|| (count(group.folder(), "pids.events", "max") > 0).then_some(()));
    let begun = Instant::now();
    group.end(Duration::from_secs(5)).unwrap();
    assert!(group.is_empty().unwrap());
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    child.wait().unwrap();
}
