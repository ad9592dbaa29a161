//! What the kernel decides by itself.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::lab::{self, Guarded, LOADER, Lab, digests, output, run, runs, settle};
use edgeward_guard::book::{Mode, Reason};
use edgeward_guard::control::Told;
use edgeward_guard::level::Level;
use edgeward_guard::level::kernel;
use edgeward_guard::verity;
use edgeward_guard::volume::Volume;
use nix::sys::signal::{Signal, kill};

/// A volume with a sealed program that is listed, and another that is sealed and not listed.
struct Scene {
    good: PathBuf,
    bad: PathBuf,
    guarded: Guarded,
}

impl Scene {
    fn new(mode: Mode) -> Self {
        let lab = Lab::that_seals();
        let (good, bad) = (lab.program("good", ""), lab.program("bad", "x"));
        seal(&good);
        seal(&bad);
        settle();
        let mut guarded = lab.guard(mode, &[&good]);
        let here = guarded.hears(|told| matches!(told, Told::Here { .. }));
        let Told::Here { level, lacks, .. } = here else {
            unreachable!()
        };
        assert_eq!(level, Level::Kernel, "{lacks:?}");
        assert_eq!(lacks, Vec::<String>::new());
        Self { good, bad, guarded }
    }

    /// Supervisor and watch at once, so that nobody asks any more.
    fn kill_the_guard(&mut self) {
        let (supervisor, watch) = (self.guarded.supervisor(), self.guarded.watch());
        kill(supervisor, Signal::SIGSTOP).unwrap();
        kill(watch, Signal::SIGKILL).unwrap();
        kill(supervisor, Signal::SIGKILL).unwrap();
        self.guarded.hears_the_end();
        // The group of questions is closed with the last of them.
        lab::eventually(|| File::open(&self.bad).ok());
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // It would stay: that is what it is for.
        let volume = Volume::open(&self.guarded.lab.volume()).unwrap();
        kernel::release(&volume).unwrap();
    }
}

fn seal(path: &Path) {
    assert!(verity::seal(&File::open(path).unwrap()).unwrap());
}

fn is_read(path: &Path) -> bool {
    runs(Command::new("/bin/cat").arg(path))
}

/// Mapped by the loader, which reads its head, too.
fn is_loaded(path: &Path) -> bool {
    runs(Command::new(LOADER).arg(path))
}

#[test]
fn the_kernel_is_found_to_ask_by_having_it_refuse_something() {
    kernel::probe().unwrap();
    // Dropped again.
    assert_eq!(File::open("/dev/zero").unwrap().read(&mut [0]).unwrap(), 1);
}

#[test]
fn with_the_kernel_deciding_what_is_listed_runs_and_nothing_else_is_read_mapped_or_executed() {
    let mut scene = Scene::new(Mode::Enforce);
    for _ in 0..2 {
        assert!(run(&scene.good) && is_read(&scene.good) && is_loaded(&scene.good));
        assert!(!run(&scene.bad) && !is_read(&scene.bad) && !is_loaded(&scene.bad));
    }
    assert_eq!(
        scene.guarded.saw(&scene.bad.clone()).reason,
        Reason::NotListed
    );
}

#[test]
fn a_listed_file_that_is_not_sealed_is_refused_and_told() {
    let mut scene = Scene::new(Mode::Enforce);
    let open = scene.guarded.lab.volume().join("open");
    std::fs::copy(&scene.good, &open).unwrap();
    settle();
    assert!(!run(&open) && !is_read(&open));
    assert_eq!(scene.guarded.saw(&open).reason, Reason::NotSealed);
    seal(&open);
    settle();
    assert!(run(&open));
}

#[test]
fn when_all_of_the_guard_is_killed_at_once_the_kernel_goes_on_refusing() {
    let mut scene = Scene::new(Mode::Enforce);
    assert!(run(&scene.good));
    scene.kill_the_guard();
    for _ in 0..20 {
        assert!(!run(&scene.bad) && !is_read(&scene.bad) && !is_loaded(&scene.bad));
    }
    assert!(run(&scene.good), "what was admitted stays so");
    // A file nobody has judged, sealed or not.
    let new = scene.guarded.lab.program("new", "y");
    assert!(!run(&new) && !is_read(&new));
    seal(&new);
    assert!(!run(&new) && !is_read(&new));
    // The next guard takes over, with an empty list of its own.
    scene.guarded.supervise_anew();
    let is_here = |told: &Told| {
        matches!(
            told,
            Told::Here {
                level: Level::Kernel,
                ..
            }
        )
    };
    scene.guarded.hears(is_here);
    assert!(!run(&scene.good) && !run(&scene.bad));
    scene.guarded.take(Mode::Enforce, digests(&[&scene.good]));
    assert!(run(&scene.good) && !run(&scene.bad));
}

#[test]
fn with_the_guard_dead_neither_a_mount_nor_a_namespace_nor_an_overlay_leads_around_the_kernel() {
    let mut scene = Scene::new(Mode::Enforce);
    assert!(run(&scene.good));
    scene.kill_the_guard();
    let volume = scene.guarded.lab.volume();
    let around = |how: &str, name: &str| {
        let script = format!(
            "set -e; m=$(mktemp -d); {how}; cat $m/{name} >/dev/null && echo read; {LOADER} $m/{name} && echo mapped; $m/{name} && echo ran"
        );
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script]).env("V", &volume);
        String::from_utf8(output(&mut command).unwrap().stdout).unwrap()
    };
    let bind = "mount --bind $V $m";
    let overlay = "mkdir $m.u; mount -t tmpfs t $m.u; mkdir $m.u/u $m.u/w; mount -t overlay -o lowerdir=$V,upperdir=$m.u/u,workdir=$m.u/w o $m";
    assert_eq!(around(bind, "good"), "read\nmapped\nran\n");
    assert_eq!(around(bind, "bad"), "");
    // Not even what is listed: who reads through another file system is not seen to.
    assert_eq!(around(overlay, "good"), "");
    assert_eq!(around(overlay, "bad"), "");
    let in_user_namespace = Command::new("unshare")
        .args(["-Urm", "sh", "-c", "exec \"$0\""])
        .arg(&scene.bad)
        .status();
    assert!(!in_user_namespace.unwrap().success());
}

#[test]
fn what_is_taken_from_the_book_is_not_even_read_through_a_descriptor_that_is_open() {
    let mut scene = Scene::new(Mode::Enforce);
    let second = scene.guarded.lab.program("second", "z");
    seal(&second);
    settle();
    scene
        .guarded
        .take(Mode::Enforce, digests(&[&scene.good, &second]));
    // Another process than the keeper, which may read.
    let script = "exec 3<\"$0\" && head -c 1 <&3 >/dev/null && echo open && read go && cat <&3 >/dev/null && echo read";
    let mut reader = Command::new("sh")
        .args(["-c", script])
        .arg(&second)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(reader.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "open\n");
    scene.guarded.take(Mode::Enforce, digests(&[&scene.good]));
    reader.stdin.take().unwrap().write_all(b"go\n").unwrap();
    assert!(!reader.wait().unwrap().success());
    assert_eq!(said.read_line(&mut line).unwrap(), 0, "{line}");
    assert!(!run(&second) && run(&scene.good));
}

#[test]
fn what_is_sealed_nobody_writes_to_and_what_is_open_for_writing_is_not_sealed() {
    let scene = Scene::new(Mode::Enforce);
    let write = OpenOptions::new().write(true).open(&scene.good);
    assert_eq!(write.unwrap_err().raw_os_error(), Some(nix::libc::EPERM));
    let open = scene.guarded.lab.program("open", "w");
    let writer = OpenOptions::new().write(true).open(&open).unwrap();
    let refused = verity::seal(&File::open(&open).unwrap()).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(nix::libc::ETXTBSY));
    drop(writer);
    seal(&open);
    let sealed = |path: &Path| verity::measure(File::open(path).unwrap().as_fd()).unwrap();
    assert_ne!(sealed(&open), sealed(&scene.good));
    assert!(sealed(&open).is_some());
}

#[test]
fn a_byte_changed_on_the_disk_below_a_sealed_file_is_not_read() {
    let scene = Scene::new(Mode::Enforce);
    assert!(run(&scene.good) && is_read(&scene.good));
    let told = output(Command::new("filefrag").arg("-v").arg(&scene.good)).unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    // "   0:        0..      10:      34816..     34826:     11:"
    let extent = told
        .lines()
        .find(|line| line.trim_start().starts_with("0:"))
        .unwrap();
    let block = extent
        .split(':')
        .nth(2)
        .unwrap()
        .split("..")
        .next()
        .unwrap();
    let block: u64 = block.trim().parse().unwrap();
    let image = OpenOptions::new()
        .write(true)
        .read(true)
        .open(scene.guarded.lab.outside("image"))
        .unwrap();
    let at = block * 4096 + 100;
    let mut byte = [0];
    image.read_exact_at(&mut byte, at).unwrap();
    image.write_all_at(&[byte[0] ^ 1], at).unwrap();
    image.sync_all().unwrap();
    // What is in memory was checked when it came there.
    nix::unistd::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    assert!(!is_read(&scene.good) && !run(&scene.good));
    image.write_all_at(&byte, at).unwrap();
}

#[test]
fn in_observe_mode_the_kernel_lets_everything_through_and_the_watch_tells() {
    let mut scene = Scene::new(Mode::Observe);
    assert!(run(&scene.good) && run(&scene.bad));
    assert_eq!(
        scene.guarded.saw(&scene.bad.clone()).reason,
        Reason::NotListed
    );
    scene.guarded.take(Mode::Enforce, digests(&[&scene.good]));
    assert!(run(&scene.good) && !run(&scene.bad));
}

#[test]
fn a_watch_that_is_killed_is_replaced_and_the_kernel_keeps_what_was_admitted() {
    let mut scene = Scene::new(Mode::Enforce);
    for _ in 0..3 {
        assert!(run(&scene.good));
        scene.guarded.heard.clear();
        kill(scene.guarded.watch(), Signal::SIGKILL).unwrap();
        for _ in 0..10 {
            assert!(!run(&scene.bad));
        }
        scene
            .guarded
            .hears(|told| matches!(told, Told::Restarted { .. }));
        // The next watch refuses everything until it has the book.
        lab::eventually(|| run(&scene.good).then_some(()));
        assert!(!run(&scene.bad));
    }
}

#[test]
fn who_installs_may_read_what_is_not_listed_yet_and_its_children_may_not() {
    let scene = Scene::new(Mode::Enforce);
    // This process is the guard's agent.
    assert!(std::fs::read(&scene.bad).is_ok());
    assert!(!is_read(&scene.bad));
    assert!(!run(&scene.bad));
}

#[test]
fn what_the_kernel_refuses_by_itself_is_counted() {
    let mut scene = Scene::new(Mode::Enforce);
    assert!(run(&scene.good));
    scene.kill_the_guard();
    assert!(!run(&scene.bad));
    let volume = scene.guarded.lab.volume();
    let folder = std::fs::read_dir("/sys/fs/bpf")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("edgeward-guard-")
        });
    let kept = kernel::Kernel::kept(&folder.unwrap()).unwrap();
    let before = kept.refused().unwrap();
    assert!(before > 0);
    assert!(!is_read(&scene.bad));
    assert!(kept.refused().unwrap() > before);
    // Elsewhere nothing is refused or counted.
    let counted = kept.refused().unwrap();
    assert!(is_read(Path::new("/etc/passwd")) && run(Path::new("/bin/true")));
    assert!(
        std::fs::read_dir(&volume).is_ok(),
        "folders are nobody's secret"
    );
    assert_eq!(kept.refused().unwrap(), counted);
}

#[test]
fn a_volume_that_cannot_seal_stays_with_questions_and_says_why() {
    let lab = Lab::on_ext4();
    let good = lab.program("good", "");
    settle();
    let mut guarded = lab.guard(Mode::Enforce, &[&good]);
    let here = guarded.hears(|told| matches!(told, Told::Here { .. }));
    assert!(
        matches!(&here, Told::Here { level: Level::Fanotify, lacks, .. } if lacks[0].contains("fs-verity")),
        "{here:?}"
    );
    assert!(run(&good));
}
