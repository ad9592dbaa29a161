//! The user that the application runs as: no group but its own, no capability, no way back.

use nix::errno::Errno;
use nix::sys::prctl::set_no_new_privs;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, getresgid, getresuid, setgroups, setresgid, setresuid, setuid};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

use super::order::Order;

/// Largest core of an application, in bytes.
const NO_CORE: u64 = 1;

#[derive(Debug, thiserror::Error)]
pub enum PersonError {
    #[error("{0} cannot be given up: {1}")]
    Kept(&'static str, #[source] Errno),
    #[error("process could become root again")]
    NotGivenUp,
}

/// Limits that the group cannot hold here are held for each process (memory) and for the user (tasks), who is the
/// application's alone.
pub fn become_user(order: &Order, group_limits_memory: bool) -> Result<(), PersonError> {
    let kept = |what| move |error| PersonError::Kept(what, error);
    let (uid, gid) = (Uid::from_raw(order.uid), Gid::from_raw(order.gid));
    for capability in CapabilitySet::all().iter() {
        match remove_capability_from_bounding_set(capability) {
            // One that this kernel does not know cannot be had.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => {
                let error = Errno::from_raw(error.raw_os_error());
                return Err(PersonError::Kept("capability", error));
            }
        }
    }
    if let Some(tasks) = order.limits.tasks.map(u64::from) {
        setrlimit(Resource::RLIMIT_NPROC, tasks, tasks).map_err(kept("number of tasks"))?;
    }
    if let (Some(bytes), false) = (order.limits.memory_bytes, group_limits_memory) {
        setrlimit(Resource::RLIMIT_DATA, bytes, bytes).map_err(kept("memory"))?;
    }
    setgroups(&[]).map_err(kept("groups"))?;
    setresgid(gid, gid, gid).map_err(kept("group"))?;
    setresuid(uid, uid, uid).map_err(kept("user"))?;
    set_no_new_privs().map_err(kept("rights of programs"))?;
    // A core would carry the application's secrets out of its memory. Of zero bytes is
    // none in a file, but a program of the machine's that takes cores is started all the same, unless it is this number.
    setrlimit(Resource::RLIMIT_CORE, NO_CORE, NO_CORE).map_err(kept("cores"))?;
    umask(Mode::from_bits_truncate(0o077));
    let users = getresuid().map_err(kept("user"))?;
    let groups = getresgid().map_err(kept("group"))?;
    let given_up = [users.real, users.effective, users.saved] == [uid; 3]
        && [groups.real, groups.effective, groups.saved] == [gid; 3]
        && setuid(Uid::from_raw(0)) == Err(Errno::EPERM);
    given_up.then_some(()).ok_or(PersonError::NotGivenUp)
}
