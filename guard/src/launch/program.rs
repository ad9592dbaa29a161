//! Opens the program once, and judges what was opened: the same descriptor is executed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Instant;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::order::Order;
use super::root;
use crate::digest::{Digest, NoDigest};

#[derive(Debug, thiserror::Error)]
pub enum BadProgram {
    #[error("program cannot be opened: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Digest(#[from] NoDigest),
    #[error("program is no regular file")]
    NotRegular,
    #[error("program is not root's, or others may write to it")]
    Writable,
    #[error("program gives rights of its owner or group")]
    SetId,
    #[error("program is a script: the manifest must name its interpreter")]
    Script,
    #[error("program is another than the manifest's: {0}")]
    OtherDigest(Digest),
}

/// In the application's root, which must be built.
pub fn open(order: &Order, due: Instant) -> Result<OwnedFd, BadProgram> {
    let tree = File::open(root::APP)?;
    let program = open_beneath(&tree, &order.program)?;
    judge(&program, &order.digest, due)?;
    Ok(program.into())
}

/// No link on the way counts, and nothing that leads out of the application or to another mount.
fn open_beneath(tree: &File, program: &Path) -> io::Result<File> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(openat2(tree, program, flags, Mode::empty(), resolve)?.into())
}

fn judge(program: &File, wanted: &Digest, due: Instant) -> Result<(), BadProgram> {
    let data = program.metadata()?;
    if !data.is_file() {
        return Err(BadProgram::NotRegular);
    }
    if data.uid() != 0 || data.mode() & 0o022 != 0 {
        return Err(BadProgram::Writable);
    }
    if data.mode() & 0o6000 != 0 {
        return Err(BadProgram::SetId);
    }
    let digest = Digest::of(program.as_fd(), due)?;
    if digest != *wanted {
        return Err(BadProgram::OtherDigest(digest));
    }
    // The kernel would run the interpreter that the first line names, which nobody verified.
    let mut first = [0; 2];
    if program.read_at(&mut first, 0)? == 2 && &first == b"#!" {
        return Err(BadProgram::Script);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::Duration;

    use super::*;

    fn due() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn digest_of(path: &Path) -> Digest {
        Digest::of(File::open(path).unwrap().as_fd(), due()).unwrap()
    }

    #[test]
    fn a_link_and_a_way_out_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        symlink("/bin/true", folder.path().join("bin/absolute")).unwrap();
        symlink("../real", folder.path().join("bin/relative")).unwrap();
        symlink("bin", folder.path().join("folder")).unwrap();
        std::fs::write(folder.path().join("real"), b"x").unwrap();
        std::fs::write(folder.path().join("bin/real"), b"x").unwrap();
        let tree = File::open(folder.path()).unwrap();
        for bad in [
            "bin/absolute",
            "bin/relative",
            "folder/real",
            "../etc/passwd",
        ] {
            assert!(open_beneath(&tree, Path::new(bad)).is_err(), "{bad}");
        }
        assert!(open_beneath(&tree, Path::new("bin/real")).is_ok());
    }

    #[test]
    fn what_is_opened_must_be_the_manifests_roots_and_no_script() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let judged = |mode, wanted: &Digest| {
            let allowed = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(file.path(), allowed).unwrap();
            judge(&File::open(file.path()).unwrap(), wanted, due())
        };
        std::fs::write(file.path(), b"\x7fELF").unwrap();
        let right = digest_of(file.path());
        let other = Digest::new([0; 32]);
        assert!(matches!(
            judged(0o755, &other),
            Err(BadProgram::OtherDigest(_))
        ));
        assert!(matches!(judged(0o775, &right), Err(BadProgram::Writable)));
        assert!(matches!(judged(0o757, &right), Err(BadProgram::Writable)));
        assert!(matches!(judged(0o4755, &right), Err(BadProgram::SetId)));
        assert!(matches!(judged(0o2755, &right), Err(BadProgram::SetId)));
        assert!(judged(0o755, &right).is_ok());
        std::fs::write(file.path(), b"#!/bin/sh\n").unwrap();
        let script = digest_of(file.path());
        assert!(matches!(judged(0o755, &script), Err(BadProgram::Script)));
        let folder = File::open("/").unwrap();
        assert!(matches!(
            judge(&folder, &right, due()),
            Err(BadProgram::NotRegular)
        ));
    }
}
