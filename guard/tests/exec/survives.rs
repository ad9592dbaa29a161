//! The guard's own death and standstill let nothing through.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::lab::{self, Lab, run, settle};
use edgeward_guard::book::Mode;
use edgeward_guard::control::Told;
use nix::sys::signal::{Signal, kill};

#[test]
fn a_watch_that_is_killed_is_replaced_and_nothing_runs_meanwhile() {
    let lab = Lab::new();
    let (good, bad) = (lab.program("good", ""), lab.program("bad", "x"));
    settle();
    let mut guarded = lab.guard(Mode::Enforce, &[&good]);
    for _ in 0..3 {
        guarded.heard.clear();
        kill(guarded.watch(), Signal::SIGKILL).unwrap();
        for _ in 0..20 {
            assert!(!run(&bad));
        }
        guarded.hears(|told| matches!(told, Told::Restarted { .. }));
        // Until the next one has heard the book it refuses everything.
        lab::eventually(|| run(&good).then_some(()));
        assert!(!run(&bad));
    }
}

#[test]
fn a_watch_that_stands_still_with_a_question_in_its_hands_is_replaced_within_its_time() {
    let lab = Lab::new();
    let (good, bad) = (lab.program("good", ""), lab.program("bad", "x"));
    settle();
    let mut guarded = lab.guard(Mode::Enforce, &[&good]);
    assert!(run(&good));
    // More often than a watch may die.
    for _ in 0..7 {
        guarded.heard.clear();
        kill(guarded.watch(), Signal::SIGSTOP).unwrap();
        let begun = Instant::now();
        assert!(!run(&bad));
        let waited = begun.elapsed();
        assert!(waited < Duration::from_secs(3), "{waited:?}");
        guarded.hears(|told| matches!(told, Told::Restarted { .. }));
        lab::eventually(|| run(&good).then_some(()));
    }
}

#[test]
fn questions_that_a_dying_watch_had_taken_are_refused_and_nobody_hangs() {
    let lab = Lab::new();
    // So large that reading it takes a while: the watch is killed in the middle.
    let bad = lab.program("bad", &"x".repeat(400 << 20));
    let mut guarded = lab.guard(Mode::Enforce, &[]);
    let running = std::thread::spawn({
        let bad = bad.clone();
        move || {
            (
                Command::new(&bad)
                    .status()
                    .is_ok_and(|status| status.success()),
                Instant::now(),
            )
        }
    });
    let watch = guarded.watch();
    let holds = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| std::fs::read_link(entry.path()).is_ok_and(|file| file == bad))
    };
    lab::eventually(|| {
        let mut open = std::fs::read_dir(format!("/proc/{watch}/fd")).unwrap();
        open.any(holds).then_some(())
    });
    kill(watch, Signal::SIGKILL).unwrap();
    let killed = Instant::now();
    let (ran, ended) = running.join().unwrap();
    assert!(!ran);
    assert!(ended.saturating_duration_since(killed) < Duration::from_secs(2));
    let told = guarded.hears(|told| matches!(told, Told::Restarted { .. }));
    assert!(matches!(told, Told::Restarted { refused: 1.. }), "{told:?}");
}

#[test]
fn a_watch_that_dies_again_and_again_shuts_the_volume_and_ends_the_applications() {
    let lab = Lab::new();
    let good = lab.program("good", "");
    settle();
    let app = lab.apps.child("app").unwrap();
    let mut guarded = lab.guard(Mode::Enforce, &[&good]);
    let mut command = Command::new("/bin/sh");
    let enter = format!(
        "echo 0 > {}/cgroup.procs; exec sleep 1000",
        app.folder().display()
    );
    let mut running = command.args(["-c", &enter]).spawn().unwrap();
    for _ in 0..6 {
        let watch = guarded.watch();
        kill(watch, Signal::SIGKILL).unwrap();
        lab::eventually(|| (kill(watch, None).is_err()).then_some(()));
    }
    guarded.hears(|told| *told == Told::Shut { ended: true });
    assert!(!running.wait().unwrap().success());
    assert!(!run(&good));
}

#[test]
fn a_watch_whose_supervisor_died_goes_on_answering_for_a_while() {
    let lab = Lab::new();
    let (good, bad) = (lab.program("good", ""), lab.program("bad", "x"));
    settle();
    let guarded = lab.guard(Mode::Enforce, &[&good]);
    let watch = guarded.watch();
    kill(guarded.supervisor(), Signal::SIGKILL).unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(8) {
        assert!(run(&good));
        assert!(!run(&bad));
    }
    // Another supervisor would have come long ago: it does not stay for ever.
    lab::eventually(|| kill(watch, None).is_err().then_some(()));
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert!(run(&bad));
}
