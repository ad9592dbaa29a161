//! The folder that the application may write to: its own user's, and nobody else's before.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::order::Order;
use super::root::STATE;

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("state {}: {error}", .path.display())]
    Io {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("state {} belongs to another user: {owner}", .path.display())]
    Others { path: PathBuf, owner: u32 },
}

/// As root, before the application's root is built. The folder above must be root's.
pub fn prepare(order: &Order) -> Result<(), StateError> {
    let path = &order.state;
    let io = |error| StateError::Io {
        path: path.clone(),
        error,
    };
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io(error)),
        _ => {}
    }
    let folder = open(path).map_err(io)?;
    let owner = folder.metadata().map_err(io)?.uid();
    if owner == order.uid {
        return Ok(());
    }
    // What another application wrote is not this one's.
    if owner != 0 {
        let path = path.clone();
        return Err(StateError::Others { path, owner });
    }
    folder
        .set_permissions(Permissions::from_mode(0o700))
        .and_then(|()| std::os::unix::fs::fchown(&folder, Some(order.uid), Some(order.gid)))
        .map_err(io)
}

/// As the application's user, within its root: so a link that the application left there leads nowhere new.
pub fn make_folders(order: &Order) -> Result<(), StateError> {
    for folder in &order.writable {
        let path = Path::new(STATE).join(folder);
        std::fs::create_dir_all(&path).map_err(|error| StateError::Io { path, error })?;
    }
    Ok(())
}

fn open(path: &Path) -> io::Result<File> {
    std::fs::OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits())
        .open(path)
}
