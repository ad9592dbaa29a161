//! The application's own file tree: itself, its state, what it needs of the machine, and nothing that is both writable
//! and executable.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, pivot_root};

use super::order::Order;

/// Where the application finds itself.
pub const APP: &str = "/app";
/// Where it may write.
pub const STATE: &str = "/state";
/// Where it finds the sockets that are for it.
pub const RUN: &str = "/run/edgeward";
/// Largest private temporary folder, as mount(8) says it.
const TMP_SIZE: &str = "size=64m,nr_inodes=16k,mode=1777";
/// Of the processes only those that the application could look into anyway, and nothing of the machine.
const PROC: &str = "hidepid=invisible,subset=pid";
/// Folders of the machine that hold its libraries, never its programs: an interpreter of the machine's would run
/// whatever it is given. On many machines the short ones are links into the long ones.
pub const LIBRARIES: [&str; 5] = ["/usr/lib", "/usr/lib64", "/usr/share", "/lib", "/lib64"];
/// What starts a program that is linked to libraries.
pub const LOADERS: [&str; 5] = [
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-linux-armhf.so.3",
    "/lib/ld-musl-x86_64.so.1",
    "/lib/ld-musl-aarch64.so.1",
];
/// Files of the machine that libraries read.
const SETTINGS: [&str; 8] = [
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/etc/nsswitch.conf",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/ssl",
    "/etc/localtime",
    "/etc/passwd",
];
/// Where the application may write what is gone when it ends.
pub const MEMORY: [&str; 2] = ["/tmp", "/dev/shm"];
const DEVICE_LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

#[derive(Debug, thiserror::Error)]
pub enum RootError {
    #[error("own mounts: {0}")]
    Namespace(#[source] nix::Error),
    #[error("{what} {}: {error}", .path.display())]
    Step {
        what: &'static str,
        path: PathBuf,
        error: io::Error,
    },
}

/// From the return on this process sees the application's tree only.
pub fn build(order: &Order) -> Result<(), RootError> {
    // Shared memory and queues of System V know users, not roots: those of the machine's are not the application's.
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC).map_err(RootError::Namespace)?;
    let all = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, all, None::<&str>).map_err(RootError::Namespace)?;
    // Any folder serves that exists everywhere and of which nothing is shown: it is covered in this namespace only.
    let new = Path::new("/proc");
    let base = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    tmpfs(new, base, "size=1m,mode=755")?;
    let at = |path: &str| new.join(path.trim_start_matches('/'));

    bind(&order.tree, &at(APP), MsFlags::MS_RDONLY)?;
    bind(&order.state, &at(STATE), MsFlags::MS_NOEXEC)?;
    if order.host_libraries {
        for path in LIBRARIES {
            show_library(Path::new(path), &at(path))?;
        }
        for path in SETTINGS {
            if Path::new(path).exists() {
                bind(
                    Path::new(path),
                    &at(path),
                    MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC,
                )?;
            }
        }
    }
    if let Some(folder) = order.workload.as_deref().and_then(Path::parent) {
        bind(folder, &at(RUN), MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC)?;
    }
    for name in DEVICES {
        let path = format!("/dev/{name}");
        bind_device(Path::new(&path), &at(&path))?;
    }
    for (name, target) in DEVICE_LINKS {
        let link = at("/dev").join(name);
        std::os::unix::fs::symlink(target, &link).map_err(|error| failed("link", &link, error))?;
    }
    make_folder(&at("/proc"))?;
    mount(Some("proc"), &at("/proc"), Some("proc"), base, Some(PROC))
        .map_err(|error| failed("mount processes at", &at("/proc"), error.into()))?;
    for path in MEMORY {
        make_folder(&at(path))?;
        tmpfs(&at(path), base, TMP_SIZE)?;
    }
    enter(new)
}

/// The new root becomes `/`, read-only; the old one goes.
fn enter(new: &Path) -> Result<(), RootError> {
    let step = |what, error: nix::Error| failed(what, new, error.into());
    chdir(new).map_err(|error| step("enter", error))?;
    pivot_root(".", ".").map_err(|error| step("turn to", error))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(|error| step("leave the root before", error))?;
    chdir("/").map_err(|error| step("enter", error))?;
    let flags = MsFlags::MS_REMOUNT
        | MsFlags::MS_BIND
        | MsFlags::MS_RDONLY
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOEXEC;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
        .map_err(|error| step("make read-only", error))
}

/// A folder, or the link that stands for it.
fn show_library(from: &Path, to: &Path) -> Result<(), RootError> {
    let Ok(kind) = std::fs::symlink_metadata(from) else {
        return Ok(());
    };
    if let Some(above) = to.parent() {
        make_folder(above)?;
    }
    if !kind.is_symlink() {
        return bind(from, to, MsFlags::MS_RDONLY);
    }
    let target = std::fs::read_link(from).map_err(|error| failed("read", from, error))?;
    std::os::unix::fs::symlink(target, to).map_err(|error| failed("link", to, error))
}

/// Shows `from` at `to` with these restrictions, and never with set-user-id programs or devices.
fn bind(from: &Path, to: &Path, flags: MsFlags) -> Result<(), RootError> {
    bind_with(from, to, flags | MsFlags::MS_NODEV)
}

fn bind_device(from: &Path, to: &Path) -> Result<(), RootError> {
    bind_with(from, to, MsFlags::MS_NOEXEC)
}

fn bind_with(from: &Path, to: &Path, flags: MsFlags) -> Result<(), RootError> {
    let is_folder = std::fs::metadata(from)
        .map_err(|error| failed("look at", from, error))?
        .is_dir();
    if is_folder {
        make_folder(to)?;
    } else {
        if let Some(above) = to.parent() {
            make_folder(above)?;
        }
        std::fs::File::create(to).map_err(|error| failed("make", to, error))?;
    }
    let none = None::<&str>;
    mount(Some(from), to, none, MsFlags::MS_BIND, none)
        .map_err(|error| failed("show", from, error.into()))?;
    // Restrictions of a bind mount only count when it is mounted a second time.
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOSUID | flags;
    mount(none, to, none, flags, none).map_err(|error| failed("restrict", from, error.into()))
}

fn tmpfs(at: &Path, flags: MsFlags, options: &str) -> Result<(), RootError> {
    mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(options))
        .map_err(|error| failed("mount memory at", at, error.into()))
}

fn make_folder(path: &Path) -> Result<(), RootError> {
    std::fs::create_dir_all(path)
        .and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(0o755)))
        .map_err(|error| failed("make", path, error))
}

fn failed(what: &'static str, path: &Path, error: io::Error) -> RootError {
    RootError::Step {
        what,
        path: path.to_owned(),
        error,
    }
}
