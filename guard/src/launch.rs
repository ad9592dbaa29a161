//! Turns this process into one application: verified by descriptor, in its own control group, behind its walls.
//!
//! Every step that fails ends the launch. The order matters: the group before any socket, the root before the program
//! is opened in it, the user before the walls, the walls before the program.

pub mod calls;
pub mod order;
pub mod person;
pub mod program;
pub mod root;
pub mod state;
pub mod walls;

use std::convert::Infallible;
use std::ffi::CString;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{dup2_stdin, execveat};

use rustix::process::{getpriority_process, setpriority_process};

use crate::cgroup::{Cgroup, CgroupError};
use order::{BadOrder, MAX_ORDER_BYTES, Order};

/// How long reading the program may take.
const READ_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error(transparent)]
    Order(#[from] BadOrder),
    #[error("order cannot be read: {0}")]
    Read(#[source] io::Error),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Program(#[from] program::BadProgram),
    #[error(transparent)]
    State(#[from] state::StateError),
    #[error(transparent)]
    Root(#[from] root::RootError),
    #[error(transparent)]
    Person(#[from] person::PersonError),
    #[error(transparent)]
    Walls(#[from] walls::WallsError),
    #[error(transparent)]
    Calls(#[from] calls::CallsError),
    #[error("kernel does not tell of the death of whoever ordered: {0}")]
    Parent(#[source] Errno),
    #[error("order of death cannot be set: {0}")]
    Memory(#[source] io::Error),
    #[error("priority cannot be set: {0}")]
    Priority(#[source] io::Error),
    #[error("descriptors cannot be put in order: {0}")]
    Descriptors(#[source] io::Error),
    #[error("kernel refuses the program: {0}")]
    Exec(#[source] Errno),
}

/// Reads the order from standard input and becomes the application. Returns only what failed.
pub fn run() -> Result<Infallible, LaunchError> {
    // Until it is another user's, it goes with whoever ordered it: nobody would know what it becomes.
    set_pdeathsig(Signal::SIGKILL).map_err(LaunchError::Parent)?;
    let order = read_order()?;
    close_others().map_err(LaunchError::Descriptors)?;
    let group = Cgroup::open(&order.cgroup)?;
    // Whoever started this must be the last to go when memory runs out; an application need not.
    std::fs::write("/proc/self/oom_score_adj", "0").map_err(LaunchError::Memory)?;
    give_up_priority().map_err(|error| LaunchError::Priority(error.into()))?;
    state::prepare(&order)?;
    group.enter()?;
    root::build(&order)?;
    let due = Instant::now() + READ_LIMIT;
    let program = program::open(&order, due)?;
    person::become_user(&order, group.can_limit_memory())?;
    state::make_folders(&order)?;
    walls::raise(&order)?;
    calls::restrict()?;
    let args: Vec<&CString> = std::iter::once(&order.name).chain(&order.args).collect();
    execveat(&program, c"", &args, &order.env, AtFlags::AT_EMPTY_PATH).map_err(LaunchError::Exec)
}

fn read_order() -> Result<Order, LaunchError> {
    let mut text = Vec::new();
    let limit = MAX_ORDER_BYTES as u64 + 1;
    io::stdin()
        .lock()
        .take(limit)
        .read_to_end(&mut text)
        .map_err(LaunchError::Read)?;
    Ok(Order::parse(&text)?)
}

/// Only ever downwards, for which no right is needed.
fn give_up_priority() -> rustix::io::Result<()> {
    match getpriority_process(None)? {
        ..0 => setpriority_process(None, 0),
        _ => Ok(()),
    }
}

/// Nothing but input, output and errors goes on to the application, and its input is empty.
fn close_others() -> io::Result<()> {
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect();
    for number in open {
        // The listing's own descriptor is among them, closed already.
        match nix::unistd::close(number) {
            Ok(()) | Err(Errno::EBADF) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let nothing = std::fs::File::open("/dev/null")?;
    dup2_stdin(nothing)?;
    Ok(())
}
