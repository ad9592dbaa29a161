//! What an agent leaves open for the program that takes its place: numbers of three files, as a word of its command line.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;

use edgeward_tunnel::shell::Inherited;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use zeroize::Zeroizing;

use super::descriptors;
use crate::enforce::handover::{Given, Handed, MAX_HANDED_BYTES, NotHanded};

/// In `/proc/*/fd`, for people.
const NAME: &str = "edgeward-tunnels";

/// Numbers of open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    device: RawFd,
    port: RawFd,
    state: RawFd,
}

/// The files themselves, and what the state says.
pub(super) struct Taken {
    pub(super) device: OwnedFd,
    pub(super) port: OwnedFd,
    pub(super) handed: Handed,
}

/// Not what an agent leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not what an agent leaves for the next")]
pub struct NotLeft;

/// It cannot be left, or not be taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotTaken {
    #[error("open files: {0}")]
    Io(#[from] io::Error),
    #[error("state: {0}")]
    Handed(#[from] NotHanded),
    #[error("state is not sealed, not in memory, or another user's")]
    Open,
    #[error("state is too long in bytes: {0}")]
    Long(u64),
}

impl Left {
    /// In memory, without a name, and such that nobody changes it any more.
    pub(super) fn seal(given: &Given) -> Result<OwnedFd, NotTaken> {
        let bytes = given.handed.write()?;
        let length = bytes.len() as u64;
        if bytes.len() > MAX_HANDED_BYTES {
            return Err(NotTaken::Long(length));
        }
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = memfd_create(NAME, flags).map_err(io::Error::from)?;
        let mut file = File::from(file);
        file.write_all(&bytes)?;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals())).map_err(io::Error::from)?;
        Ok(file.into())
    }

    pub(super) fn word(state: &OwnedFd, inherited: &Inherited) -> Self {
        Self {
            device: inherited.device.as_fd().as_raw_fd(),
            port: inherited.port.as_fd().as_raw_fd(),
            state: state.as_fd().as_raw_fd(),
        }
    }

    /// All of them are taken, whatever is wrong with one: what is dropped is closed.
    pub(super) fn take(self) -> Result<Taken, NotTaken> {
        let [device, port, state] = [self.device, self.port, self.state].map(descriptors::take);
        let (device, port, state) = (device?, port?, File::from(state?));
        Ok(Taken {
            device,
            port,
            handed: Handed::parse(&read(state)?)?,
        })
    }
}

/// What is left of a file that was sealed.
fn read(mut state: File) -> Result<Zeroizing<Vec<u8>>, NotTaken> {
    let found = fcntl(&state, FcntlArg::F_GET_SEALS).map_err(|_| NotTaken::Open)?;
    let facts = state.metadata()?;
    let ours = facts.uid() == nix::unistd::geteuid().as_raw();
    if !ours || !SealFlag::from_bits_retain(found).contains(seals()) {
        return Err(NotTaken::Open);
    }
    let length = usize::try_from(facts.len()).unwrap_or(usize::MAX);
    if length > MAX_HANDED_BYTES {
        return Err(NotTaken::Long(facts.len()));
    }
    state.rewind()?;
    // With all the room at once: what grows leaves copies behind.
    let mut bytes = Zeroizing::new(vec![0; length]);
    state.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn seals() -> SealFlag {
    SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.device, self.port, self.state)
    }
}

impl FromStr for Left {
    type Err = NotLeft;

    fn from_str(text: &str) -> Result<Self, NotLeft> {
        let words: Vec<&str> = text.split(',').collect();
        let [device, port, state] = words.as_slice() else {
            return Err(NotLeft);
        };
        let number = |word: &str| word.parse().map_err(|_| NotLeft);
        let left = Self {
            device: number(device)?,
            port: number(port)?,
            state: number(state)?,
        };
        let [device, port, state] = [left.device, left.port, left.state];
        match device == port || port == state || device == state {
            true => Err(NotLeft),
            false => Ok(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(flags: MFdFlags, seals: SealFlag) -> File {
        let mut file = File::from(memfd_create("test", flags).unwrap());
        file.write_all(b"words").unwrap();
        if !seals.is_empty() {
            fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
        }
        file
    }

    #[test]
    fn a_word_that_is_cut_longer_odd_or_names_one_file_twice_is_refused() {
        for bad in [
            "", "7,8", "7,8,9,10", "x,8,9", "7,,9", "7,8,8", "7,7,9", "7, 8,9",
        ] {
            assert_eq!(bad.parse::<Left>(), Err(NotLeft), "{bad}");
        }
        assert_eq!("7,8,9".parse::<Left>().unwrap().to_string(), "7,8,9");
    }

    #[test]
    fn what_somebody_could_still_change_is_not_read() {
        let sealable = MFdFlags::MFD_ALLOW_SEALING;
        let disk = tempfile::tempfile().unwrap();
        assert!(matches!(read(disk), Err(NotTaken::Open)));
        assert!(matches!(
            read(state(MFdFlags::empty(), SealFlag::empty())),
            Err(NotTaken::Open)
        ));
        for missing in [
            SealFlag::F_SEAL_SEAL,
            SealFlag::F_SEAL_SHRINK,
            SealFlag::F_SEAL_GROW,
            SealFlag::F_SEAL_WRITE,
        ] {
            let file = state(sealable, seals() - missing);
            assert!(matches!(read(file), Err(NotTaken::Open)), "{missing:?}");
        }
        let sealed = state(sealable, seals());
        assert!(File::try_clone(&sealed).unwrap().write_all(b"x").is_err());
        assert_eq!(&read(sealed).unwrap()[..], b"words");
    }
}
