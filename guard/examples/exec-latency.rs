//! What each level adds to starting a program: `unshare -m exec-latency GUARD [FAPOLICYD]`, as root, where
//! FAPOLICYD is a folder into which its package and libraries were unpacked. Prints markdown: one table of times, one of
//! what they add, one of memory.
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

use edgeward_guard::book::{Book, MAX_FILES, Mode};
use edgeward_guard::control::{Lines, Order, Told, line};
use edgeward_guard::digest::Digest;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const ROUNDS: usize = 400;
const LARGE_ROUNDS: usize = 20;
/// This program as the one that opens: the guard's agent is asked about, and let through, every time.
const OPENS: &str = "opens";
const LARGE_BYTES: usize = 20 << 20;
/// What fapolicyd reads: trusted programs run, others do not, and everything may be opened.
const FAPOLICYD_RULES: &str =
    "allow perm=execute all : trust=1\ndeny perm=execute all : all\nallow perm=open all : all\n";
const FAPOLICYD_CONFIG: &str = "permissive = 0\nnice_val = 0\nq_size = 2048\nuid = root\ngid = root\n\
    do_stat_report = 0\ndetailed_report = 0\ndb_max_size = 50\nsubj_cache_size = 1549\nobj_cache_size = 8191\n\
    watch_fs = ramfs\ntrust = file\nintegrity = sha256\nsyslog_format = rule,dec,perm,pid,exe,:,path\n\
    rpm_sha256_only = 0\nallow_filesystem_mark = 0\n";

/// What is measured, in the order of the table's rows.
const ROWS: [&str; 6] = [
    "exec of PLAIN bytes, not read before",
    "exec of PLAIN bytes, known",
    "exec of 20 MiB, not read before",
    "exec of 20 MiB, known",
    "open, not read before",
    "open, known",
];

/// The volume with its programs: many alike, and a few large ones.
struct Ground {
    folder: tempfile::TempDir,
    programs: Vec<PathBuf>,
    large: Vec<PathBuf>,
    /// Opened only.
    data: Vec<PathBuf>,
    unlisted: PathBuf,
}

/// Times of each row under one regime, sorted; none where it does nothing of the kind.
struct Column {
    name: &'static str,
    rows: [Vec<Duration>; 6],
}

/// Who is ended when it is over.
struct Guard {
    supervisor: Child,
    stream: UnixStream,
    version: u64,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let guard = words.first().unwrap();
    if guard == OPENS {
        return words[1..].iter().map(Path::new).for_each(|path| {
            println!("{}", open(path).as_nanos());
        });
    }
    let ground = Ground::new();
    let mut memory = Vec::new();
    ground.execs();
    let mut columns = vec![ground.column("nothing watches")];
    columns.push(ground.launched("launcher", guard));
    let mut running = Guard::over(&ground, guard);
    memory.push(running.memory("an empty book"));
    let listed = [&ground.programs[0], &ground.large[0], &ground.data[0]];
    let listed = listed.map(|path| (digest(path), "acme/collector".to_owned()));
    running.take(BTreeMap::from(listed.clone()));
    columns.push(ground.watched("guard"));
    columns.push(ground.launched("launcher and guard", guard));
    memory.push(running.memory(&format!("{} files known", 2 * ROUNDS + LARGE_ROUNDS)));
    let mut full: BTreeMap<_, _> = (0..MAX_FILES - listed.len())
        .map(|number| {
            let mut bytes = [7; 32];
            bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
            (Digest::new(bytes), "acme/collector".to_owned())
        })
        .collect();
    full.extend(listed);
    running.take(full);
    memory.push(running.memory(&format!("a full book of {MAX_FILES} files")));
    running.end();
    // What the guard added is gone with it.
    columns.push(ground.column("nothing, again"));
    if let Some(program) = words.get(1) {
        let (column, rss) = under_fapolicyd(&ground, Path::new(program));
        columns.push(column);
        memory.push(rss);
    }
    tables(&columns);
    println!("\n| memory (VmRSS, VmHWM) | of it |\n|---|---|");
    memory.iter().for_each(|line| println!("{line}"));
    umount2(&ground.folder.path().join("cgroup"), MntFlags::MNT_DETACH).unwrap();
    umount2(&ground.volume(), MntFlags::MNT_DETACH).unwrap();
}

fn tables(columns: &[Column]) {
    let plain = std::fs::metadata("/bin/true").unwrap().len().to_string();
    let head: Vec<_> = columns.iter().map(|column| column.name).collect();
    let line = "|---".repeat(columns.len() + 1);
    println!("| p50 (p99), us | {} |\n{line}|", head.join(" | "));
    let us = |took: &[Duration], at: usize| took[at * (took.len() - 1) / 100].as_micros();
    let print = |cell: &dyn Fn(&Column, usize) -> Option<String>| {
        for (number, row) in ROWS.iter().enumerate() {
            let cells = columns.iter().map(|column| {
                let none = column.rows[number].is_empty();
                (!none)
                    .then(|| cell(column, number))
                    .flatten()
                    .unwrap_or_default()
            });
            let cells: Vec<String> = cells.collect();
            println!(
                "| {} | {} |",
                row.replace("PLAIN", &plain),
                cells.join(" | ")
            );
        }
    };
    print(&|column, row| {
        let took = &column.rows[row];
        Some(format!("{} ({})", us(took, 50), us(took, 99)))
    });
    println!("\n| added at p50, us | {} |\n{line}|", head.join(" | "));
    print(&|column, row| {
        let [before, after] = [columns[0].rows[row].as_slice(), &column.rows[row]];
        let added = us(after, 50) as i128 - us(before, 50) as i128;
        Some(format!("{added:+}"))
    });
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
            data: Vec::new(),
            unlisted: PathBuf::new(),
        };
        let open = || PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(ground.folder.path(), open()).unwrap();
        let volume = ground.volume();
        for at in ["volume", "cgroup", "state"] {
            std::fs::create_dir(ground.folder.path().join(at)).unwrap();
        }
        let (ramfs, v2) = (Some("ramfs"), Some("cgroup2"));
        mount(ramfs, &volume, ramfs, MsFlags::empty(), Some("mode=755")).unwrap();
        let groups = ground.folder.path().join("cgroup");
        mount(v2, &groups, v2, MsFlags::empty(), none).unwrap();
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
        ground.data = (0..ROUNDS)
            .map(|n| put(format!("d{n}"), &plain[..16_384]))
            .collect();
        ground.large = (0..LARGE_ROUNDS)
            .map(|n| put(format!("l{n}"), &large))
            .collect();
        ground.unlisted = put("unlisted".to_owned(), &[&plain[..], b"x"].concat());
        // Files that changed just now are read each time.
        std::thread::park_timeout(Duration::from_millis(200));
        ground
    }

    fn volume(&self) -> PathBuf {
        self.folder.path().join("volume")
    }

    fn execs(&self) -> Vec<Duration> {
        self.programs.iter().map(|path| exec(path)).collect()
    }

    fn column(&self, name: &'static str) -> Column {
        let large = || self.large.iter().map(|path| exec(path)).collect();
        let opens = || opens(&self.data);
        let mut rows = [
            self.execs(),
            self.execs(),
            large(),
            large(),
            opens(),
            opens(),
        ];
        rows.iter_mut()
            .for_each(|took: &mut Vec<Duration>| took.sort());
        Column { name, rows }
    }

    /// The same rows for whoever watches.
    fn watched(&self, name: &'static str) -> Column {
        assert!(
            Command::new(&self.unlisted)
                .stdin(Stdio::null())
                .status()
                .is_err(),
            "{name} lets an unlisted program run: what it adds would mean nothing"
        );
        self.column(name)
    }

    /// From the order to the program's end, each program twice: the launcher reads what it starts every time.
    fn launched(&self, name: &'static str, guard: &str) -> Column {
        let app = self.apps().join("app");
        std::fs::create_dir_all(&app).unwrap();
        let state = self.folder.path().join("state");
        let digests = [digest(&self.programs[0]), digest(&self.large[0])];
        let launch = |program: &Path, digest: &Digest| {
            let order = serde_json::json!({
                "tree": self.volume(), "program": program.file_name().unwrap().to_str(), "digest": digest,
                "uid": 990, "gid": 990, "cgroup": app, "state": state, "host_libraries": true,
            });
            time(|| {
                let mut child = Command::new(guard)
                    .arg("launch")
                    .stdin(Stdio::piped())
                    .spawn()
                    .unwrap();
                let mut input = child.stdin.take().unwrap();
                input.write_all(order.to_string().as_bytes()).unwrap();
                drop(input);
                assert!(child.wait().unwrap().success());
            })
        };
        let plain = || {
            let some = self.programs.iter().take(ROUNDS / 4);
            some.map(|path| launch(path, &digests[0])).collect()
        };
        let large = || {
            let all = self.large.iter();
            all.map(|path| launch(path, &digests[1])).collect()
        };
        let mut rows = [plain(), plain(), large(), large(), Vec::new(), Vec::new()];
        rows.iter_mut()
            .for_each(|took: &mut Vec<Duration>| took.sort());
        std::fs::remove_dir(&app).unwrap();
        Column { name, rows }
    }

    fn apps(&self) -> PathBuf {
        let name = format!("cgroup/edgeward-bench-{}", std::process::id());
        self.folder.path().join(name)
    }
}

impl Guard {
    fn over(ground: &Ground, program: &str) -> Self {
        let socket = ground.folder.path().join("guard.sock");
        std::fs::create_dir_all(ground.apps()).unwrap();
        let supervisor = Command::new(program)
            .arg("supervise")
            .args([&ground.volume(), &socket, &ground.apps()])
            .spawn()
            .unwrap();
        let stream = loop {
            if let Ok(stream) = UnixStream::connect(&socket) {
                break stream;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        };
        let mut guard = Self {
            supervisor,
            stream,
            version: 0,
        };
        guard.take(BTreeMap::new());
        guard
    }

    fn take(&mut self, files: BTreeMap<Digest, String>) {
        self.version += 1;
        let book = Book::new(self.version, Mode::Enforce, files).unwrap();
        let order = line(&Order::Book(book)).unwrap();
        self.stream.write_all(&order).unwrap();
        let (mut lines, mut chunk) = (Lines::default(), [0; 65_536]);
        loop {
            let count = self.stream.read(&mut chunk).unwrap();
            lines.push(&chunk[..count]).unwrap();
            while let Some(told) = lines.take_line::<Told>() {
                if told.unwrap() == Told::Holds(self.version) {
                    return;
                }
            }
        }
    }

    fn memory(&self, when: &str) -> String {
        let (supervisor, watch) = (self.supervisor.id(), children(self.supervisor.id()));
        format!(
            "| guard with {when} | supervisor {}, watch {} |",
            rss(supervisor),
            rss(watch)
        )
    }

    fn end(mut self) {
        let watch = children(self.supervisor.id());
        self.supervisor.kill().unwrap();
        self.supervisor.wait().unwrap();
        kill(Pid::from_raw(watch as i32), Signal::SIGKILL).unwrap();
    }
}

fn under_fapolicyd(ground: &Ground, unpacked: &Path) -> (Column, String) {
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
    let listed = ground.programs.iter().chain(&ground.large);
    for path in listed.chain(&ground.data) {
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
    let column = ground.watched("fapolicyd");
    let memory = format!("| fapolicyd | {} |", rss(daemon.id()));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    (column, memory)
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

fn opens(paths: &[PathBuf]) -> Vec<Duration> {
    let mut other = Command::new(std::env::current_exe().unwrap());
    let told = other.arg(OPENS).args(paths).output().unwrap();
    assert!(told.status.success(), "{told:?}");
    let told = String::from_utf8(told.stdout).unwrap();
    let nanos = told.lines().map(|line| line.parse().unwrap());
    nanos.map(Duration::from_nanos).collect()
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

/// Now, and at its most.
fn rss(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().split_whitespace().next().unwrap().to_owned()
    };
    format!("{} ({}) KiB", kib("VmRSS:"), kib("VmHWM:"))
}
