//! What each level adds to starting a program: `unshare -m exec-latency GUARD [FAPOLICYD]`, as root, where
//! FAPOLICYD is a folder into which its package and libraries were unpacked. Prints markdown.
//!
//! Everything lies on one ramfs of a mount namespace of its own, which is also all that fapolicyd is told to watch:
//! nothing else of the machine waits for its answers.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a measurement"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use edgeward_guard::book::{Book, Mode};
use edgeward_guard::control::{Order, line};
use edgeward_guard::digest::Digest;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const ROUNDS: usize = 400;
const LARGE_ROUNDS: usize = 20;
const LARGE_BYTES: usize = 20 << 20;
/// What fapolicyd reads: trusted programs run, others do not, and everything may be opened.
const FAPOLICYD_RULES: &str =
    "allow perm=execute all : trust=1\ndeny perm=execute all : all\nallow perm=open all : all\n";
const FAPOLICYD_CONFIG: &str = "permissive = 0\nnice_val = 0\nq_size = 2048\nuid = root\ngid = root\n\
    do_stat_report = 0\ndetailed_report = 0\ndb_max_size = 50\nsubj_cache_size = 1549\nobj_cache_size = 8191\n\
    watch_fs = ramfs\ntrust = file\nintegrity = sha256\nsyslog_format = rule,dec,perm,pid,exe,:,path\n\
    rpm_sha256_only = 0\nallow_filesystem_mark = 0\n";

/// The volume with its programs: many alike, and a few large ones.
struct Ground {
    folder: tempfile::TempDir,
    programs: Vec<PathBuf>,
    large: Vec<PathBuf>,
    unlisted: PathBuf,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let guard = words.first().unwrap();
    let ground = Ground::new();
    let bytes = std::fs::metadata("/bin/true").unwrap().len();
    println!("program of {bytes} bytes\n\n| what | min us | p50 us | p99 us |\n|---|---|---|---|");
    ground.execs();
    row("exec, nothing watches", ground.execs());
    row("open, nothing watches", ground.opens());
    under_guard(&ground, guard);
    // What the guard added is gone with it.
    row("exec, nothing watches, again", ground.execs());
    if let Some(program) = words.get(1) {
        under_fapolicyd(&ground, Path::new(program));
    }
    umount2(&ground.volume(), MntFlags::MNT_DETACH).unwrap();
}

impl Ground {
    fn new() -> Self {
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut ground = Self {
            folder,
            programs: Vec::new(),
            large: Vec::new(),
            unlisted: PathBuf::new(),
        };
        let open = || PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(ground.folder.path(), open()).unwrap();
        let volume = ground.volume();
        std::fs::create_dir(&volume).unwrap();
        let ramfs = Some("ramfs");
        mount(ramfs, &volume, ramfs, MsFlags::empty(), Some("mode=755")).unwrap();
        let plain = std::fs::read("/bin/true").unwrap();
        let mut large = plain.clone();
        large.resize(LARGE_BYTES, 7);
        let put = |name: String, bytes: &[u8]| -> PathBuf {
            let path = volume.join(name);
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, open()).unwrap();
            path
        };
        ground.programs = (0..ROUNDS).map(|n| put(format!("p{n}"), &plain)).collect();
        ground.large = (0..LARGE_ROUNDS)
            .map(|n| put(format!("l{n}"), &large))
            .collect();
        ground.unlisted = put("unlisted".to_owned(), &[&plain[..], b"x"].concat());
        ground
    }

    fn volume(&self) -> PathBuf {
        self.folder.path().join("volume")
    }

    fn execs(&self) -> Vec<Duration> {
        self.programs.iter().map(|path| exec(path)).collect()
    }

    fn large_execs(&self) -> Vec<Duration> {
        self.large.iter().map(|path| exec(path)).collect()
    }

    fn opens(&self) -> Vec<Duration> {
        self.programs.iter().map(|path| open(path)).collect()
    }

    /// The same rows for whoever watches.
    fn rows(&self, who: &str) {
        assert!(
            Command::new(&self.unlisted)
                .stdin(Stdio::null())
                .status()
                .is_err(),
            "{who} lets an unlisted program run: what it adds would mean nothing"
        );
        row(&format!("exec, {who}, file not read before"), self.execs());
        row(&format!("exec, {who}, known"), self.execs());
        let first = self.large_execs();
        row(
            &format!("exec of 20 MiB, {who}, file not read before"),
            first,
        );
        row(&format!("exec of 20 MiB, {who}, known"), self.large_execs());
        row(&format!("open, {who}, known"), self.opens());
    }
}

fn under_guard(ground: &Ground, guard: &str) {
    let folder = ground.folder.path();
    let (groups, state) = (folder.join("cgroup"), folder.join("state"));
    for at in [&groups, &state] {
        std::fs::create_dir(at).unwrap();
    }
    let v2 = Some("cgroup2");
    mount(v2, &groups, v2, MsFlags::empty(), None::<&str>).unwrap();
    let apps = groups.join(format!("edgeward-bench-{}", std::process::id()));
    let app = apps.join("app");
    std::fs::create_dir_all(&app).unwrap();
    let listed = BTreeMap::from([
        (digest(&ground.programs[0]), "a".to_owned()),
        (digest(&ground.large[0]), "a".to_owned()),
    ]);
    let socket = folder.join("guard.sock");
    let mut supervisor = Command::new(guard)
        .arg("supervise")
        .args([&ground.volume(), &socket, &apps])
        .spawn()
        .unwrap();
    let mut stream = loop {
        if let Ok(stream) = UnixStream::connect(&socket) {
            break stream;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    };
    let book = Order::Book(Book::new(1, Mode::Enforce, listed).unwrap());
    stream.write_all(&line(&book).unwrap()).unwrap();
    stream.read_exact(&mut [0; 8]).unwrap();
    ground.rows("guard");
    launches(ground, guard, &app, &state);
    let watch = children(supervisor.id());
    println!(
        "| memory: supervisor {}, watch {} |",
        rss(supervisor.id()),
        rss(watch)
    );
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    kill(Pid::from_raw(watch as i32), Signal::SIGKILL).unwrap();
    std::fs::remove_dir(&app).unwrap();
    std::fs::remove_dir(&apps).unwrap();
    umount2(&groups, MntFlags::MNT_DETACH).unwrap();
}

fn launches(ground: &Ground, guard: &str, app: &Path, state: &Path) {
    let order = serde_json::json!({
        "tree": ground.volume(), "program": "p0", "digest": digest(&ground.programs[0]),
        "uid": 990, "gid": 990, "cgroup": app, "state": state, "host_libraries": true,
    })
    .to_string();
    let launch = || {
        let mut child = Command::new(guard)
            .arg("launch")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(order.as_bytes())
            .unwrap();
        assert!(child.wait().unwrap().success());
    };
    let took = (0..ROUNDS / 4).map(|_| time(launch)).collect();
    row(
        "launcher, from order to the program's end, guard, known",
        took,
    );
}

fn under_fapolicyd(ground: &Ground, unpacked: &Path) {
    for (number, at) in ["/etc", "/var/lib", "/usr/share"].into_iter().enumerate() {
        let layer = |kind| ground.folder.path().join(format!("{kind}{number}"));
        let (upper, work) = (layer("upper"), layer("work"));
        for folder in [&upper, &work] {
            std::fs::create_dir(folder).unwrap();
        }
        let (upper, work) = (upper.display(), work.display());
        let data = format!("lowerdir={at},upperdir={upper},workdir={work}");
        let overlay = Some("overlay");
        mount(overlay, at, overlay, MsFlags::empty(), Some(data.as_str())).unwrap();
    }
    let (magic, own) = ("fapolicyd-magic.mgc", Path::new("/usr/share/fapolicyd"));
    std::fs::create_dir_all(own).unwrap();
    std::fs::copy(
        unpacked.join("usr/share/fapolicyd").join(magic),
        own.join(magic),
    )
    .unwrap();
    for at in ["/etc/fapolicyd", "/var/lib/fapolicyd", "/run/fapolicyd"] {
        // Where the package is installed, too, its files are none of this.
        std::fs::create_dir_all(at).unwrap();
        let tmpfs = Some("tmpfs");
        mount(tmpfs, at, tmpfs, MsFlags::empty(), None::<&str>).unwrap();
    }
    let mut trust = String::new();
    for path in ground.programs.iter().chain(&ground.large) {
        let size = std::fs::metadata(path).unwrap().len();
        writeln!(trust, "{} {size} {}", path.display(), digest(path)).unwrap();
    }
    let etc = Path::new("/etc/fapolicyd");
    for folder in ["trust.d", "rules.d"] {
        std::fs::create_dir(etc.join(folder)).unwrap();
    }
    std::fs::write(etc.join("fapolicyd.conf"), FAPOLICYD_CONFIG).unwrap();
    std::fs::write(etc.join("fapolicyd.trust"), trust).unwrap();
    std::fs::write(etc.join("compiled.rules"), FAPOLICYD_RULES).unwrap();
    let mut daemon = fapolicyd(unpacked, &ground.folder.path().join("log"));
    ground.rows("fapolicyd");
    println!("| memory: fapolicyd {} |", rss(daemon.id()));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

/// Waits until it answers.
fn fapolicyd(unpacked: &Path, log: &Path) -> Child {
    let file = std::fs::File::create(log).unwrap();
    let mut daemon = Command::new(unpacked.join("usr/sbin/fapolicyd"))
        .arg("--debug-deny")
        .env("LD_LIBRARY_PATH", unpacked.join("usr/lib/x86_64-linux-gnu"))
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .spawn()
        .unwrap();
    let due = Instant::now() + Duration::from_secs(30);
    loop {
        let told = std::fs::read_to_string(log).unwrap();
        if told.contains("Starting to listen") {
            return daemon;
        }
        let ended = daemon.try_wait().unwrap();
        assert!(ended.is_none() && Instant::now() < due, "{ended:?}: {told}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn digest(path: &Path) -> Digest {
    let due = Instant::now() + Duration::from_secs(10);
    Digest::of(std::fs::File::open(path).unwrap().as_fd(), due).unwrap()
}

fn row(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let us = |at: usize| took[at * (took.len() - 1) / 100].as_micros();
    println!("| {what} | {} | {} | {} |", us(0), us(50), us(99));
}

fn time(mut run: impl FnMut()) -> Duration {
    let begun = Instant::now();
    run();
    begun.elapsed()
}

fn exec(path: &Path) -> Duration {
    time(|| {
        let ended = Command::new(path).stdin(Stdio::null()).status().unwrap();
        assert!(ended.success(), "{}", path.display());
    })
}

fn open(path: &Path) -> Duration {
    time(|| drop(std::fs::File::open(path).unwrap()))
}

/// The one child of a process.
fn children(pid: u32) -> u32 {
    let path = format!("/proc/{pid}/task/{pid}/children");
    std::fs::read_to_string(path)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

fn rss(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    line.split_whitespace()
        .skip(1)
        .collect::<Vec<_>>()
        .join(" ")
}
