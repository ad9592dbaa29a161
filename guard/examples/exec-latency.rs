//! What each level adds to starting a program: `unshare -m exec-latency GUARD`, as root. Prints markdown.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a measurement"
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use edgeward_guard::book::{Book, Mode};
use edgeward_guard::control::{Order, line};
use edgeward_guard::digest::Digest;
use nix::mount::{MsFlags, mount};

const ROUNDS: usize = 400;

fn digest(path: &Path) -> Digest {
    Digest::of(
        std::fs::File::open(path).unwrap().as_fd(),
        Instant::now() + Duration::from_secs(10),
    )
    .unwrap()
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
        assert!(
            Command::new(path)
                .stdin(Stdio::null())
                .status()
                .unwrap()
                .success()
        )
    })
}

fn open(path: &Path) -> Duration {
    time(|| drop(std::fs::File::open(path).unwrap()))
}

fn main() {
    let guard = std::env::args().nth(1).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let (volume, groups) = (folder.path().join("volume"), folder.path().join("cgroup"));
    for (at, kind) in [(&volume, "tmpfs"), (&groups, "cgroup2")] {
        std::fs::create_dir(at).unwrap();
        let data = (kind == "tmpfs").then_some("mode=755");
        mount(Some(kind), at, Some(kind), MsFlags::empty(), data).unwrap();
    }
    let apps = groups.join(format!("edgeward-bench-{}", std::process::id()));
    let app = apps.join("app");
    std::fs::create_dir_all(&app).unwrap();
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let bytes = std::fs::read("/bin/true").unwrap();
    let mut big = std::fs::read("/bin/true").unwrap();
    big.resize(20 << 20, 7);
    let put = |name: String, bytes: &[u8]| -> PathBuf {
        let path = volume.join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path
    };
    let programs: Vec<_> = (0..ROUNDS).map(|n| put(format!("p{n}"), &bytes)).collect();
    let large: Vec<_> = (0..20).map(|n| put(format!("l{n}"), &big)).collect();
    let listed = BTreeMap::from([
        (digest(&programs[0]), "a".to_owned()),
        (digest(&large[0]), "a".to_owned()),
    ]);
    println!(
        "program of {} bytes\n\n| what | min us | p50 us | p99 us |\n|---|---|---|---|",
        bytes.len()
    );
    let warm = || programs.iter().map(|p| exec(p)).collect::<Vec<_>>();
    warm();
    row("exec, no guard", warm());
    row("open, no guard", programs.iter().map(|p| open(p)).collect());

    let socket = folder.path().join("guard.sock");
    let mut supervisor = Command::new(&guard)
        .arg("supervise")
        .args([&volume, &socket, &apps])
        .spawn()
        .unwrap();
    let mut stream = loop {
        if let Ok(stream) = UnixStream::connect(&socket) {
            break stream;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    };
    stream
        .write_all(&line(&Order::Book(Book::new(1, Mode::Enforce, listed).unwrap())).unwrap())
        .unwrap();
    stream.read_exact(&mut [0; 8]).unwrap();
    row("exec, guard, file not read before", warm());
    row("exec, guard, known", warm());
    row(
        "exec of 20 MiB, guard, file not read before",
        large.iter().map(|p| exec(p)).collect(),
    );
    row(
        "exec of 20 MiB, guard, known",
        large.iter().map(|p| exec(p)).collect(),
    );
    // The installer's own opens are asked about and answered without a digest.
    row(
        "open, guard, known",
        programs.iter().map(|p| open(p)).collect(),
    );
    row(
        "open by the installer of what is new, guard",
        (0..ROUNDS)
            .map(|n| {
                let path = put(format!("n{n}"), b"x");
                open(&path)
            })
            .collect(),
    );

    let order = serde_json::json!({
        "tree": volume, "program": "p0", "digest": digest(&programs[0]), "uid": 990, "gid": 990,
        "cgroup": app, "state": state, "host_libraries": true,
    })
    .to_string();
    row(
        "launcher, from order to end, guard, known",
        (0..ROUNDS / 4)
            .map(|_| {
                time(|| {
                    let mut child = Command::new(&guard)
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
                })
            })
            .collect(),
    );

    let children =
        std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", supervisor.id())).unwrap();
    let rss = |pid: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status
            .lines()
            .find(|l| l.starts_with("VmRSS"))
            .unwrap()
            .to_owned()
    };
    println!(
        "\nsupervisor {}, watch {}",
        rss(&supervisor.id().to_string()),
        rss(children.trim())
    );
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(children.trim().parse().unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    std::fs::remove_dir(&app).unwrap();
    std::fs::remove_dir(&apps).unwrap();
    for at in [&volume, &groups] {
        nix::mount::umount2(at, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}
