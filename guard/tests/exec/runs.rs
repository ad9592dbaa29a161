//! Applications as the supervisor starts and ends them for the agent.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lab::{self, Guarded, Lab, eventually, settle};
use crate::launcher::{App, UID};
use edgeward_guard::book::Mode;
use edgeward_guard::control::{Order, Start, Told};
use edgeward_guard::level::Level;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

fn guarded() -> (App, Guarded) {
    let lab = Lab::new();
    let app = App::unpack(&lab);
    let files = app.files();
    let listed: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    settle();
    let guarded = lab.guard(Mode::Enforce, &listed);
    (app, guarded)
}

fn start(order: &Value) -> Order {
    Order::Start(Box::new(Start {
        name: "app".to_owned(),
        what: "acme/collector 2.3".to_owned(),
        order: serde_json::from_value(order.clone()).unwrap(),
    }))
}

fn with(order: &Value, key: &str, value: Value) -> Value {
    let mut order = order.clone();
    order[key] = value;
    order
}

/// Runs the script to its end; what it wrote.
fn says(guarded: &mut Guarded, order: &Value) -> (Vec<String>, Option<i32>) {
    guarded.heard.clear();
    guarded.order(&start(order));
    let told = guarded.hears(|told| matches!(told, Told::Ended { .. } | Told::NotStarted { .. }));
    let Told::Ended { how, .. } = told else {
        panic!("{told:?}");
    };
    let lines = guarded.heard.iter().filter_map(|told| match told {
        Told::Wrote { text, .. } => Some(text.clone()),
        _ => None,
    });
    (lines.collect(), how.code)
}

#[test]
fn an_order_that_leads_out_of_the_volume_or_the_group_starts_nothing() {
    let (app, mut guarded) = guarded();
    let good = app.order("echo ran");
    let above = guarded.lab.apps.folder().to_owned();
    for (order, why) in [
        (with(&good, "tree", json!("/usr/bin")), "out of the volume"),
        (with(&good, "cgroup", json!(above)), "out of the volume"),
        (with(&good, "uid", json!(0)), "root"),
        (with(&good, "limits", json!({ "tasks": 0 })), "zero"),
        (with(&good, "args", json!(vec!["a"; 257])), "more arguments"),
    ] {
        guarded.heard.clear();
        guarded.order(&start(&order));
        let told = guarded.hears(|told| matches!(told, Told::NotStarted { .. }));
        assert!(
            matches!(&told, Told::NotStarted { why: said, .. } if said.contains(why)),
            "{told:?}"
        );
    }
    // What the launcher itself refuses is told by its words and its end.
    let changed = with(&good, "digest", json!("00".repeat(32)));
    let (lines, code) = says(&mut guarded, &changed);
    assert_eq!(code, Some(1));
    assert!(
        lines[0].contains("another than the manifest's"),
        "{lines:?}"
    );
    assert_eq!(says(&mut guarded, &good).0, ["ran"]);
}

/// Root can mount anything anywhere: what is launched is of the file system that is watched.
#[test]
fn what_somebody_mounted_over_a_tree_or_over_the_volume_is_not_launched() {
    let (app, mut guarded) = guarded();
    let order = app.order("echo ran");
    assert_eq!(says(&mut guarded, &order).0, ["ran"]);
    let volume = guarded.lab.volume();
    let copy = guarded.lab.outside("copy");
    std::fs::create_dir(&copy).unwrap();
    for file in app.files() {
        std::fs::copy(&file, copy.join(file.file_name().unwrap())).unwrap();
    }
    let other = guarded.lab.outside("other");
    std::fs::create_dir(&other).unwrap();
    let none = None::<&str>;
    let tmpfs = |at: &Path| {
        let data = Some("mode=755");
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), data).unwrap();
    };
    let refused = |guarded: &mut Guarded, words: &str| {
        guarded.heard.clear();
        guarded.order(&start(&order));
        let told = guarded.hears(|told| matches!(told, Told::NotStarted { .. } | Told::Started(_)));
        assert!(
            matches!(&told, Told::NotStarted { why, .. } if why.contains(words)),
            "{told:?}"
        );
    };
    // The same bytes from elsewhere, where nobody asks about what is put beside them later.
    mount(Some(&copy), &app.tree, none, MsFlags::MS_BIND, none).unwrap();
    refused(&mut guarded, "out of the volume");
    umount2(&app.tree, MntFlags::MNT_DETACH).unwrap();
    // Of the volume itself, by another way than its own.
    mount(Some(&volume), &other, none, MsFlags::MS_BIND, none).unwrap();
    mount(
        Some(&other.join("app")),
        &app.tree,
        none,
        MsFlags::MS_BIND,
        none,
    )
    .unwrap();
    refused(&mut guarded, "out of the volume");
    umount2(&app.tree, MntFlags::MNT_DETACH).unwrap();
    umount2(&other, MntFlags::MNT_DETACH).unwrap();
    tmpfs(&volume);
    std::fs::create_dir(volume.join("app")).unwrap();
    refused(&mut guarded, "another file system");
    umount2(&volume, MntFlags::MNT_DETACH).unwrap();
    let link = volume.join("link");
    std::os::unix::fs::symlink(&app.tree, &link).unwrap();
    let linked = with(&order, "tree", json!(link));
    guarded.heard.clear();
    guarded.order(&start(&linked));
    guarded.hears(|told| matches!(told, Told::NotStarted { why, .. } if why.contains("out of")));
    assert_eq!(says(&mut guarded, &order).0, ["ran"]);
}

#[test]
fn what_an_application_writes_and_how_it_ends_is_told_and_what_it_started_goes_with_it() {
    let (app, mut guarded) = guarded();
    let script = "echo one; echo two >&2; sleep 1000 & printf three; exit 7";
    // Now and then what it started goes between two looks.
    for _ in 0..25 {
        let (lines, code) = says(&mut guarded, &app.order(script));
        assert_eq!(
            (lines, code),
            (["one", "two", "three"].map(str::to_owned).to_vec(), Some(7))
        );
        assert!(app.group.is_empty().unwrap());
    }
    let (_, code) = says(&mut guarded, &app.order("kill -9 $$"));
    assert_eq!(code, None);
}

#[test]
fn an_application_runs_on_while_the_agent_is_away_and_is_known_to_the_next() {
    let (app, mut guarded) = guarded();
    guarded.order(&start(&app.order("echo up; exec sleep 1000")));
    let told = guarded.hears(|told| matches!(told, Told::Started(_)));
    let Told::Started(run) = told else {
        unreachable!()
    };
    guarded.hears(|told| matches!(told, Told::Wrote { text, .. } if text == "up"));
    guarded.reconnect();
    let here = guarded.hears(|told| matches!(told, Told::Here { .. }));
    let Told::Here {
        level,
        lacks,
        runs,
        shut,
    } = here
    else {
        unreachable!()
    };
    assert_eq!((level, shut), (Level::Fanotify, false));
    assert!(
        matches!(lacks.as_slice(), [lack] if lack.starts_with("kernel: ")),
        "{lacks:?}"
    );
    assert_eq!(runs, [run]);
    guarded.order(&start(&app.order("echo again")));
    guarded.hears(|told| matches!(told, Told::NotStarted { why, .. } if why.contains("already")));
    let begun = std::time::Instant::now();
    guarded.order(&Order::End {
        name: "app".to_owned(),
    });
    guarded.hears(|told| matches!(told, Told::Ended { .. }));
    println!(
        "from the order to the end that is told: {:?}",
        begun.elapsed()
    );
    guarded.hears(|told| matches!(told, Told::Gone { .. }));
    assert!(!app.group.folder().exists());
    assert_eq!(says(&mut guarded, &app.order("echo again")).0, ["again"]);
}

#[test]
fn an_application_that_is_ended_while_it_is_being_started_does_not_stay() {
    let (app, mut guarded) = guarded();
    for _ in 0..20 {
        guarded.heard.clear();
        guarded.order(&start(&app.order("exec sleep 1000")));
        guarded.order(&Order::End {
            name: "app".to_owned(),
        });
        guarded.hears(|told| matches!(told, Told::Ended { .. }));
        guarded.hears(|told| matches!(told, Told::Gone { .. }));
        assert!(!app.group.folder().exists());
    }
}

#[test]
fn a_group_can_be_made_before_there_is_anything_in_it() {
    let (app, mut guarded) = guarded();
    app.group.clone().remove().unwrap();
    guarded.order(&Order::Make {
        name: "app".to_owned(),
    });
    guarded.hears(|told| matches!(told, Told::Made { .. }));
    assert!(app.group.is_empty().unwrap());
    guarded.order(&Order::Make {
        name: "../app".to_owned(),
    });
    guarded.hears(|told| matches!(told, Told::NotStarted { why, .. } if why.contains("name")));
}

#[test]
fn whatever_ran_under_a_supervisor_that_died_is_ended_by_the_next() {
    let (app, mut guarded) = guarded();
    guarded.order(&start(&app.order("exec sleep 1000")));
    guarded.hears(|told| matches!(told, Told::Started(_)));
    eventually(|| (!app.group.is_empty().unwrap()).then_some(()));
    guarded.supervise_anew();
    let here = guarded.hears(|told| matches!(told, Told::Here { .. }));
    assert!(matches!(here, Told::Here { runs, .. } if runs.is_empty()));
    eventually(|| app.group.is_empty().unwrap().then_some(()));
}

#[test]
fn the_guards_processes_keep_no_right_that_they_do_not_need() {
    let (_app, guarded) = guarded();
    let rights = |pid: nix::unistd::Pid, name: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    // CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE.
    let look = 1 << 2 | 1 << 19;
    for pid in [guarded.watch(), guarded.supervisor()] {
        assert_eq!(rights(pid, "CapEff:"), look);
        assert_eq!(rights(pid, "CapPrm:"), look);
    }
    assert_eq!(rights(guarded.watch(), "CapBnd:"), 0);
    // CAP_NET_ADMIN, CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_BOOT: not for what it starts, either.
    let never = 1 << 12 | 1 << 16 | 1 << 17 | 1 << 22;
    assert_eq!(rights(guarded.supervisor(), "CapBnd:") & never, 0);
}

#[test]
fn without_the_kernels_questions_applications_are_launched_and_the_level_says_so() {
    let lab = Lab::new();
    let app = App::unpack(&lab);
    let bad = lab.program("bad", "x");
    let mut guarded = lab.launcher_only(&[]);
    let here = guarded.hears(|told| matches!(told, Told::Here { .. }));
    let Told::Here { level, lacks, .. } = here else {
        unreachable!()
    };
    assert_eq!(level, Level::Launcher);
    assert!(lacks[0].contains("fanotify"), "{lacks:?}");
    assert!(lab::run(&bad), "nobody asks");
    assert_eq!(says(&mut guarded, &app.order("echo ran")).0, ["ran"]);
    let changed = with(&app.order("echo ran"), "digest", json!("00".repeat(32)));
    assert_eq!(says(&mut guarded, &changed).1, Some(1));
}

#[test]
fn an_application_sees_no_shared_memory_of_the_machine() {
    let lab = Lab::new();
    let app = App::unpack(&lab);
    // Of its own user, so that nothing but the namespace keeps them apart.
    let key = 0x45_44_47_45_u32 ^ std::process::id();
    let mut perl = Command::new("/usr/bin/perl");
    let made = lab::output(
        perl.args(["-e", "print shmget($ARGV[0], 1, 0600 | 01000) // die"])
            .arg(key.to_string())
            .uid(UID)
            .gid(UID),
    );
    let id = String::from_utf8(made.unwrap().stdout).unwrap();
    let find = format!("exec perl -e 'defined shmget({key}, 1, 0600) or exit 1'");
    let found = app.can(&find);
    let outside = lab::runs(
        Command::new("/usr/bin/perl")
            .args(["-e", "defined shmget($ARGV[0], 1, 0600) or exit 1"])
            .arg(key.to_string())
            .uid(UID),
    );
    let gone = lab::runs(Command::new("/usr/bin/perl").args(["-e", "shmctl($ARGV[0], 0, 0)", &id]));
    assert!(outside && gone && !found);
}

#[test]
fn what_an_application_may_use_is_limited_also_where_its_group_cannot_be() {
    let (app, mut guarded) = guarded();
    let limit = |script: &str, limits: Value| with(&app.order(script), "limits", limits);
    let fork = "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo all";
    assert_eq!(says(&mut guarded, &app.order(fork)).0, ["all"]);
    let (lines, _) = says(&mut guarded, &limit(fork, json!({ "tasks": 4 })));
    assert!(!lines.contains(&"all".to_owned()), "{lines:?}");
    let take = "exec perl -e '$x = \"x\" x (200 << 20); print \"all\"'";
    assert_eq!(says(&mut guarded, &app.order(take)).0, ["all"]);
    let (lines, _) = says(
        &mut guarded,
        &limit(take, json!({ "memory_bytes": 100 << 20 })),
    );
    assert!(!lines.contains(&"all".to_owned()), "{lines:?}");
    guarded.heard.clear();
    guarded.order(&start(&limit("exit 0", json!({ "cpu_percent": 50 }))));
    let told = guarded.hears(|told| matches!(told, Told::Started(_)));
    let held = app.group.folder().join("cpu.max").exists();
    assert!(matches!(told, Told::Started(run) if run.lacks.is_empty() == held));
    guarded.hears(|told| matches!(told, Told::Ended { .. }));
}

#[test]
fn an_application_has_folders_of_its_own_to_write_to_and_nobody_elses() {
    let (app, mut guarded) = guarded();
    std::fs::remove_dir(&app.state).unwrap();
    let script = "ls /state; echo x > /state/data/cache/new; ls /state/data/cache";
    let order = with(
        &app.order(script),
        "writable",
        json!(["data/cache", "logs"]),
    );
    for _ in 0..2 {
        assert_eq!(says(&mut guarded, &order).0, ["data", "logs", "new"]);
    }
    // Left there by the application: it leads to nothing outside of its own root.
    std::fs::remove_dir_all(app.state.join("logs")).unwrap();
    std::os::unix::fs::symlink("/state/data/elsewhere", app.state.join("logs")).unwrap();
    assert_eq!(says(&mut guarded, &order).1, Some(1));
    std::fs::remove_file(app.state.join("logs")).unwrap();
    std::os::unix::fs::chown(&app.state, Some(UID + 1), None).unwrap();
    let (lines, code) = says(&mut guarded, &order);
    assert!(
        code == Some(1) && lines[0].contains("another user"),
        "{lines:?}"
    );
}

#[test]
fn an_application_reaches_the_socket_that_tells_it_who_it_is_and_no_other_of_the_machine() {
    let (app, mut guarded) = guarded();
    let folder = guarded.lab.outside("run");
    std::fs::create_dir(&folder).unwrap();
    let socket = folder.join("workload.sock");
    let connect = "exec perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0); $_ = $ENV{SPIFFE_ENDPOINT_SOCKET}; s,^unix://,,; print connect(S, pack_sockaddr_un($_)) ? \"$_\" : \"no: $!\"'";
    let order = with(&app.order(connect), "workload", json!(socket));
    for _ in 0..2 {
        // Made anew while the application may be running: it is found all the same.
        let _old = std::fs::remove_file(&socket);
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(&socket, open).unwrap();
        let (lines, _) = says(&mut guarded, &order);
        assert_eq!(lines, ["/run/edgeward/workload.sock"]);
    }
    assert!(!app.can("[ -e /run ]"));
}

#[test]
fn an_application_does_not_have_its_guards_place_in_the_order_of_death() {
    let (app, mut guarded) = guarded();
    let score = format!("/proc/{}/oom_score_adj", guarded.supervisor());
    std::fs::write(score, "500").unwrap();
    let order = app.order("exec cat /proc/self/oom_score_adj");
    assert_eq!(says(&mut guarded, &order).0, ["0"]);
    let mut renice = std::process::Command::new("renice");
    renice.args(["-n", "-5", "-p", &guarded.supervisor().to_string()]);
    assert!(lab::runs(&mut renice));
    let order = app.order("exec perl -e 'print getpriority(0, 0)'");
    assert_eq!(says(&mut guarded, &order).0, ["0"]);
}

/// Both at once: nobody answers any more. What ran is ended by whoever sees the socket close.
#[test]
fn when_all_of_the_guard_is_killed_at_once_the_volume_opens_and_its_socket_says_so() {
    let (_app, mut guarded) = guarded();
    let bad = guarded.lab.program("bad", "x");
    assert!(!lab::run(&bad));
    let (watch, supervisor) = (guarded.watch(), guarded.supervisor());
    kill(supervisor, Signal::SIGSTOP).unwrap();
    kill(watch, Signal::SIGKILL).unwrap();
    kill(supervisor, Signal::SIGKILL).unwrap();
    guarded.hears_the_end();
    eventually(|| lab::run(&bad).then_some(()));
}
