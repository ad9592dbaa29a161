//! System calls that an application has no business with: those that make code out of memory, look into other
//! processes, change what the kernel runs, or lead around what is asked about files and packets (seccomp(2)).

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

/// Numbers of the same calls in the kernel's third table on x86-64, which a list of the first would leave open.
const X32: i64 = 0x4000_0000;
/// Calls whose number in that table is another one, where it is refused.
const X32_OWN: [i64; 4] = [
    0x4000_0000 + 521, // ptrace
    0x4000_0000 + 528, // kexec_load
    0x4000_0000 + 539, // process_vm_readv
    0x4000_0000 + 540, // process_vm_writev
];

const REFUSED: [i64; 40] = [
    // Files without a name, which no other wall sees when a loader maps them.
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // Files without asking.
    libc::SYS_open_by_handle_at,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // What files are where.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    // The kernel itself.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_fanotify_init,
];

/// Families of sockets whose packets rules can judge by the group that they come from, and those that stay on the
/// machine. All others go by ways of their own: to the hypervisor (vsock), to a field bus (can), to a radio.
const FAMILIES: [i32; 4] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
];

#[derive(Debug, thiserror::Error)]
pub enum CallsError {
    #[error("no list of system calls for this processor")]
    Processor,
    #[error("list of system calls: {0}")]
    List(#[from] BackendError),
    #[error("kernel refuses the list of system calls: {0}")]
    Kernel(#[from] seccompiler::Error),
}

/// Counts for this process and all that come from it.
pub fn restrict() -> Result<(), CallsError> {
    // `clone3` hides its flags from filters; the C library falls back to `clone` when it is told that it is missing.
    apply_filter(&filter(missing(), libc::ENOSYS)?)?;
    // As where the kernel has no such family: programs go on without it.
    let families = [libc::SYS_socket, libc::SYS_socketpair];
    let families = families
        .into_iter()
        .map(|call| Ok((call, family_rules()?)))
        .collect::<Result<BTreeMap<_, _>, CallsError>>()?;
    apply_filter(&filter(with_twins(families), libc::EAFNOSUPPORT)?)?;
    Ok(apply_filter(&filter(refused()?, libc::EPERM)?)?)
}

/// Calls that are answered as if the kernel had them not.
fn missing() -> BTreeMap<i64, Vec<SeccompRule>> {
    with_twins(BTreeMap::from([(libc::SYS_clone3, Vec::new())]))
}

fn refused() -> Result<BTreeMap<i64, Vec<SeccompRule>>, CallsError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.into_iter().map(|call| (call, Vec::new())).collect();
    rules.insert(libc::SYS_clone, clone_rules()?);
    rules.insert(libc::SYS_personality, personality_rules()?);
    if cfg!(target_arch = "x86_64") {
        rules.extend(X32_OWN.into_iter().map(|call| (call, Vec::new())));
    }
    Ok(with_twins(rules))
}

/// The same for the calls of the third table.
fn with_twins(mut rules: BTreeMap<i64, Vec<SeccompRule>>) -> BTreeMap<i64, Vec<SeccompRule>> {
    if cfg!(target_arch = "x86_64") {
        let first = rules.iter().filter(|(call, _)| **call < X32);
        let twins: Vec<_> = first
            .map(|(call, rules)| (call + X32, rules.clone()))
            .collect();
        rules.extend(twins);
    }
    rules
}

/// Another family, or of what the kernel tells anything but addresses and routes.
fn family_rules() -> Result<Vec<SeccompRule>, CallsError> {
    let argument = |at, op, value: i32| {
        let value = u64::from(value.unsigned_abs());
        SeccompCondition::new(at, SeccompCmpArgLen::Dword, op, value)
    };
    let other = FAMILIES
        .into_iter()
        .map(|family| argument(0, SeccompCmpOp::Ne, family))
        .collect::<Result<Vec<_>, _>>()?;
    let told = vec![
        argument(0, SeccompCmpOp::Eq, libc::AF_NETLINK)?,
        argument(2, SeccompCmpOp::Ne, libc::NETLINK_ROUTE)?,
    ];
    Ok(vec![SeccompRule::new(other)?, SeccompRule::new(told)?])
}

/// A namespace of users would give back every capability inside it.
fn clone_rules() -> Result<Vec<SeccompRule>, CallsError> {
    let flag = libc::CLONE_NEWUSER as u64;
    let has = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Qword,
        SeccompCmpOp::MaskedEq(flag),
        flag,
    )?;
    Ok(vec![SeccompRule::new(vec![has])?])
}

/// One personality makes all memory that can be read executable.
fn personality_rules() -> Result<Vec<SeccompRule>, CallsError> {
    let flag = libc::READ_IMPLIES_EXEC as u64;
    let has = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(flag),
        flag,
    )?;
    let asks = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0xffff_ffff)?;
    Ok(vec![SeccompRule::new(vec![has, asks])?])
}

fn filter(
    rules: impl IntoIterator<Item = (i64, Vec<SeccompRule>)>,
    error: i32,
) -> Result<BpfProgram, CallsError> {
    let processor =
        TargetArch::try_from(std::env::consts::ARCH).map_err(|_| CallsError::Processor)?;
    let filter = SeccompFilter::new(
        rules.into_iter().collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(error.unsigned_abs()),
        processor,
    )?;
    Ok(filter.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_refused_is_so_by_every_table() {
        for rules in [missing(), refused().unwrap()] {
            let first: Vec<i64> = rules.keys().copied().filter(|call| *call < X32).collect();
            assert!(!first.is_empty());
            for call in first {
                let twin = rules.contains_key(&(call + X32));
                assert!(twin || cfg!(not(target_arch = "x86_64")), "{call}");
            }
        }
    }
}
