//! A volume in a mount namespace of its own, a guard over it, and this process as its agent.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use edgeward_guard::book::{Book, Mode};
use edgeward_guard::cgroup::Cgroup;
use edgeward_guard::control::{Lines, Order, Saw, Told, line};
use edgeward_guard::digest::Digest;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub const GUARD: &str = env!("CARGO_BIN_EXE_edgeward-guard");
pub const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
const GROUPS: &str = "/sys/fs/cgroup";
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A volume without a guard. Drops its processes with itself.
pub struct Lab {
    folder: tempfile::TempDir,
    pub apps: Cgroup,
}

impl Lab {
    pub fn new() -> Self {
        Self::with(|at| {
            let data = Some("mode=755");
            mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), data).unwrap();
        })
    }

    /// The volume is a file system of a disk.
    pub fn on_ext4() -> Self {
        Self::with(|at| {
            let image = at.with_file_name("image");
            File::create(&image).unwrap().set_len(64 << 20).unwrap();
            let made = output(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
            assert!(made.unwrap().status.success());
            assert!(runs(
                Command::new("mount")
                    .args(["-o", "loop"])
                    .args([&image, at])
            ));
        })
    }

    /// The volume is one whose files can be sealed (fs-verity).
    pub fn that_seals() -> Self {
        Self::with(|at| {
            let image = at.with_file_name("image");
            File::create(&image).unwrap().set_len(64 << 20).unwrap();
            let mut make = Command::new("mkfs.ext4");
            make.args(["-q", "-F", "-O", "verity", "-b", "4096"]);
            assert!(runs(make.arg(&image)));
            assert!(runs(
                Command::new("mount")
                    .args(["-o", "loop"])
                    .args([&image, at])
            ));
        })
    }

    fn with(volume: impl FnOnce(&Path)) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests need root");
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let folder = tempfile::tempdir().unwrap();
        // Applications that run as another user must get there.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let at = folder.path().join("volume");
        std::fs::create_dir(&at).unwrap();
        volume(&at);
        // Where `nft` looks for groups; on some machines they are there already.
        let groups = Some("cgroup2");
        match mount(groups, GROUPS, groups, MsFlags::empty(), none) {
            Ok(()) | Err(nix::Error::EBUSY) => {}
            Err(error) => panic!("{error}"),
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("edgeward-guard-test-{}-{number}", std::process::id());
        let group = Path::new(GROUPS).join(name);
        std::fs::create_dir(&group).unwrap();
        let apps = Cgroup::open(&group).unwrap();
        Self { folder, apps }
    }

    pub fn volume(&self) -> PathBuf {
        self.folder.path().join("volume")
    }

    pub fn outside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program on the volume that ends with 0; each `salt` is another content.
    pub fn program(&self, name: &str, salt: &str) -> PathBuf {
        let mut bytes = std::fs::read("/bin/true").unwrap();
        bytes.extend(salt.as_bytes());
        self.file(name, &bytes)
    }

    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.volume().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        put(&path, bytes);
        path
    }

    pub fn guard(self, mode: Mode, listed: &[&Path]) -> Guarded {
        Guarded::start(self, mode, listed, &[])
    }

    /// A guard to which no agent has said anything.
    pub fn guard_without_a_book(self) -> Guarded {
        let mut guarded = Guarded::meet(self, &[]);
        // Its socket is there before its group is.
        guarded.hears(|told| matches!(told, Told::Here { .. }));
        guarded
    }

    /// Without the kernel's questions.
    pub fn launcher_only(self, listed: &[&Path]) -> Guarded {
        Guarded::start(self, Mode::Enforce, listed, &["--launcher-only"])
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.apps.kill().unwrap();
        self.apps.await_empty(Duration::from_secs(5)).unwrap();
        for entry in std::fs::read_dir(self.apps.folder()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                std::fs::remove_dir(entry.path()).unwrap();
            }
        }
        self.apps.clone().remove().unwrap();
        // A mount would keep the folder.
        nix::mount::umount2(&self.volume(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

/// A volume with a guard.
pub struct Guarded {
    stream: UnixStream,
    lines: Lines,
    pub heard: Vec<Told>,
    supervisor: Child,
    version: u64,
    pub lab: Lab,
}

impl Guarded {
    fn start(lab: Lab, mode: Mode, listed: &[&Path], options: &[&str]) -> Self {
        let listed = digests(listed);
        let mut guarded = Self::meet(lab, options);
        guarded.take(mode, listed);
        guarded
    }

    fn meet(lab: Lab, options: &[&str]) -> Self {
        let supervisor = supervise(&lab, options);
        let stream = connect(&lab);
        Self {
            stream,
            lines: Lines::default(),
            heard: Vec::new(),
            supervisor,
            version: 0,
            lab,
        }
    }

    /// Says what counts, and does not wait until it does.
    pub fn send(&mut self, mode: Mode, listed: BTreeMap<Digest, String>) {
        self.version += 1;
        let book = Book::new(self.version, mode, listed).unwrap();
        self.order(&Order::Book(book));
    }

    /// From the return on this book counts.
    pub fn take(&mut self, mode: Mode, listed: BTreeMap<Digest, String>) {
        self.send(mode, listed);
        let version = self.version;
        self.hears(|told| matches!(told, Told::Holds(v) if *v == version));
    }

    pub fn order(&mut self, order: &Order) {
        self.stream.write_all(&line(order).unwrap()).unwrap();
    }

    /// Another agent takes the place of the first.
    pub fn reconnect(&mut self) {
        self.stream = connect(&self.lab);
        self.lines = Lines::default();
        self.heard.clear();
    }

    /// Waits until the other end of the socket is closed.
    pub fn hears_the_end(&mut self) {
        eventually(|| {
            let mut chunk = [0; 65536];
            match self.stream.read(&mut chunk) {
                Ok(0) => Some(()),
                Ok(_) => None,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
                Err(_) => Some(()),
            }
        });
    }

    /// The supervisor dies, and another takes its place.
    pub fn supervise_anew(&mut self) {
        let watch = self.watch_now();
        self.supervisor.kill().unwrap();
        self.supervisor.wait().unwrap();
        if let Some(watch) = watch {
            let _gone = kill(watch, Signal::SIGKILL);
        }
        std::fs::remove_file(self.lab.outside("guard.sock")).unwrap();
        self.supervisor = supervise(&self.lab, &[]);
        self.reconnect();
    }

    /// Waits for something to be told; all that was told stays in `heard`.
    pub fn hears(&mut self, wanted: impl Fn(&Told) -> bool) -> Told {
        eventually(|| {
            self.listen();
            self.heard.iter().find(|told| wanted(told)).cloned()
        })
    }

    pub fn saw(&mut self, path: &Path) -> Saw {
        let path = path.display().to_string();
        let told = self.hears(|told| matches!(told, Told::Saw(saw) if saw.path == path));
        let Told::Saw(saw) = told else { unreachable!() };
        saw
    }

    pub fn listen(&mut self) {
        let mut chunk = [0; 65536];
        if let Ok(count) = self.stream.read(&mut chunk) {
            self.lines.push(&chunk[..count]).unwrap();
            while let Some(told) = self.lines.take_line() {
                self.heard.push(told.unwrap());
            }
        }
    }

    pub fn supervisor(&self) -> Pid {
        Pid::from_raw(self.supervisor.id() as i32)
    }

    /// The process that answers now.
    pub fn watch(&self) -> Pid {
        let path = format!("/proc/{0}/task/{0}/children", self.supervisor());
        eventually(|| {
            std::fs::read_to_string(&path)
                .ok()?
                .trim()
                .parse()
                .ok()
                .map(Pid::from_raw)
        })
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // The supervisor first: it would start another watch.
        let watch = self.watch_now();
        let _gone = self.supervisor.kill();
        self.supervisor.wait().unwrap();
        if let Some(watch) = watch {
            let _gone = kill(watch, Signal::SIGKILL);
        }
    }
}

impl Guarded {
    fn watch_now(&self) -> Option<Pid> {
        let path = format!("/proc/{0}/task/{0}/children", self.supervisor());
        std::fs::read_to_string(path)
            .ok()?
            .trim()
            .parse()
            .ok()
            .map(Pid::from_raw)
    }
}

fn supervise(lab: &Lab, options: &[&str]) -> Child {
    Command::new(GUARD)
        .arg("supervise")
        .args(options)
        .args([
            &lab.volume(),
            &lab.outside("guard.sock"),
            &lab.apps.folder().to_owned(),
        ])
        .spawn()
        .unwrap()
}

fn connect(lab: &Lab) -> UnixStream {
    let socket = lab.outside("guard.sock");
    let stream = eventually(|| UnixStream::connect(&socket).ok());
    stream
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    stream
}

pub fn digests(paths: &[&Path]) -> BTreeMap<Digest, String> {
    paths
        .iter()
        .map(|path| (digest(path), "acme/collector".to_owned()))
        .collect()
}

pub fn digest(path: &Path) -> Digest {
    let due = Instant::now() + Duration::from_secs(10);
    Digest::of(File::open(path).unwrap().as_fd(), due).unwrap()
}

pub fn put(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// Whether it ran and ended with 0.
pub fn runs(command: &mut Command) -> bool {
    output(command).is_some_and(|output| output.status.success())
}

/// None if it could not be started.
pub fn output(command: &mut Command) -> Option<Output> {
    command.stdin(Stdio::null()).output().ok()
}

pub fn run(program: &Path) -> bool {
    runs(&mut Command::new(program))
}

pub fn eventually<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(Instant::now() < end, "it did not happen within 20 s");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Whether walls of the kernel's hold back signals and abstract sockets, too: since Linux 6.12.
pub fn scopes_hold() -> bool {
    let name = nix::sys::utsname::uname().unwrap();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>());
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
    (next(), next()) >= (6, 12)
}

/// Waits until a file's times tell its next change apart.
pub fn settle() {
    std::thread::park_timeout(Duration::from_millis(120));
}
