//! Ways to a file that are not the usual ones: other calls, other names, descriptors from before, writes by calls that
//! programs seldom make. Numbers of calls are those of x86-64.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::lab::{Lab, digests, eventually, output, run, runs, settle};
use edgeward_guard::book::{Asked, Mode};
use edgeward_guard::control::Told;

/// Ways to open, read or become a file: `python3 -c WAYS WAY PATH`. Ends with 0 if there was a way.
const WAYS: &str = r#"
import ctypes, mmap, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
way, path = sys.argv[1], sys.argv[2].encode()
def call(*arguments):
    result = libc.syscall(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def become(fd, name=b"", flags=0x1000):
    argv = (ctypes.c_char_p * 2)(b"program", None)
    call(322, fd, name, argv, (ctypes.c_char_p * 1)(None), flags)
def uring(path):
    params = bytearray(120)
    ring = call(425, 2, (ctypes.c_char * 120).from_buffer(params))
    entries, = struct.unpack_from("I", params, 0)
    sq = struct.unpack_from("10I", params, 40)
    cq = struct.unpack_from("10I", params, 80)
    size = sq[6] + entries * 4
    subs = mmap.mmap(ring, size, offset=0)
    done = mmap.mmap(ring, cq[5] + 16 * 2 * entries, offset=0x8000000)
    work = mmap.mmap(ring, entries * 64, offset=0x10000000)
    name = ctypes.create_string_buffer(path)
    struct.pack_into("BBHiQQIIQ", work, 0, 18, 0, 0, -100, 0, ctypes.addressof(name), 0, os.O_RDONLY, 7)
    struct.pack_into("I", subs, sq[6], 0)
    struct.pack_into("I", subs, sq[1], 1)
    call(426, ring, 1, 1, 1, None, 0)
    _, result, _ = struct.unpack_from("QiI", done, cq[5])
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result
def handle(path, flags=os.O_RDONLY):
    room = ctypes.create_string_buffer(8 + 128)
    struct.pack_into("I", room, 0, 128)
    mount = ctypes.c_int()
    call(303, -100, path, room, ctypes.byref(mount), 0)
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    return call(304, folder, room, flags)
if way == "path-exec":
    become(os.open(path, os.O_PATH))
elif way == "path-link":
    os.execv("/proc/self/fd/%d" % os.open(path, os.O_PATH), ["program"])
elif way == "path-read":
    fd = os.open(path, os.O_PATH)
    os.close(os.open("/proc/self/fd/%d" % fd, os.O_RDONLY))
elif way == "root-link":
    os.execv("/proc/self/root" + path.decode(), ["program"])
elif way == "folder":
    become(os.open(os.path.dirname(path), os.O_PATH), os.path.basename(path), 0)
elif way == "uring":
    os.read(uring(path), 1)
elif way == "handle":
    os.read(handle(path), 1)
elif way == "handle-exec":
    become(handle(path, os.O_PATH))
elif way == "plain":
    os.close(os.open(path, os.O_RDONLY | os.O_NOATIME | os.O_NOFOLLOW))
else:
    sys.exit("no such way")
"#;
const READING: [&str; 4] = ["path-read", "uring", "handle", "plain"];
const RUNNING: [&str; 5] = [
    "path-exec",
    "path-link",
    "root-link",
    "folder",
    "handle-exec",
];

/// Ways to write to a file whose comment nobody misses: `python3 -c WRITES WAY PATH`.
const WRITES: &str = r#"
import ctypes, mmap, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
way, path = sys.argv[1:3]
def call(*arguments):
    result = libc.syscall(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
HALF, FRESH = 8192, os.urandom(50).hex().encode()
if way == "truncate":
    os.truncate(path, os.stat(path).st_size - 10)
    sys.exit()
fd = os.open(path, os.O_RDWR)
other = os.memfd_create("other")
os.write(other, FRESH)
os.lseek(other, 0, os.SEEK_SET)
if way == "write":
    os.pwrite(fd, FRESH, HALF)
elif way == "writev":
    os.pwritev(fd, [FRESH, FRESH], HALF)
elif way == "ftruncate":
    os.ftruncate(fd, os.stat(path).st_size - 10)
elif way == "hole":
    call(285, fd, 3, ctypes.c_long(HALF), ctypes.c_long(HALF // 2))
elif way == "sendfile":
    os.lseek(fd, HALF, os.SEEK_SET)
    os.sendfile(fd, other, 0, 100)
elif way == "splice":
    read, write = os.pipe()
    os.write(write, FRESH)
    os.splice(read, fd, 100, offset_dst=HALF)
elif way == "copy":
    os.copy_file_range(fd, fd, 100, 100, HALF)
elif way == "aio":
    context = ctypes.c_ulong()
    call(206, 4, ctypes.byref(context))
    room = ctypes.create_string_buffer(FRESH)
    block = ctypes.create_string_buffer(64)
    struct.pack_into("QIiHhIQQqQII", block, 0, 0, 0, 0, 1, 0, fd, ctypes.addressof(room), 100, HALF, 0, 0, 0)
    blocks = (ctypes.c_void_p * 1)(ctypes.addressof(block))
    call(209, context, ctypes.c_long(1), blocks)
    event = ctypes.create_string_buffer(32)
    call(208, context, ctypes.c_long(1), ctypes.c_long(1), event, None)
    assert struct.unpack_from("q", event, 16)[0] == 100
elif way == "uring":
    params = bytearray(120)
    ring = call(425, 2, (ctypes.c_char * 120).from_buffer(params))
    sq = struct.unpack_from("10I", params, 40)
    subs = mmap.mmap(ring, sq[6] + 8, offset=0)
    work = mmap.mmap(ring, 128, offset=0x10000000)
    room = ctypes.create_string_buffer(FRESH)
    struct.pack_into("BBHiQQIIQ", work, 0, 23, 0, 0, fd, HALF, ctypes.addressof(room), 100, 0, 7)
    struct.pack_into("I", subs, sq[6], 0)
    struct.pack_into("I", subs, sq[1], 1)
    call(426, ring, 1, 1, 1, None, 0)
else:
    sys.exit("no such way")
os.close(fd)
"#;

fn way(name: &str, path: &Path) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", WAYS, name]).arg(path);
    command
}

#[test]
fn by_no_other_call_or_name_is_an_unlisted_file_opened_or_run() {
    let lab = Lab::on_ext4();
    let (good, bad) = (lab.program("good", ""), lab.program("bad", "x"));
    let all = || READING.into_iter().chain(RUNNING);
    for name in all() {
        assert!(runs(&mut way(name, &bad)), "{name} is a way");
    }
    settle();
    let mut guarded = lab.guard(Mode::Enforce, &[&good]);
    for name in all() {
        assert!(runs(&mut way(name, &good)), "{name} to what is listed");
        guarded.heard.clear();
        let tried = output(&mut way(name, &bad)).unwrap();
        assert!(!tried.status.success(), "{name} leads around");
        let asked = guarded.saw(&bad).asked;
        let runs = RUNNING.contains(&name);
        assert_eq!(asked == Asked::Exec, runs, "{name}");
    }
}

/// Of a write through shared memory the kernel says nothing, and of one by io_submit(2) nothing either, but its time shows.
#[test]
fn by_whatever_call_a_listed_program_is_written_to_it_runs_no_more() {
    let lab = Lab::on_ext4();
    let text = [&b"#!/bin/sh\nexit 0 #"[..], &[b'a'; 20_000]].concat();
    let good = lab.file("good", &text);
    settle();
    let mut guarded = lab.guard(Mode::Enforce, &[&good]);
    for name in [
        "write",
        "writev",
        "truncate",
        "ftruncate",
        "hole",
        "sendfile",
        "splice",
        "copy",
        "aio",
        "uring",
    ] {
        // Known after the first: the kernel asks no more. On a busy machine one may be refused for want of time.
        for _ in 0..3 {
            eventually(|| run(&good).then_some(()));
        }
        let mut write = Command::new("python3");
        let wrote = output(write.args(["-c", WRITES, name]).arg(&good)).unwrap();
        let told = String::from_utf8_lossy(&wrote.stderr);
        assert!(wrote.status.success(), "{name}: {told}");
        if name == "aio" {
            eventually(|| (!run(&good)).then_some(()));
        }
        assert!(!run(&good), "{name} goes unnoticed");
        settle();
        assert!(!run(&good), "{name} goes unnoticed");
        // It would run: what keeps it is that nobody listed it.
        guarded.take(Mode::Enforce, digests(&[&good]));
        settle();
        eventually(|| run(&good).then_some(()));
    }
}

/// File systems give the number of a file that went to the next one that comes.
#[test]
fn a_file_in_the_place_and_with_the_number_of_a_listed_one_is_not_taken_for_it() {
    use std::os::unix::fs::MetadataExt;
    let lab = Lab::on_ext4();
    let (good, bad) = (b"#!/bin/sh\nexit 0 #a\n", b"#!/bin/sh\nexit 0 #b\n");
    let path = lab.file("program", good);
    let listed = digests(&[&path]);
    settle();
    let mut guarded = lab.guard(Mode::Enforce, &[&path]);
    guarded.take(Mode::Enforce, listed);
    let mut same = 0;
    for _ in 0..20 {
        std::fs::remove_file(&path).unwrap();
        guarded.lab.file("program", good);
        settle();
        assert!(run(&path) && run(&path));
        let before = std::fs::metadata(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        guarded.lab.file("program", bad);
        let after = std::fs::metadata(&path).unwrap();
        same += usize::from(before.ino() == after.ino() && before.len() == after.len());
        assert!(!run(&path));
        settle();
        assert!(!run(&path));
    }
    assert!(same > 0, "no number came again: nothing was tried");
}

/// A listed file that has no name any more is the same file; an unlisted one that had none never was a way.
#[test]
fn a_file_without_a_name_is_judged_like_any_other() {
    let lab = Lab::new();
    let [good, again] = ["good", "again"].map(|name| lab.program(name, ""));
    let [bad, free] = ["bad", "free"].map(|name| lab.program(name, "x"));
    settle();
    // Opened by name, executed when the name is gone.
    let read = |path: &Path| {
        let script = "exec 7<$0; rm $0; exec /proc/self/fd/7";
        runs(Command::new("/bin/sh").args(["-c", script]).arg(path))
    };
    // The same by a descriptor that nobody is asked about.
    let script = "import os, sys; fd = os.open(sys.argv[1], os.O_PATH); os.remove(sys.argv[1]); \
        os.execv('/proc/self/fd/%d' % fd, ['program'])";
    let named = |path: &Path| runs(Command::new("python3").args(["-c", script]).arg(path));
    assert!(named(&free), "it is a way");
    let mut guarded = lab.guard(Mode::Enforce, &[&good]);
    assert!(read(&good) && !good.exists());
    assert!(named(&again) && !again.exists());
    assert!(!read(&bad));
    assert!(bad.exists(), "it was not even opened");
    assert!(!named(&bad));
    assert!(!bad.exists(), "it had a name still");
    let name = bad.display().to_string();
    guarded.hears(|told| matches!(told, Told::Saw(saw) if saw.asked == Asked::Exec && saw.path.starts_with(&name)));
}

/// Whoever had a file open before the guard came can read and map it; executing is asked about all the same.
#[test]
fn a_descriptor_from_before_the_guard_maps_and_does_not_run() {
    let lab = Lab::new();
    let bad = lab.program("bad", "x");
    let script = r#"
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY); print("open", flush=True); sys.stdin.readline()
mmap.mmap(fd, 0, prot=mmap.PROT_READ | mmap.PROT_EXEC); print("maps", flush=True)
try: os.execv("/proc/self/fd/%d" % fd, ["bad"])
except PermissionError: print("kept", flush=True)"#;
    let mut early = Command::new("python3")
        .args(["-c", script])
        .arg(&bad)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(early.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "open");
    let mut guarded = lab.guard(Mode::Enforce, &[]);
    early.stdin.take().unwrap().write_all(b"\n").unwrap();
    let rest: Vec<String> = said.map(Result::unwrap).collect();
    assert_eq!(rest, ["maps", "kept"]);
    assert!(early.wait().unwrap().success());
    assert_eq!(guarded.saw(&bad).asked, Asked::Exec);
}

#[test]
fn a_library_that_a_loader_is_told_to_ask_is_not_opened() {
    let lab = Lab::new();
    let library = "/lib/x86_64-linux-gnu/libm.so.6";
    let library = lab.file("evil.so", &std::fs::read(library).unwrap());
    let mut guarded = lab.guard(Mode::Enforce, &[]);
    for variable in ["LD_AUDIT", "LD_PRELOAD"] {
        guarded.heard.clear();
        assert!(runs(Command::new("/bin/true").env(variable, &library)));
        assert_eq!(guarded.saw(&library).asked, Asked::Open, "{variable}");
    }
    guarded.heard.clear();
    let folder = guarded.lab.volume();
    std::fs::rename(&library, folder.join("libc.so.6")).unwrap();
    let mut path = Command::new("/bin/true");
    assert!(runs(path.env("LD_LIBRARY_PATH", &folder)));
    assert_eq!(guarded.saw(&folder.join("libc.so.6")).asked, Asked::Open);
}

/// In a namespace of users even others than the machine's root say which program runs which files.
#[test]
fn a_file_that_the_kernel_hands_to_an_interpreter_is_asked_about() {
    let lab = Lab::new();
    let odd = lab.file("odd", b"EDGEWARD-TEST 1\n");
    let script = "mount -t binfmt_misc none /proc/sys/fs/binfmt_misc; \
        echo ':edgeward:M::EDGEWARD-TEST::/bin/cat:' >/proc/sys/fs/binfmt_misc/register; exec $0";
    let handed = || {
        let mut command = Command::new("unshare");
        runs(
            command
                .args(["-U", "-r", "-m", "sh", "-ec", script])
                .arg(&odd),
        )
    };
    if !handed() {
        // Before Linux 6.7 there is one list for the whole machine, which is not a test's to change.
        println!("no list of interpreters of one's own here");
        return;
    }
    let mut guarded = lab.guard(Mode::Enforce, &[]);
    assert!(!handed());
    assert_eq!(guarded.saw(&odd).asked, Asked::Exec);
}

#[test]
fn a_file_system_that_changes_without_the_kernels_doing_is_no_volume() {
    let lab = Lab::new();
    let over = lab.outside("over");
    std::fs::create_dir(&over).unwrap();
    let at = over.display();
    let script = format!(
        "mount -t tmpfs -o mode=755 t {at}; mkdir {at}/u {at}/w {at}/m; \
         mount -t overlay -o lowerdir={},upperdir={at}/u,workdir={at}/w o {at}/m",
        lab.volume().display()
    );
    assert!(runs(Command::new("sh").args(["-ec", &script])));
    let refused = edgeward_guard::volume::Volume::open(&over.join("m")).unwrap_err();
    assert!(
        matches!(refused, edgeward_guard::volume::NotAVolume::Elsewhere(_)),
        "{refused}"
    );
    // A disk and memory are.
    assert!(edgeward_guard::volume::Volume::open(&over).is_ok());
    assert!(edgeward_guard::volume::Volume::open(&lab.volume()).is_ok());
    assert!(runs(Command::new("umount").args(["-l", &format!("{at}")])));
}
