//! The guard's own death and standstill let nothing through.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::lab::{self, Lab, run, settle};
use edgeward_guard::book::{Book, Mode};
use edgeward_guard::control::{Order, Told, line};
use edgeward_guard::group::Group;
use edgeward_guard::volume::Volume;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

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

/// A watch of this test's own over the volume, on a thread that the kernel may have been told something about.
fn watch_over(lab: &Lab, confine: impl FnOnce() + Send + 'static) -> (Child, UnixStream, Group) {
    let volume = Volume::open(&lab.volume()).unwrap();
    let group = Group::over(&volume).unwrap();
    let handle = group.handle().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let start = move || {
        confine();
        let mut command = Command::new(lab::GUARD);
        command.arg("watch").env_clear().stdin(Stdio::from(handle));
        command.stdout(OwnedFd::from(theirs)).spawn().unwrap()
    };
    let watch = std::thread::spawn(start).join().unwrap();
    (watch, ours, group)
}

/// Whether it ends long before one that waits for another supervisor would.
fn ends_at_once(mut watch: Child) -> bool {
    let begun = Instant::now();
    while watch.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(5) {
            watch.kill().unwrap();
            watch.wait().unwrap();
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    true
}

/// It would go on letting run what the book before it listed; its end refuses everything.
#[test]
fn a_watch_that_cannot_take_a_book_ends_at_once() {
    let lab = Lab::new();
    let listed = lab::digests(&[&lab.program("good", "")]);
    let book = Order::Book(Book::new(1, Mode::Enforce, listed).unwrap());
    let (watch, mut socket, _group) = watch_over(&lab, || {
        let refused = BTreeMap::from([(nix::libc::SYS_fanotify_mark, Vec::new())]);
        let no_memory = SeccompAction::Errno(nix::libc::ENOMEM.unsigned_abs());
        let here = TargetArch::try_from(std::env::consts::ARCH).unwrap();
        let filter = SeccompFilter::new(refused, SeccompAction::Allow, no_memory, here).unwrap();
        let program: BpfProgram = filter.try_into().unwrap();
        seccompiler::apply_filter(&program).unwrap();
    });
    socket.write_all(&line(&book).unwrap()).unwrap();
    assert!(ends_at_once(watch));
}

#[test]
fn a_watch_that_is_told_what_it_does_not_understand_ends_at_once() {
    let lab = Lab::new();
    for words in [
        &b"{}\n"[..],
        &line(&Order::Make {
            name: "app".to_owned(),
        })
        .unwrap(),
    ] {
        let (watch, mut socket, _group) = watch_over(&lab, || ());
        socket.write_all(words).unwrap();
        assert!(ends_at_once(watch));
    }
}

/// What is meant for one volume must not be left to the next with its number, nor be taken from one that is in use.
#[test]
fn the_unit_of_the_volume_takes_programs_away_only_when_it_is_mounted_no_more() {
    let unit = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../deploy/systemd/edgeward-apps-volume.service"
    );
    let unit = std::fs::read_to_string(unit).unwrap();
    let lab = Lab::new();
    let (at, pins) = (lab.outside("apps"), lab.outside("pins"));
    let pinned = pins.join("edgeward-guard-7-1");
    std::fs::create_dir(&at).unwrap();
    std::fs::create_dir_all(&pinned).unwrap();
    let script = unit.lines().find_map(|line| {
        let script = line.strip_prefix("ExecStopPost=-/bin/sh -c '")?;
        script.strip_suffix('\'')
    });
    let script = script.unwrap();
    assert!(script.contains("/sys/fs/bpf/"), "{script}");
    let script = script
        .replace("/var/lib/edgeward-apps", &at.display().to_string())
        .replace("/sys/fs/bpf", &pins.display().to_string());
    let stopped = || lab::output(Command::new("/bin/sh").args(["-c", &script])).unwrap();
    let none = None::<&str>;
    mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), none).unwrap();
    stopped();
    assert!(pinned.exists(), "somebody holds the volume still");
    umount2(&at, MntFlags::empty()).unwrap();
    stopped();
    assert!(!pinned.exists());
}
