//! What an application that was launched can and cannot do, with and without the guard over its volume.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::lab::{self, GUARD, LOADER, Lab, digest, put, settle};
use edgeward_guard::book::Mode;
use edgeward_guard::cgroup::Cgroup;
use serde_json::{Value, json};

pub(crate) const UID: u32 = 990;
/// Programs of Debian packages that make up the application.
const PROGRAMS: [&str; 6] = ["cat", "cp", "ls", "perl", "sh", "sleep"];

pub(crate) struct App {
    pub(crate) tree: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) group: Cgroup,
}

impl App {
    pub(crate) fn unpack(lab: &Lab) -> Self {
        for name in PROGRAMS {
            lab.file(
                &format!("app/{name}"),
                &std::fs::read(format!("/usr/bin/{name}")).unwrap(),
            );
        }
        let state = lab.outside("state");
        std::fs::create_dir(&state).unwrap();
        std::os::unix::fs::chown(&state, Some(UID), Some(UID)).unwrap();
        Self {
            tree: lab.volume().join("app"),
            state,
            group: lab.apps.child("app").unwrap(),
        }
    }

    pub(crate) fn files(&self) -> Vec<PathBuf> {
        PROGRAMS.iter().map(|name| self.tree.join(name)).collect()
    }

    pub(crate) fn order(&self, script: &str) -> Value {
        json!({
            "tree": self.tree,
            "program": "sh",
            "digest": digest(&self.tree.join("sh")),
            "args": ["-c", script],
            "env": { "PATH": "/app", "GREETING": "hello" },
            "uid": UID,
            "gid": UID,
            "cgroup": self.group.folder(),
            "state": self.state,
            "host_libraries": true,
        })
    }

    pub(crate) fn start(order: &Value) -> Child {
        // More than an agent should hand on: another file, and groups.
        let careless = "exec 7</etc/passwd; exec setpriv --groups 4,24 \"$0\" launch";
        let mut child = Command::new("/bin/sh")
            .args(["-c", careless, GUARD])
            .env("LD_LIBRARY_PATH", "/tmp")
            .env("SECRET", "of the agent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(order.to_string().as_bytes())
            .unwrap();
        child
    }

    pub(crate) fn run(&self, script: &str) -> Output {
        Self::start(&self.order(script)).wait_with_output().unwrap()
    }

    /// What the script printed; it must have ended well.
    pub(crate) fn says(&self, script: &str) -> String {
        let output = self.run(script);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn can(&self, script: &str) -> bool {
        self.run(script).status.success()
    }
}

#[test]
fn a_program_that_is_not_the_manifests_is_not_started_and_what_is_malformed_neither() {
    let lab = Lab::new();
    let app = App::unpack(&lab);
    let refused = |order: &Value, why: &str| {
        let output = App::start(order).wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && errors.contains(why), "{errors}");
        assert!(output.stdout.is_empty());
    };
    let good = app.order("echo ran");
    let with = |key: &str, value: Value| {
        let mut order = good.clone();
        order[key] = value;
        order
    };
    refused(
        &with("digest", json!("00".repeat(32))),
        "another than the manifest's",
    );
    refused(&with("program", json!("none")), "cannot be opened");
    refused(&with("cgroup", json!("/tmp")), "not a control group");
    refused(&with("uid", json!(0)), "root");
    std::fs::OpenOptions::new()
        .append(true)
        .open(app.tree.join("sh"))
        .unwrap()
        .write_all(b"x")
        .unwrap();
    refused(&good, "another than the manifest's");
}

#[test]
fn an_application_has_its_own_user_root_environment_and_group_and_no_rights() {
    let lab = Lab::new();
    let app = App::unpack(&lab);
    let status = app.says("cat /proc/self/status");
    for line in [
        "Uid:\t990\t990\t990\t990",
        "Gid:\t990\t990\t990\t990",
        "Groups:\t ",
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(status.lines().any(|l| l == line), "{line}: {status}");
    }
    let environ = app.says("exec cat /proc/self/environ");
    let mut variables: Vec<_> = environ
        .split_terminator('\0')
        .filter(|v| !v.starts_with("PWD="))
        .collect();
    variables.sort_unstable();
    assert_eq!(variables, ["GREETING=hello", "PATH=/app"]);
    assert!(app.says("exec cat /proc/self/cgroup").contains("/app\n"));
    for path in [
        "/app",
        "/dev",
        "/etc",
        "/lib",
        "/proc",
        "/state",
        "/tmp",
        "/usr/lib",
        "/dev/stdin",
        "/dev/shm",
    ] {
        assert!(app.can(&format!("[ -e {path} ]")), "{path}");
    }
    for path in [
        "/home",
        "/root",
        "/sys",
        "/run",
        "/var",
        "/usr/bin",
        "/bin",
        "/etc/shadow",
        "/proc/sys",
    ] {
        assert!(!app.can(&format!("[ -e {path} ]")), "{path}");
    }
    // Its own listing's descriptor is the fourth.
    assert_eq!(app.says("exec ls /proc/self/fd").lines().count(), 4);
    assert_eq!(app.says("exec cat"), "");
    assert_eq!(
        app.says("exec perl -e 'print readlink \"/proc/self/fd/0\"'"),
        "/dev/null"
    );
    assert!(!app.can("ls /proc/1"));
}

#[test]
fn an_application_reaches_no_process_of_its_user_outside_and_no_program_among_the_libraries() {
    let lab = Lab::new();
    let app = App::unpack(&lab);
    let mut other = Command::new("sleep")
        .arg("1000")
        .uid(UID)
        .gid(UID)
        .spawn()
        .unwrap();
    let reached = app.can(&format!("kill -0 {}", other.id()));
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(app.can("kill -0 $$"));
    assert_eq!(!reached, lab::scopes_hold());
    let among = "/usr/lib/apt/methods/copy";
    assert!(lab::runs(&mut Command::new(among)));
    assert!(!app.can(&format!("exec {among}")));
}

#[test]
fn what_an_application_can_write_it_cannot_execute() {
    let lab = Lab::new();
    let app = App::unpack(&lab);
    for folder in ["/state", "/tmp", "/dev/shm"] {
        assert!(app.can(&format!(
            "cp /app/cat {folder}/new && cat {folder}/new > /dev/null"
        )));
        assert!(!app.can(&format!(
            "cp /app/cat {folder}/new; exec {folder}/new /dev/null"
        )));
        assert!(!app.can(&format!(
            "cp /app/cat {folder}/new; exec {LOADER} {folder}/new /dev/null"
        )));
        assert!(!app.can(&format!(
            "cp /usr/lib/x86_64-linux-gnu/libm.so.6 {folder}/evil.so; LD_PRELOAD={folder}/evil.so cat /proc/self/maps > {folder}/maps; while read line; do case \"$line\" in *r-xp*evil.so*) exit 0;; esac; done < {folder}/maps; exit 1"
        )));
    }
    for path in [
        "/app/new",
        "/new",
        "/usr/lib/new",
        "/etc/new",
        "/dev/new",
        "/lib64/new",
    ] {
        assert!(!app.can(&format!("cp /app/cat {path}")), "{path}");
    }
}

#[test]
fn code_does_not_come_from_memory_files_nor_from_the_machines_programs() {
    let lab = Lab::new();
    let app = App::unpack(&lab);
    let call = |number: u32, rest: &str| {
        app.says(&format!(
            "exec perl -e '$r = syscall({number}{rest}); print $r, \" \", $! + 0'"
        ))
    };
    // memfd_create: with and without the flag that makes it not executable; clone3, unshare, ptrace, bpf, io_uring_setup.
    assert_eq!(call(319, ", $n = \"x\", 0"), "-1 1");
    assert_eq!(call(319, ", $n = \"x\", 8"), "-1 1");
    assert_eq!(call(435, ", 0, 0"), "-1 38");
    assert_eq!(call(272, ", 0x10000000"), "-1 1");
    assert_eq!(call(101, ", 0, 0, 0, 0"), "-1 1");
    assert_eq!(call(321, ", 0, 0, 0"), "-1 1");
    assert_eq!(call(425, ", 1, 0"), "-1 1");
    assert_eq!(call(135, ", 0x400000"), "-1 1");
    // The same in the third table, where the kernel has one.
    assert_ne!(
        call(319 + 0x4000_0000, ", $n = \"x\", 0").split(' ').next(),
        Some("3")
    );
    for path in ["/usr/bin/python3", "/bin/sh", "/usr/bin/env"] {
        assert!(!app.can(&format!("exec {path} -c exit")), "{path}");
    }
}

/// The application's own interpreter does what it is given: which interpreters an application has, its publisher signs.
#[test]
fn a_script_in_the_state_runs_by_the_applications_own_interpreter_only() {
    let lab = Lab::new();
    let app = App::unpack(&lab);
    put(&app.state.join("evil.sh"), b"#!/app/sh\nexit 0\n");
    assert!(!app.can("exec /state/evil.sh"));
    assert!(app.can("exec sh /state/evil.sh"));
}

#[test]
fn an_unsigned_file_beside_the_program_runs_unless_the_guard_is_there() {
    let lab = Lab::new();
    let app = App::unpack(&lab);
    let files = app.files();
    let listed: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    lab.file(
        "app/unsigned",
        &[std::fs::read("/bin/true").unwrap(), b"x".to_vec()].concat(),
    );
    assert!(app.can("exec /app/unsigned"));
    settle();
    let _guarded = lab.guard(Mode::Enforce, &listed);
    assert!(!app.can("exec /app/unsigned"));
    assert!(!app.can(&format!("exec {LOADER} /app/unsigned")));
    assert!(app.can("exec cat /app/cat > /dev/null"));
}

/// The launcher reads the program that it starts; whatever else lies in the tree is the guard's, or is verified before.
#[test]
fn what_lies_unsigned_in_the_tree_reaches_an_application_by_every_way_without_the_guard_and_by_none_with_it()
 {
    let lab = Lab::new();
    let app = App::unpack(&lab);
    let files = app.files();
    let listed: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    lab.file(
        "app/unsigned",
        &[std::fs::read("/bin/true").unwrap(), b"x".to_vec()].concat(),
    );
    lab.file("app/unsigned.sh", b"exit 0\n");
    lab.file(
        "app/evil.so",
        &std::fs::read("/usr/lib/x86_64-linux-gnu/libm.so.6").unwrap(),
    );
    let ways = [
        "exec /app/unsigned".to_owned(),
        format!("exec {LOADER} /app/unsigned"),
        "exec sh /app/unsigned.sh".to_owned(),
        ". /app/unsigned.sh".to_owned(),
        "LD_PRELOAD=/app/evil.so cat /proc/self/maps > /state/maps; while read line; do case \"$line\" in *r-xp*evil.so*) exit 0;; esac; done < /state/maps; exit 1".to_owned(),
    ];
    for way in &ways {
        assert!(app.can(way), "{way}");
    }
    settle();
    let _guarded = lab.guard(Mode::Enforce, &listed);
    for way in &ways {
        assert!(!app.can(way), "{way}");
    }
    assert!(app.can("exec sh -c 'exit 0'"));
}

#[test]
fn a_library_that_was_changed_is_mapped_without_the_guard_and_not_with_it() {
    let lab = Lab::new();
    let app = App::unpack(&lab);
    let library = lab.file(
        "app/libown.so",
        &std::fs::read("/usr/lib/x86_64-linux-gnu/libm.so.6").unwrap(),
    );
    let mut files = app.files();
    files.push(library.clone());
    let listed: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let maps = "LD_PRELOAD=/app/libown.so cat /proc/self/maps > /state/maps; while read line; do case \"$line\" in *r-xp*libown.so*) exit 0;; esac; done < /state/maps; exit 1";
    let change = || {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(&library)
            .unwrap();
        file.write_all(b"x").unwrap();
    };
    change();
    assert!(app.can(maps), "the launcher reads the program only");
    settle();
    let mut guarded = lab.guard(Mode::Enforce, &listed);
    assert!(app.can(maps));
    change();
    assert!(!app.can(maps));
    guarded.take(Mode::Enforce, lab::digests(&[&library]));
    assert!(!app.can(maps), "its program is not listed any more");
}

/// Code that an application makes in its own memory is its own: its publisher signed what makes it.
#[test]
fn an_application_can_make_code_in_its_own_memory() {
    let lab = Lab::new();
    let app = App::unpack(&lab);
    let files = app.files();
    let listed: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    settle();
    let _guarded = lab.guard(Mode::Enforce, &listed);
    // mmap of 4096 anonymous bytes that can be read, written and executed.
    let map = "exec perl -e '$at = syscall(9, 0, 4096, 7, 0x22, -1, 0); exit($at == -1)'";
    assert!(app.can(map));
}

#[test]
fn a_running_application_is_ended_with_all_it_started() {
    let lab = Lab::new();
    let app = App::unpack(&lab);
    let script = "sleep 1000 & sleep 1000 & echo up; while :; do :; done";
    let mut took = Vec::new();
    for _ in 0..10 {
        let mut running = App::start(&app.order(script));
        let mut up = [0; 3];
        std::io::Read::read_exact(running.stdout.as_mut().unwrap(), &mut up).unwrap();
        let begun = Instant::now();
        app.group.end(Duration::from_secs(10)).unwrap();
        took.push(begun.elapsed());
        assert!(!running.wait().unwrap().success());
    }
    took.sort();
    println!("from the order to the empty group: {took:?}");
}

/// Sockets belong to the group in which they were made: the launcher enters it before there is any.
#[test]
fn an_application_reaches_only_what_its_own_lease_names() {
    let lab = Lab::new();
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    assert!(lab::runs(
        Command::new("ip").args(["link", "set", "lo", "up"])
    ));
    let app = App::unpack(&lab);
    let path = app
        .group
        .folder()
        .strip_prefix("/sys/fs/cgroup")
        .unwrap()
        .to_owned();
    let nft = |text: String| {
        let mut nft = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        nft.stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        assert!(nft.wait().unwrap().success());
    };
    let group = path.display();
    let key = "socket cgroupv2 level 2 . ip daddr . meta l4proto . th dport";
    nft(format!(
        "table inet apps {{
            set leases {{ typeof {key}; flags timeout; }}
            map known {{ typeof socket cgroupv2 level 2 : verdict; elements = {{ \"{group}\" : jump app }} }}
            chain app {{ {key} @leases accept; reject; }}
            chain out {{ type filter hook output priority 0; socket cgroupv2 level 2 vmap @known; }}
        }}"
    ));
    let send = |port: u16| {
        format!(
            "exec perl -MSocket -e 'socket(S, PF_INET, SOCK_DGRAM, 0) or die; send(S, \"x\", 0, pack_sockaddr_in({port}, inet_aton(\"127.0.0.1\"))) or die $!'"
        )
    };
    let outside = || {
        let script = "use Socket; socket(S, PF_INET, SOCK_DGRAM, 0) or die; send(S, 'x', 0, pack_sockaddr_in(4711, inet_aton('127.0.0.1'))) or die";
        lab::runs(Command::new("perl").args(["-e", script]))
    };
    assert!(!app.can(&send(4711)) && outside());
    nft(format!(
        "add element inet apps leases {{ \"{group}\" . 127.0.0.1 . udp . 4711 timeout 3s }}"
    ));
    assert!(app.can(&send(4711)) && !app.can(&send(4712)));
    lab::eventually(|| (!app.can(&send(4711))).then_some(()));
    assert!(outside());
}
