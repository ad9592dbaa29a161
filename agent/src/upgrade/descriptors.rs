//! Open files of this process by their numbers: which of them another program gets, and taking them there.
#![allow(
    unsafe_code,
    reason = "a file known by its number only can be borrowed or owned in no other way"
)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{SigHandler, Signal, signal};

/// The first that is not standard input, output or error.
const FIRST: RawFd = 3;

/// Another program in this process gets `kept` and nothing else: libraries in C open files without care for what is run
/// after them, and a TPM simulator serves one connection only.
pub(super) fn keep_at_exec(kept: &[BorrowedFd<'_>]) -> std::io::Result<()> {
    let numbers: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number >= FIRST)
        .collect();
    for number in numbers {
        // SAFETY: only a flag of the file is set, and whoever owns it goes on owning it; if it was closed meanwhile
        // the call fails, and if the number was given to another file the flag is right for that one too.
        let file = unsafe { BorrowedFd::borrow_raw(number) };
        let _closed_meanwhile = fcntl(file, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
    }
    for file in kept {
        fcntl(file.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))?;
    }
    Ok(())
}

/// Whoever asks twice does not end the next program before it listens: what is ignored stays so.
pub(super) fn ignore_hangups() -> std::io::Result<()> {
    // SAFETY: no handler is installed that could run; the one before is not used any more, since this program ends.
    let _before = unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) }?;
    Ok(())
}

/// A file that the program before this one left open for it. Nothing else in this process may know the number: it is
/// called once for each, before any file is opened here.
pub(super) fn take(number: RawFd) -> std::io::Result<OwnedFd> {
    if number < FIRST {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: as above; the call fails for a number that is not open.
    let file = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(file, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    debug_assert_eq!(file.as_raw_fd(), number);
    // SAFETY: it is open, and was left open for whoever is told its number on the command line, which is this caller.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_standard_or_not_open_is_not_taken() {
        for number in [-1, 0, 2, 1_000_000] {
            assert!(take(number).is_err(), "{number}");
        }
    }

    #[test]
    fn only_what_is_kept_stays_open_for_another_program() {
        let flags = |file: &std::fs::File| {
            FdFlag::from_bits_truncate(fcntl(file.as_fd(), FcntlArg::F_GETFD).unwrap())
        };
        let (left, kept) = (
            std::fs::File::open("/dev/null").unwrap(),
            std::fs::File::open("/dev/null").unwrap(),
        );
        fcntl(left.as_fd(), FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        keep_at_exec(&[kept.as_fd()]).unwrap();
        assert!(flags(&left).contains(FdFlag::FD_CLOEXEC));
        assert!(!flags(&kept).contains(FdFlag::FD_CLOEXEC));
    }
}
