//! The table of attacks: what the guard stops on a volume, whoever tries, and what it does not.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::lab::{LOADER, Lab, digests, output, put, run, runs, settle};
use edgeward_guard::book::{Asked, Mode, Reason};
use edgeward_guard::control::Action;
use edgeward_guard::court::DEADLINE;
use edgeward_guard::digest::MAX_FILE_BYTES;

fn sh(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-ec", script]);
    command
}

#[test]
fn an_unlisted_program_does_not_run_and_a_listed_one_does() {
    let lab = Lab::new();
    let (good, bad) = (lab.program("good", ""), lab.program("bad", "x"));
    assert!(run(&bad), "without a guard it runs");
    let mut guarded = lab.guard(Mode::Enforce, &[&good]);
    assert!(run(&good));
    assert!(!run(&bad));
    let saw = guarded.saw(&bad);
    assert_eq!((saw.action, saw.asked), (Action::Denied, Asked::Exec));
    assert_eq!(saw.reason, Reason::NotListed);
    assert_eq!(saw.digest.as_ref(), digests(&[&bad]).keys().next());
}

#[test]
fn on_a_disks_file_system_the_same_holds() {
    let lab = Lab::on_ext4();
    let (good, bad) = (lab.program("good", ""), lab.program("bad", "x"));
    let script = lab.file("bad.sh", b"exit 0\n");
    settle();
    let mut guarded = lab.guard(Mode::Enforce, &[&good]);
    for _ in 0..3 {
        assert!(run(&good) && !run(&bad));
        assert!(!runs(Command::new("/bin/sh").arg(&script)));
    }
    std::fs::OpenOptions::new()
        .append(true)
        .open(&good)
        .unwrap()
        .write_all(b"x")
        .unwrap();
    assert!(!run(&good));
    guarded.take(Mode::Enforce, digests(&[&good]));
    assert!(run(&good));
}

#[test]
fn a_file_that_takes_long_to_read_holds_up_nobody_else_and_is_refused_in_time() {
    let lab = Lab::new();
    let good = lab.program("good", "");
    let long = lab.program("long", "");
    // Without a block of its own: it takes no memory, and as long as any other to read.
    std::fs::OpenOptions::new()
        .write(true)
        .open(&long)
        .unwrap()
        .set_len(MAX_FILE_BYTES)
        .unwrap();
    settle();
    let mut guarded = lab.guard(Mode::Enforce, &[&good]);
    assert!(run(&good));
    let begun = std::time::Instant::now();
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let long = long.clone();
            std::thread::spawn(move || run(&long))
        })
        .collect();
    while !waiting.iter().all(std::thread::JoinHandle::is_finished) {
        assert!(run(&good));
    }
    assert!(begun.elapsed() < DEADLINE * 3, "{:?}", begun.elapsed());
    assert!(waiting.into_iter().all(|thread| !thread.join().unwrap()));
    let reason = guarded.saw(&long).reason;
    assert!(
        matches!(reason, Reason::TooSlow | Reason::NotListed),
        "{reason:?}"
    );
}

#[test]
fn a_script_does_not_run_by_its_first_line_nor_by_its_interpreter() {
    let lab = Lab::new();
    let bad = lab.file("bad.sh", b"#!/bin/sh\nexit 0\n");
    assert!(run(&bad));
    let _guarded = lab.guard(Mode::Enforce, &[]);
    assert!(!run(&bad));
    assert!(!runs(Command::new("/bin/sh").arg(&bad)));
    assert!(!runs(sh(". $0").arg(&bad)));
}

#[test]
fn the_loader_neither_runs_an_unlisted_program_nor_preloads_an_unlisted_library() {
    let lab = Lab::new();
    let bad = lab.program("bad", "x");
    let library = lab.file(
        "evil.so",
        &std::fs::read("/lib/x86_64-linux-gnu/libm.so.6").unwrap(),
    );
    let mapped = || {
        let mut command = Command::new("/bin/cat");
        command.arg("/proc/self/maps").env("LD_PRELOAD", &library);
        let maps = output(&mut command).unwrap().stdout;
        String::from_utf8(maps).unwrap().contains("evil.so")
    };
    assert!(runs(Command::new(LOADER).arg(&bad)) && mapped());
    let _guarded = lab.guard(Mode::Enforce, &[]);
    assert!(!runs(Command::new(LOADER).arg(&bad)));
    assert!(!mapped());
}

#[test]
fn neither_another_mount_nor_a_namespace_leads_around_the_guard() {
    let lab = Lab::new();
    let bad = lab.program("bad", "x");
    let other = lab.outside("other");
    std::fs::create_dir(&other).unwrap();
    let script = format!(
        "mount --bind {} {1}; {1}/bad",
        lab.volume().display(),
        other.display()
    );
    let bound = || runs(Command::new("unshare").args(["-m", "sh", "-ec", &script]));
    let user = || {
        let mut command = Command::new("unshare");
        command.args(["-U", "-r", "-m"]).arg(&bad).uid(990).gid(990);
        runs(&mut command)
    };
    assert!(bound() && user());
    let _guarded = lab.guard(Mode::Enforce, &[]);
    assert!(!bound());
    assert!(!user());
}

#[test]
fn a_listed_program_that_is_changed_after_it_ran_runs_no_more() {
    let lab = Lab::new();
    let good = lab.program("good", "");
    settle();
    let guarded = lab.guard(Mode::Enforce, &[&good]);
    for _ in 0..3 {
        assert!(run(&good));
    }
    std::fs::OpenOptions::new()
        .append(true)
        .open(&good)
        .unwrap()
        .write_all(b"x")
        .unwrap();
    assert!(!run(&good));
    settle();
    assert!(!run(&good));
    drop(guarded);
}

#[test]
fn what_is_renamed_or_linked_into_the_place_of_a_listed_program_does_not_run() {
    let lab = Lab::new();
    let (good, bad) = (lab.program("good", ""), lab.program("bad", "x"));
    let second = lab.program("second", "x");
    settle();
    let _guarded = lab.guard(Mode::Enforce, &[&good]);
    assert!(run(&good));
    // Another name of the same file is the same file.
    let alias = good.with_file_name("alias");
    std::fs::hard_link(&good, &alias).unwrap();
    assert!(run(&alias));
    std::fs::rename(&bad, &good).unwrap();
    assert!(!run(&good));
    std::fs::remove_file(&alias).unwrap();
    std::fs::hard_link(&second, &alias).unwrap();
    assert!(!run(&alias));
}

#[test]
fn of_two_programs_that_change_places_all_the_time_only_the_listed_one_ever_runs() {
    let lab = Lab::new();
    let good = lab.file("good", b"#!/bin/sh\necho good\n");
    let bad = lab.file("bad", b"#!/bin/sh\necho bad\n");
    settle();
    let _guarded = lab.guard(Mode::Enforce, &[&good]);
    let (one, two) = (rustix::fs::CWD, rustix::fs::CWD);
    let begun = std::time::Instant::now();
    let turning = std::thread::spawn({
        let (good, bad) = (good.clone(), bad);
        move || {
            while begun.elapsed().as_millis() < 1500 {
                rustix::fs::renameat_with(one, &good, two, &bad, rustix::fs::RenameFlags::EXCHANGE)
                    .unwrap();
            }
        }
    });
    let (mut ran, mut refused) = (0, 0);
    while !turning.is_finished() {
        match output(&mut Command::new(&good)) {
            Some(output) if output.status.success() => {
                assert_eq!(output.stdout, b"good\n");
                ran += 1;
            }
            _ => refused += 1,
        }
    }
    turning.join().unwrap();
    assert!(ran > 0 && refused > 0, "{ran} ran, {refused} were refused");
}

#[test]
fn the_installer_may_open_what_is_not_listed_and_never_execute_it() {
    let lab = Lab::new();
    let bad = lab.program("bad", "x");
    let guarded = lab.guard(Mode::Enforce, &[]);
    let script = r#"
import os, socket, sys, time
agent = socket.socket(socket.AF_UNIX); agent.connect(sys.argv[1])
for _ in range(400):
    try: open(sys.argv[2]).close(); break
    except PermissionError: time.sleep(0.01)
else: sys.exit(1)
try: os.execv(sys.argv[2], ["bad"])
except PermissionError: sys.exit(42)"#;
    let mut installer = Command::new("python3");
    installer.args(["-c", script]);
    installer.args([&guarded.lab.outside("guard.sock"), &bad]);
    assert_eq!(output(&mut installer).unwrap().status.code(), Some(42));
    // It is gone, and its right with it.
    assert!(!runs(Command::new("/bin/cat").arg(&bad)));
}

#[test]
fn in_observe_mode_everything_runs_and_what_would_not_is_told() {
    let lab = Lab::new();
    let bad = lab.program("bad", "x");
    let mut guarded = lab.guard(Mode::Observe, &[]);
    assert!(run(&bad));
    let saw = guarded.saw(&bad);
    assert_eq!(
        (saw.action, saw.reason),
        (Action::WouldDeny, Reason::NotListed)
    );
    assert_eq!(saw.digest.as_ref(), digests(&[&bad]).keys().next());
}

#[test]
fn a_new_book_counts_at_once_also_for_what_the_kernel_no_longer_asked_about() {
    let lab = Lab::new();
    let good = lab.program("good", "");
    settle();
    let mut guarded = lab.guard(Mode::Enforce, &[&good]);
    for turn in 0..20 {
        assert!(run(&good), "{turn}");
        guarded.take(Mode::Enforce, digests(&[]));
        assert!(!run(&good), "{turn}");
        guarded.take(Mode::Enforce, digests(&[&good]));
    }
}

/// The guard opens what is asked about; newer kernels do not ask about pipes at all.
#[test]
fn a_pipe_on_the_volume_holds_nobody_up() {
    let lab = Lab::new();
    let good = lab.program("good", "");
    let pipe = lab.volume().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let _guarded = lab.guard(Mode::Enforce, &[&good]);
    let mut open = Command::new("timeout");
    let read = output(
        open.args(["5", "dd", "iflag=nonblock", "of=/dev/null"])
            .arg(format!("if={}", pipe.display())),
    );
    assert_ne!(read.unwrap().status.code(), Some(124), "it waited");
    assert!(run(&good));
}

/// What the guard alone does not see; the launcher's walls are for these.
#[test]
fn what_lies_outside_the_volume_runs() {
    let lab = Lab::new();
    let bad = lab.program("bad", "x");
    let copy = lab.outside("copy");
    put(&copy, &std::fs::read(&bad).unwrap());
    let _guarded = lab.guard(Mode::Enforce, &[]);
    assert!(run(&copy));
    let memfd = r#"
        open F, "<", "/bin/true"; binmode F; local $/; $b = <F>;
        $fd = syscall(319, $n = "x", 0); die if $fd < 0;
        open M, ">&=", $fd; binmode M; print M $b; M->flush;
        exec "/proc/$$/fd/$fd" or die"#;
    assert!(runs(Command::new("perl").args([
        "-MIO::Handle",
        "-e",
        memfd
    ])));
}

#[test]
fn an_overlay_over_the_volume_does_not_lead_around_the_guard() {
    let lab = Lab::new();
    let bad = lab.program("bad", "x");
    let work = lab.outside("work");
    std::fs::create_dir(&work).unwrap();
    let script = format!(
        "mount -t tmpfs t {0}; mkdir {0}/u {0}/w {0}/m; mount -t overlay -o lowerdir={1},upperdir={0}/u,workdir={0}/w o {0}/m; {0}/m/bad",
        work.display(),
        lab.volume().display()
    );
    let over = || runs(Command::new("unshare").args(["-m", "sh", "-ec", &script]));
    assert!(over());
    let _guarded = lab.guard(Mode::Enforce, &[]);
    assert!(!run(&bad));
    assert!(!over());
}

/// The kernel says nothing of a write through shared memory: a listed file must never have been open for writing by
/// another than the installer.
#[test]
fn a_write_through_memory_is_not_noticed_before_the_next_reading() {
    let lab = Lab::new();
    let good = lab.file("good", b"#!/bin/sh\nexit 0 #a\n");
    settle();
    let _guarded = lab.guard(Mode::Enforce, &[&good]);
    assert!(run(&good) && run(&good));
    let script = r##"
import mmap, sys
with open(sys.argv[1], "r+b") as f:
    m = mmap.mmap(f.fileno(), 0); at = m.find(b"#a"); m[at:at + 2] = b"#b"; m.flush()"##;
    assert!(runs(
        Command::new("python3").args(["-c", script]).arg(&good)
    ));
    assert!(run(&good));
}
