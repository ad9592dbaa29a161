//! Many questions at once, a full queue, and the watch killed in each state it can be in: nothing is let through, nobody
//! hangs, and afterwards everything is as before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::lab::{Guarded, Lab, digests, eventually, run, settle};
use edgeward_guard::book::{Mode, Reason};
use edgeward_guard::control::{Order, Told};
use edgeward_guard::court::DEADLINE;
use edgeward_guard::digest::MAX_FILE_BYTES;
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

/// Opens every file of a folder at once, each in a thread, and says what came of it: `python3 -c OPENERS FOLDER`.
const OPENERS: &str = r#"
import json, os, sys, threading, time
threading.stack_size(65536)
counts, slowest, lock = {}, 0, threading.Lock()
def attempt(path):
    global slowest
    begun = time.monotonic()
    try: os.close(os.open(path, os.O_RDONLY)); what = "opened"
    except PermissionError: what = "refused"
    with lock:
        counts[what] = counts.get(what, 0) + 1
        slowest = max(slowest, time.monotonic() - begun)
names = sorted(os.listdir(sys.argv[1]))
threads = [threading.Thread(target=attempt, args=(os.path.join(sys.argv[1], name),)) for name in names]
for thread in threads: thread.start()
print("asks", flush=True)
for thread in threads: thread.join()
print(json.dumps({"opened": 0, "refused": 0, **counts, "slowest": slowest}))
"#;
/// Starts programs as fast as it can: `python3 -c EXECS TIMES PROGRAM...`.
const EXECS: &str = r#"
import json, os, sys, time
ran, refused, begun = {}, {}, time.monotonic()
for number in range(int(sys.argv[1])):
    path = sys.argv[2 + number % (len(sys.argv) - 2)]
    try: os.waitpid(os.posix_spawn(path, ["x"], {}), 0); into = ran
    except PermissionError: into = refused
    into[path] = into.get(path, 0) + 1
print(json.dumps({"ran": ran, "refused": refused, "seconds": time.monotonic() - begun}))
"#;
/// More than may wait for being read.
const MANY: usize = 1_000;
/// On a busy machine a watch may be replaced in the middle, and with it goes what it had not told.
const ATTEMPTS: usize = 3;

fn python(script: &str) -> Command {
    let mut command = Command::new("python3");
    command
        .args(["-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

/// What it said at its end. An agent that does not listen meanwhile is soon taken for none.
fn told(guarded: &mut Guarded, mut child: Child) -> Value {
    while child.try_wait().unwrap().is_none() {
        guarded.listen();
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

/// A file that takes longer to read than any question may wait, and no room.
fn endless(lab: &Lab, name: &str) -> PathBuf {
    let path = lab.file(name, b"x");
    let file = std::fs::OpenOptions::new().write(true).open(&path);
    file.unwrap().set_len(MAX_FILE_BYTES).unwrap();
    path
}

/// Waits until the watch has these files in its hands.
fn held_by_watch(guarded: &Guarded, files: &[PathBuf]) {
    eventually(|| {
        let open = std::fs::read_dir(format!("/proc/{}/fd", guarded.watch())).ok()?;
        let open = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        let open: Vec<PathBuf> = open.collect();
        files.iter().all(|file| open.contains(file)).then_some(())
    });
}

fn count(guarded: &Guarded, wanted: impl Fn(&Told) -> bool) -> usize {
    guarded.heard.iter().filter(|told| wanted(told)).count()
}

/// Denials that are told or counted; none if a watch was replaced for want of processors, with which its records went.
fn told_denials(guarded: &mut Guarded, denials: usize) -> Option<usize> {
    eventually(|| {
        guarded.listen();
        let replaced = guarded
            .heard
            .iter()
            .any(|told| matches!(told, Told::Restarted { .. }));
        let told = guarded.heard.iter().map(|told| match told {
            Told::Saw(_) => 1,
            Told::Lost(count) => *count as usize,
            _ => 0,
        });
        let told = told.sum::<usize>();
        (replaced || told >= denials).then_some((!replaced).then_some(told))
    })
}

#[test]
fn when_too_many_files_wait_the_rest_is_refused_at_once_and_what_is_known_runs_on() {
    let lab = Lab::new();
    let good = lab.program("good", "");
    // As many as there are readers, so that nothing else is read meanwhile.
    let endless = [endless(&lab, "slow/one"), endless(&lab, "slow/two")];
    for (attempt, number) in (0..ATTEMPTS).flat_map(|n| (0..MANY).map(move |number| (n, number))) {
        let text = format!("{attempt} {number}");
        lab.file(&format!("many{attempt}/{number}"), text.as_bytes());
    }
    settle();
    let mut guarded = lab.guard(Mode::Enforce, &[&good]);
    let ask = |guarded: &Guarded, name: &str| {
        let folder = guarded.lab.volume().join(name);
        python(OPENERS).arg(folder).spawn().unwrap()
    };
    let full = (0..ATTEMPTS).any(|attempt| {
        guarded.heard.clear();
        eventually(|| run(&good).then_some(()));
        let begun = Instant::now();
        let slow = ask(&guarded, "slow");
        held_by_watch(&guarded, &endless);
        let many = ask(&guarded, &format!("many{attempt}"));
        let (slow, many) = (told(&mut guarded, slow), told(&mut guarded, many));
        println!("{slow} {many}");
        assert!(begun.elapsed() < DEADLINE * 5, "{:?}", begun.elapsed());
        assert_eq!(
            (slow["opened"].as_u64(), many["opened"].as_u64()),
            (Some(0), Some(0))
        );
        assert_eq!(many["refused"].as_u64(), Some(MANY as u64));
        let wanted = MANY + endless.len();
        if let Some(told) = told_denials(&mut guarded, wanted) {
            assert_eq!(told, wanted);
        }
        let overload =
            |told: &Told| matches!(told, Told::Saw(saw) if saw.reason == Reason::Overload);
        count(&guarded, overload) > 0
    });
    assert!(full, "its queue was never full");
    // Afterwards everything is as before.
    eventually(|| run(&good).then_some(()));
    let one = guarded.lab.volume().join("many0/1");
    guarded.take(Mode::Enforce, digests(&[&good, &one]));
    let read = |path: &Path| crate::lab::runs(Command::new("/bin/cat").arg(path));
    eventually(|| read(&one).then_some(()));
    assert!(!read(&guarded.lab.volume().join("many0/2")));
}

#[test]
fn a_thousand_programs_after_each_other_are_each_judged_and_each_denial_counted() {
    let lab = Lab::new();
    let good: Vec<_> = (0..5).map(|n| lab.program(&format!("g{n}"), "")).collect();
    let bad: Vec<_> = (0..5).map(|n| lab.program(&format!("b{n}"), "x")).collect();
    settle();
    let mut guarded = lab.guard(Mode::Enforce, &[good[0].as_path()]);
    let counted = (0..ATTEMPTS).any(|_| {
        guarded.heard.clear();
        let asking = (0..2).map(|_| python(EXECS).arg("1500").args(&good).args(&bad).spawn());
        let mut asking: Vec<Child> = asking.map(Result::unwrap).collect();
        // The same book again and again: each time the kernel asks anew about everything.
        let listed = digests(&[&good[0]]);
        while asking
            .iter_mut()
            .any(|child| child.try_wait().unwrap().is_none())
        {
            guarded.take(Mode::Enforce, listed.clone());
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let asked = asking.into_iter().map(|child| told(&mut guarded, child));
        let asked: Vec<Value> = asked.collect();
        println!("{asked:?}");
        let times = |what: &str, path: &PathBuf| {
            let of = |told: &Value| told[what][path.to_str().unwrap()].as_u64().unwrap_or(0);
            asked.iter().map(of).sum::<u64>()
        };
        assert!(bad.iter().all(|path| times("ran", path) == 0));
        let wanted = bad.len() * 300;
        let Some(told) = told_denials(&mut guarded, wanted) else {
            return false;
        };
        assert_eq!(told, wanted);
        let as_they_should = good.iter().all(|path| times("ran", path) == 300)
            && bad.iter().all(|path| times("refused", path) == 300);
        assert!(as_they_should, "{asked:?}");
        true
    });
    assert!(counted, "the watch never had a processor for that long");
}

#[test]
fn whatever_the_watch_was_doing_when_it_was_killed_nothing_gets_through_and_nobody_hangs() {
    let lab = Lab::new();
    let (good, bad) = (lab.program("good", ""), lab.program("bad", "x"));
    let slow = [endless(&lab, "slow/one"), endless(&lab, "slow/two")];
    for number in 0..200 {
        lab.file(&format!("many/{number}"), format!("{number}").as_bytes());
    }
    settle();
    let mut guarded = lab.guard(Mode::Enforce, &[&good]);
    let folder = |guarded: &Guarded, name: &str| guarded.lab.volume().join(name);
    let opens = |folder: PathBuf| python(OPENERS).arg(folder).spawn().unwrap();
    // While it does nothing; with files being read; with a queue; while it takes a book; with a file half judged.
    for state in ["idle", "reading", "queue", "book", "asked"] {
        guarded.heard.clear();
        let mut asking = Vec::new();
        match state {
            "reading" => asking.push(opens(folder(&guarded, "slow"))),
            "queue" => {
                asking.push(opens(folder(&guarded, "slow")));
                held_by_watch(&guarded, &slow);
                asking.push(opens(folder(&guarded, "many")));
                std::thread::park_timeout(Duration::from_millis(300));
            }
            "book" => {
                let files = (0..30_000_u32).map(|number| {
                    let mut bytes = [0; 32];
                    bytes[..4].copy_from_slice(&number.to_ne_bytes());
                    (
                        edgeward_guard::digest::Digest::new(bytes),
                        "acme/other".to_owned(),
                    )
                });
                let mut files: BTreeMap<_, _> = files.collect();
                files.extend(digests(&[&good]));
                guarded.send(Mode::Enforce, files);
            }
            "asked" => {
                kill(guarded.watch(), Signal::SIGSTOP).unwrap();
                asking.push(opens(folder(&guarded, "many")));
                std::thread::park_timeout(Duration::from_millis(200));
            }
            _ => {}
        }
        if state == "reading" {
            held_by_watch(&guarded, &slow);
        }
        kill(guarded.watch(), Signal::SIGKILL).unwrap();
        let killed = Instant::now();
        for _ in 0..5 {
            assert!(!run(&bad), "{state}");
        }
        for child in asking {
            let told = told(&mut guarded, child);
            assert_eq!(told["opened"].as_u64(), Some(0), "{state}: {told}");
        }
        assert!(
            killed.elapsed() < DEADLINE * 3,
            "{state}: {:?}",
            killed.elapsed()
        );
        guarded.hears(|told| matches!(told, Told::Restarted { .. }));
        // The book that it was given last is the next one's.
        eventually(|| run(&good).then_some(()));
        assert!(!run(&bad), "{state}");
    }
    let shut = count(&guarded, |told| matches!(told, Told::Shut { .. }));
    assert_eq!(shut, 0);
}

#[test]
fn a_watch_that_was_never_given_a_book_lets_nothing_through_nor_does_the_next() {
    let lab = Lab::new();
    let bad = lab.program("bad", "x");
    let mut guarded = lab.guard_without_a_book();
    for _ in 0..2 {
        assert!(!run(&bad));
        assert_eq!(guarded.saw(&bad).reason, Reason::NoBook);
        guarded.heard.clear();
        kill(guarded.watch(), Signal::SIGKILL).unwrap();
        guarded.hears(|told| matches!(told, Told::Restarted { .. }));
    }
    guarded.order(&Order::Keeper(1));
    // Nobody but the supervisor says who installs.
    guarded.hears_the_end();
    assert!(!run(&bad));
}

/// When a limited queue of the kernel's is full, it lets through what it cannot ask about.
#[test]
fn however_short_the_kernels_queue_is_nothing_is_let_through_for_want_of_room() {
    const LIMIT: &str = "/proc/sys/fs/fanotify/max_queued_events";
    struct Before(String);
    impl Drop for Before {
        fn drop(&mut self) {
            std::fs::write(LIMIT, &self.0).unwrap();
        }
    }
    let lab = Lab::new();
    let good = lab.program("good", "");
    for number in 0..100 {
        lab.file(&format!("many/{number}"), format!("{number}").as_bytes());
    }
    settle();
    // Counts for groups that are made meanwhile, and only for those that keep to it.
    let before = Before(std::fs::read_to_string(LIMIT).unwrap());
    std::fs::write(LIMIT, "4").unwrap();
    let mut guarded = lab.guard(Mode::Enforce, &[&good]);
    drop(before);
    kill(guarded.watch(), Signal::SIGSTOP).unwrap();
    let mut openers = python(OPENERS);
    let openers = openers.arg(guarded.lab.volume().join("many")).spawn();
    let told = told(&mut guarded, openers.unwrap());
    assert_eq!(told["opened"].as_u64(), Some(0), "{told}");
    assert_eq!(told["refused"].as_u64(), Some(100), "{told}");
    // The next watch refuses everything until it has the book.
    eventually(|| run(&good).then_some(()));
}
