//! Envoy's authorization service on a local socket: a proxy that is already there asks the same engine before it
//! forwards a request (`envoy.service.auth.v3.Authorization`).
//!
//! The proxy says who its client is, by the certificate that it checked, and names the interface in its own
//! configuration. Whatever is missing, unknown or can be read in two ways is denied.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

pub mod desk;
pub mod question;
mod socket;

use desk::Desk;
use socket::Socket;

/// How proxies may ask. Without it there is no socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtAuthzConfig {
    pub socket: PathBuf,
    /// Numbers of the users whose processes may ask; never empty.
    pub users: Vec<u32>,
}

/// The socket is open; nothing is answered before [`Serving::run`].
pub struct Serving {
    socket: Socket,
    desk: Desk,
    users: Vec<u32>,
}

/// Proxies cannot be answered. The operator's to mend.
#[derive(Debug, thiserror::Error)]
#[error("ext_authz socket {}: {source}", path.display())]
pub struct NotServed {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// Opens the socket.
pub fn begin(desk: Desk, config: ExtAuthzConfig) -> Result<Serving, NotServed> {
    let socket = Socket::bind(&config.socket).map_err(|source| NotServed {
        path: config.socket,
        source,
    })?;
    Ok(Serving {
        socket,
        desk,
        users: config.users,
    })
}

impl Serving {
    /// Answers until the token is cancelled.
    pub async fn run(self, token: CancellationToken) {
        self.socket.serve(self.desk, self.users, token).await;
    }
}

#[cfg(test)]
mod tests;
