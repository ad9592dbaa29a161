//! systemd-resolved, told over the system bus that names of our zones are asked of this agent, and no others.
//!
//! What it is told belongs to the tunnel device and goes with it, so nothing is left to put back after a crash. The bus
//! is spoken to by `busctl`, which is there wherever systemd is.

use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::book::WireName;

/// The command; found by the search path.
const BUSCTL: &str = "busctl";
/// One call must end within this time.
const DEADLINE: Duration = Duration::from_secs(5);
/// Most of a complaint that is shown, in characters.
const MAX_COMPLAINT_CHARS: usize = 300;
const SERVICE: &str = "org.freedesktop.resolve1";
const OBJECT: &str = "/org/freedesktop/resolve1";
const MANAGER: &str = "org.freedesktop.resolve1.Manager";
/// Where systemd-resolved says which servers it asks (systemd-resolved.service(8)).
pub(super) const SERVERS_FILE: &str = "/run/systemd/resolve/resolv.conf";

/// Names cannot be asked through systemd-resolved. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolvedFailed {
    #[error("busctl cannot be run: {0}")]
    Run(#[source] std::io::Error),
    #[error("busctl did not end within the limit in seconds: {}", DEADLINE.as_secs())]
    Deadline,
    #[error("systemd-resolved refused: {0}")]
    Refused(String),
    #[error("systemd-resolved runs in another network namespace than this agent")]
    ElsewhereInTheKernel,
    #[error("the network namespace of systemd-resolved cannot be read: {0}")]
    Namespace(#[source] std::io::Error),
    #[error("busctl said what is no process: {0:?}")]
    NoProcess(String),
}

/// The process that is systemd-resolved, if it lives among the same devices as this agent. Elsewhere the number of
/// our device would be another's.
pub(super) async fn process() -> Result<u32, ResolvedFailed> {
    let said = busctl(&[
        "org.freedesktop.DBus".to_owned(),
        "/org/freedesktop/DBus".to_owned(),
        "org.freedesktop.DBus".to_owned(),
        "GetConnectionUnixProcessID".to_owned(),
        "s".to_owned(),
        SERVICE.to_owned(),
    ])
    .await?;
    let process = said
        .trim()
        .strip_prefix("u ")
        .and_then(|number| number.parse().ok());
    let process: u32 = process.ok_or(ResolvedFailed::NoProcess(said))?;
    let namespace = |of: &str| {
        std::fs::read_link(format!("/proc/{of}/ns/net")).map_err(ResolvedFailed::Namespace)
    };
    match namespace(&process.to_string())? == namespace("self")? {
        true => Ok(process),
        false => Err(ResolvedFailed::ElsewhereInTheKernel),
    }
}

/// From now on names of `zones`, and only they, are asked of `server` by way of the device.
pub(super) async fn register(
    device: u32,
    server: SocketAddr,
    zones: &[WireName],
) -> Result<(), ResolvedFailed> {
    let calls = [
        ("SetLinkDNSEx", "ia(iayqs)", server_words(server)),
        ("SetLinkDomains", "ia(sb)", zone_words(zones)),
        ("SetLinkDefaultRoute", "ib", vec!["false".to_owned()]),
        // Nobody signs these zones: what is asked for here came from the cloud, signed.
        ("SetLinkDNSSEC", "is", vec!["no".to_owned()]),
        ("SetLinkLLMNR", "is", vec!["no".to_owned()]),
        ("SetLinkMulticastDNS", "is", vec!["no".to_owned()]),
    ];
    for (method, signature, words) in calls {
        manager(method, signature, device, words).await?;
    }
    Ok(())
}

/// Takes back what [`register`] told.
pub(super) async fn revert(device: u32) -> Result<(), ResolvedFailed> {
    manager("RevertLink", "i", device, Vec::new()).await
}

/// One server: address family (as in `sys/socket.h`), address by byte, port, no name.
fn server_words(server: SocketAddr) -> Vec<String> {
    let (family, octets) = match server.ip() {
        IpAddr::V4(v4) => (2, v4.octets().to_vec()),
        IpAddr::V6(v6) => (10, v6.octets().to_vec()),
    };
    let mut words = vec!["1".to_owned(), family.to_string(), octets.len().to_string()];
    words.extend(octets.iter().map(u8::to_string));
    words.extend([server.port().to_string(), String::new()]);
    words
}

/// Zones to route by, none of them to search in.
fn zone_words(zones: &[WireName]) -> Vec<String> {
    let count = zones.len().to_string();
    let each = zones
        .iter()
        .flat_map(|zone| [zone.to_string(), "true".to_owned()]);
    std::iter::once(count).chain(each).collect()
}

async fn manager(
    method: &str,
    signature: &str,
    device: u32,
    words: Vec<String>,
) -> Result<(), ResolvedFailed> {
    let mut call: Vec<String> = [SERVICE, OBJECT, MANAGER, method, signature]
        .map(str::to_owned)
        .to_vec();
    call.push(device.to_string());
    call.extend(words);
    busctl(&call).await.map(|_| ())
}

async fn busctl(words: &[String]) -> Result<String, ResolvedFailed> {
    let work = Command::new(BUSCTL)
        .args(["--system", "call", "--"])
        .args(words)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE, work)
        .await
        .map_err(|_| ResolvedFailed::Deadline)?
        .map_err(ResolvedFailed::Run)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(ResolvedFailed::Refused(
        complaint.trim().chars().take(MAX_COMPLAINT_CHARS).collect(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::book::wire_name;

    #[test]
    fn zones_are_for_routing_and_never_for_searching() {
        let zones = [
            wire_name("plant.example").unwrap(),
            wire_name("64.100.in-addr.arpa").unwrap(),
        ];
        assert_eq!(
            zone_words(&zones).join(" "),
            "2 plant.example true 64.100.in-addr.arpa true"
        );
    }

    #[test]
    fn a_server_is_its_family_its_bytes_and_its_port() {
        let server = "127.0.0.55:53".parse().unwrap();
        assert_eq!(server_words(server).join(" "), "1 2 4 127 0 0 55 53 ");
        let server: SocketAddr = "[fd00::1]:5353".parse().unwrap();
        let words = server_words(server);
        assert_eq!(words.len(), 3 + 16 + 2);
        assert_eq!(words[1..4], ["10", "16", "253"]);
    }
}
