//! What a launched application tries to get out: past the rules about packets, into other processes, to rights that a file
//! gives, to another program than its own.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Command;

use crate::lab::{self, Lab, digest, settle};
use crate::launcher::{App, UID};
use edgeward_guard::book::Mode;
use nix::mount::{MsFlags, mount};

const NO_FAMILY: i32 = 97;
const REFUSED: i32 = 1;

/// The number of the error that a call ends with, 0 if it does not.
fn call(app: &App, number: u32, arguments: &str) -> i32 {
    let said = app.says(&format!(
        "exec perl -e '$! = 0; $r = syscall({number}{arguments}); print $r < 0 ? $! + 0 : 0'"
    ));
    said.parse().unwrap()
}

fn socket(family: u32, kind: u32, protocol: u32) -> String {
    format!("perl -e 'socket(S, {family}, {kind}, {protocol}) or exit $! + 0'")
}

/// Rules about packets know the group of a socket of the internet's. Whatever leaves by another family, they never see.
#[test]
fn an_application_has_no_sockets_that_rules_about_packets_do_not_see() {
    let lab = Lab::new();
    let app = App::unpack(&lab);
    let inside = |script: &str| app.run(&format!("exec {script}")).status.code().unwrap();
    // Of the machine's own, of the two internets, and what the kernel tells of addresses.
    for (family, kind, protocol) in [(1, 1, 0), (2, 1, 0), (2, 2, 0), (10, 2, 0), (16, 3, 0)] {
        assert_eq!(inside(&socket(family, kind, protocol)), 0, "{family}");
    }
    // The hypervisor, field buses, radios, the kernel's cryptography, packets as they are.
    for family in (3..10).chain(11..16).chain(17..46) {
        for kind in [1, 2, 3, 5] {
            let found = inside(&socket(family, kind, 0));
            assert_eq!(found, NO_FAMILY, "{family} {kind}");
        }
    }
    // Sockets of others, the kernel's events, its audit: told to any user, and not to an application.
    let diagnosis = socket(16, 3, 4);
    let outside = Command::new("sh")
        .args(["-c", &diagnosis])
        .uid(UID)
        .status();
    assert!(outside.unwrap().success());
    for protocol in [4, 9, 12, 15, 16] {
        assert_eq!(inside(&socket(16, 3, protocol)), NO_FAMILY, "{protocol}");
    }
    // Raw ones need a right that it has not.
    assert_eq!(inside(&socket(2, 3, 1)), REFUSED);
    // As the same call is numbered in the third table, where there is one.
    let third = call(&app, 41 + 0x4000_0000, ", 40, 1, 0");
    assert!(third == NO_FAMILY || third == 38, "{third}");
}

#[test]
fn an_application_speaks_to_no_abstract_socket_of_the_machine() {
    let lab = Lab::new();
    let app = App::unpack(&lab);
    let name = format!("edgeward-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let connect = format!(
        "perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0); connect(S, pack(\"Sa*\", 1, \"\\0{name}\")) or exit $! + 0'"
    );
    let outside = Command::new("sh").args(["-c", &connect]).uid(UID).status();
    assert!(outside.unwrap().success());
    let inside = app.run(&format!("exec {connect}"));
    let refused = inside.status.code() == Some(REFUSED);
    assert_eq!(refused, lab::scopes_hold());
}

#[test]
fn an_application_makes_no_namespace_and_no_child_in_another_group() {
    let lab = Lab::new();
    let app = App::unpack(&lab);
    // Users, network, mounts, groups, processes, names, messages, time: alone and with users, which gives the right to.
    for flag in [
        0x1000_0000_u64,
        0x4000_0000,
        0x2_0000,
        0x0200_0000,
        0x2000_0000,
        0x0400_0000,
        0x0800_0000,
        0x80,
    ] {
        assert_eq!(call(&app, 272, &format!(", {flag}")), REFUSED, "{flag:x}");
        // A child by clone, whose lowest byte is a signal.
        for with in [flag, flag | 0x1000_0000] {
            if with & 0xff != 0 {
                continue;
            }
            let made = call(&app, 56, &format!(", {}, 0, 0, 0, 0", with | 17));
            assert_eq!(made, REFUSED, "{with:x}");
        }
    }
    // Into a namespace or, by the newest call, a group that somebody else has open.
    assert_eq!(call(&app, 308, ", 0, 0"), REFUSED);
    assert_eq!(call(&app, 435, ", 0, 0"), 38);
    for path in ["/sys", "/sys/fs/cgroup", "/proc/1", "/proc/sys"] {
        assert!(!app.can(&format!("[ -e {path} ]")), "{path}");
    }
    // However it forks, what it started stays in its group and goes with it.
    let group = "exec perl -e 'fork && exit; setpgrp; fork && exit; open F, \"/proc/self/cgroup\"; print <F>'";
    let said = app.says(group);
    assert!(said.lines().any(|line| line.ends_with("/app")), "{said}");
}

#[test]
fn an_application_looks_into_no_memory_but_by_its_own_code() {
    let lab = Lab::new();
    let app = App::unpack(&lab);
    for (number, what) in [
        (101, "ptrace"),
        (310, "process_vm_readv"),
        (311, "process_vm_writev"),
        (312, "kcmp"),
        (323, "userfaultfd"),
        (438, "pidfd_getfd"),
        (440, "process_madvise"),
        (447, "memfd_secret"),
        (298, "perf_event_open"),
        (304, "open_by_handle_at"),
        (425, "io_uring_setup"),
        (426, "io_uring_enter"),
        (427, "io_uring_register"),
        (165, "mount"),
        (428, "open_tree"),
        (429, "move_mount"),
        (155, "pivot_root"),
        (161, "chroot"),
        (300, "fanotify_init"),
        (250, "keyctl"),
        (175, "init_module"),
        (246, "kexec_load"),
    ] {
        assert_eq!(call(&app, number, ", 0, 0, 0, 0, 0"), REFUSED, "{what}");
    }
    // Its own memory as a file, by which what cannot be written to in it could be.
    assert!(app.can("exec 3</proc/self/maps"));
    assert!(!app.can("exec 3<>/proc/self/mem"));
    // A core, to a file or to the program of the machine's that takes them.
    let limits = app.says("exec cat /proc/self/limits");
    let core = limits.lines().find(|line| line.starts_with("Max core"));
    let core: Vec<&str> = core.unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["1", "1"], "{core:?}");
}

/// The calls of another processor's table would be other calls by the same numbers.
#[test]
fn an_application_that_calls_by_another_table_is_ended() {
    let lab = Lab::new();
    let app = App::unpack(&lab);
    lab.file("app/python3", &std::fs::read("/usr/bin/python3").unwrap());
    // mov eax, 20 (getpid of that table); int 0x80; ret
    let script = "import ctypes, mmap, os; \
        m = mmap.mmap(-1, 4096, prot=7); m.write(bytes.fromhex(\"b814000000cd80c3\")); \
        f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m))); \
        print(\"calls\", flush=True); print(\"pid\", f() == os.getpid(), flush=True)";
    let inside = app.run(&format!("exec python3 -c '{script}'"));
    let said = String::from_utf8_lossy(&inside.stdout).into_owned();
    let errors = String::from_utf8_lossy(&inside.stderr).into_owned();
    assert_eq!(said, "calls\n", "{errors}");
    // By the filter, or where the kernel has no such table at all.
    let signal = inside.status.signal();
    assert!(matches!(signal, Some(11 | 31)), "{:?}", inside.status);
}

#[test]
fn a_file_that_gives_rights_gives_none_to_an_application() {
    let lab = Lab::new();
    let app = App::unpack(&lab);
    let cat = app.tree.join("cat");
    std::fs::set_permissions(&cat, PermissionsExt::from_mode(0o6755)).unwrap();
    let outside = Command::new(&cat)
        .arg("/proc/self/status")
        .uid(UID)
        .output();
    let outside = String::from_utf8(outside.unwrap().stdout).unwrap();
    assert!(outside.contains("Uid:\t990\t0\t0\t0"), "{outside}");
    let inside = app.says("exec cat /proc/self/status");
    assert!(inside.contains("Uid:\t990\t990\t990\t990"), "{inside}");
    assert!(inside.contains("Gid:\t990\t990\t990\t990"), "{inside}");
}

/// Its mounts are its own: what is mounted on the machine afterwards does not show in it.
#[test]
fn what_is_mounted_over_the_tree_of_an_application_that_runs_does_not_reach_it() {
    let lab = Lab::new();
    let app = App::unpack(&lab);
    let script = "echo up > /state/up; while [ ! -e /state/go ]; do sleep 0.05; done; \
        [ -e /app/evil ] && exit 1; cat /app/cat > /dev/null";
    let running = app.order(script);
    let child = App::start(&running);
    lab::eventually(|| app.state.join("up").exists().then_some(()));
    let none = None::<&str>;
    mount(
        Some("tmpfs"),
        &app.tree,
        Some("tmpfs"),
        MsFlags::empty(),
        none,
    )
    .unwrap();
    std::fs::write(app.tree.join("evil"), "x").unwrap();
    std::fs::write(app.state.join("go"), "x").unwrap();
    let ended = child.wait_with_output().unwrap();
    nix::mount::umount2(&app.tree, nix::mount::MntFlags::MNT_DETACH).unwrap();
    assert!(ended.status.success(), "{ended:?}");
}

/// A listed program that was changed does not run by any of the names that an application has for it.
#[test]
fn by_no_other_name_does_an_application_reach_what_is_unlisted_in_its_tree() {
    let lab = Lab::new();
    let app = App::unpack(&lab);
    let listed: Vec<_> = app.files();
    let listed: Vec<&Path> = listed.iter().map(|path| path.as_path()).collect();
    let bytes = [std::fs::read("/bin/true").unwrap(), b"x".to_vec()].concat();
    lab.file("app/unsigned", &bytes);
    assert!(digest(&app.tree.join("unsigned")) != digest(&app.tree.join("cat")));
    let ways = [
        "exec /proc/self/root/app/unsigned".to_owned(),
        "exec /proc/self/cwd/../app/unsigned".to_owned(),
        "exec 7</app/unsigned; exec /proc/self/fd/7".to_owned(),
        "exec perl -e '$p = \"/app/unsigned\"; $d = syscall(257, -100, $p, 0x200000); @a = (\"x\"); \
            $v = pack(\"p x8\", $a[0]); syscall(322, $d, $n = \"\", $v, 0, 0x1000); exit 9'"
            .to_owned(),
        format!("exec {} /proc/self/root/app/unsigned", lab::LOADER),
    ];
    for way in &ways {
        assert!(app.can(way), "{way}");
    }
    settle();
    let _guarded = lab.guard(Mode::Enforce, &listed);
    for way in &ways {
        assert!(!app.can(way), "{way}");
    }
}
