//! What the guard's processes give up: each keeps what it needs after its beginning.

use nix::errno::Errno;
use nix::sys::prctl::set_no_new_privs;
use rustix::thread::{
    CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities,
};

/// To look at files of others' and to say which program asked.
const LOOK: CapabilitySet = CapabilitySet::DAC_READ_SEARCH.union(CapabilitySet::SYS_PTRACE);
/// What the launcher needs until it has become an application: its mounts, its user, its bounding set, its state.
const LAUNCH: CapabilitySet = LOOK
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER);

#[derive(Debug, thiserror::Error)]
#[error("capabilities cannot be given up: {0}")]
pub struct Kept(#[from] rustix::io::Errno);

/// For the supervisor once it holds the group. The programs that it starts have what the launcher needs, and nothing else
/// of root's.
pub fn of_supervisor() -> Result<(), Kept> {
    keep(LOOK, LAUNCH)
}

/// For the watch, before it has a second thread.
pub fn of_watch() -> Result<(), Kept> {
    keep(LOOK, CapabilitySet::empty())?;
    set_no_new_privs()
        .map_err(|error: Errno| rustix::io::Errno::from_raw_os_error(error as i32))?;
    Ok(())
}

fn keep(own: CapabilitySet, bounding: CapabilitySet) -> Result<(), Kept> {
    for capability in CapabilitySet::all().difference(bounding).iter() {
        match remove_capability_from_bounding_set(capability) {
            // One that this kernel does not know cannot be had.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let kept = CapabilitySets {
        effective: own,
        permitted: own,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, kept)?)
}
