//! Has the machine's programs ask this agent for names of the mesh, by the means that the configuration names.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::book::WireName;
use super::conf_file::ConfFile;
use super::resolv_conf::{Before, Present};
use super::serve::Desk;
use super::{resolved, upstream};

/// How often it is looked whether programs still ask here.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often it is looked whether systemd-resolved is still the same process.
const LOOK_AT_RESOLVED_EVERY: Duration = Duration::from_secs(60);
/// How soon systemd-resolved is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Keeps resolv.conf until the token is cancelled; then it is as it was.
pub(super) async fn by_resolv_conf(
    desk: Arc<Desk>,
    conf: ConfFile,
    own: SocketAddr,
    token: CancellationToken,
) {
    let mut said = Said::default();
    loop {
        let taken = conf.take(own.ip());
        match &taken {
            Ok((before, written)) => {
                if *written {
                    tracing::info!("names of the mesh are asked for here: resolv.conf was written");
                }
                desk.upstream.store(Arc::new(servers(before, own)));
                said.well(&desk);
            }
            Err(failed) => said.badly(&desk, failed.to_string()),
        }
        tokio::select! {
            () = token.cancelled() => break,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    if let Err(failed) = conf.put_back() {
        tracing::error!(%failed, "resolv.conf not put back");
    }
}

/// Keeps systemd-resolved told until the token is cancelled.
pub(super) async fn by_resolved(
    desk: Arc<Desk>,
    device: u32,
    own: SocketAddr,
    zones: Vec<WireName>,
    token: CancellationToken,
) {
    let mut said = Said::default();
    let mut told = None;
    loop {
        let done = async {
            let process = resolved::process().await?;
            if told != Some(process) {
                resolved::register(device, own, &zones).await?;
                told = Some(process);
            }
            Ok::<(), resolved::ResolvedFailed>(())
        };
        let pause = match done.await {
            Ok(()) => {
                let text = std::fs::read(Path::new(resolved::SERVERS_FILE)).unwrap_or_default();
                let before = Present::read(&text).before();
                desk.upstream.store(Arc::new(servers(&before, own)));
                said.well(&desk);
                LOOK_AT_RESOLVED_EVERY
            }
            Err(failed) => {
                told = None;
                said.badly(&desk, failed.to_string());
                RETRY
            }
        };
        tokio::select! {
            () = token.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    if told.is_some()
        && let Err(failed) = resolved::revert(device).await
    {
        tracing::debug!(%failed, "systemd-resolved forgets with the device");
    }
}

fn servers(before: &Before, own: SocketAddr) -> Vec<SocketAddr> {
    let servers = before.servers(own.ip()).into_iter();
    servers
        .map(|server| SocketAddr::new(server, upstream::PORT))
        .collect()
}

/// Says a thing once.
#[derive(Default)]
struct Said(Option<Result<(), String>>);

impl Said {
    fn well(&mut self, desk: &Desk) {
        self.0 = Some(Ok(()));
        desk.shown.asked(Ok(()));
    }

    fn badly(&mut self, desk: &Desk, reason: String) {
        let told = Some(Err(reason.clone()));
        if self.0 != told {
            tracing::warn!(%reason, "the machine's programs do not ask here for names of the mesh");
            self.0 = told;
        }
        desk.shown.asked(Err(reason));
    }
}
