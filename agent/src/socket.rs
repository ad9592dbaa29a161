//! Unix sockets on which programs of this machine ask the agent.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

/// How long nobody is accepted after the machine failed to.
const PAUSE: Duration = Duration::from_millis(100);

/// A bound socket, removed when dropped.
#[derive(Debug)]
pub(crate) struct LocalSocket {
    listener: UnixListener,
    path: PathBuf,
    /// For people.
    name: &'static str,
}

impl LocalSocket {
    /// Binds the socket; takes over a path that nobody listens on any more. `mode` says who may connect.
    pub(crate) fn bind(path: &Path, mode: u32, name: &'static str) -> io::Result<Self> {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            name,
        })
    }

    /// The next who connects; `None` when the token is cancelled.
    pub(crate) async fn accept(&self, token: &CancellationToken) -> Option<UnixStream> {
        loop {
            let accepted = tokio::select! {
                () = token.cancelled() => return None,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => return Some(stream),
                Err(error) => {
                    tracing::warn!(socket = self.name, %error, "socket cannot accept");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(socket = self.name, %error, "socket not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_path_is_taken_over_only_when_nobody_listens_and_left_clean() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let first = LocalSocket::bind(&path, 0o600, "test").unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = LocalSocket::bind(&path, 0o600, "test").unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(LocalSocket::bind(&path, 0o600, "test").is_ok());
    }
}
