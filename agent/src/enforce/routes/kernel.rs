//! The machine's switches for forwarding, and its routes into the tunnel.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use ipnet::IpNet;
use tokio::process::Command;

use super::plan::is_v4;
use crate::enforce::{DeviceName, NetDevice};

/// The command; found by the search path.
const IP: &str = "ip";
/// One call must end within this time.
const DEADLINE: Duration = Duration::from_secs(5);
/// By this number the kernel tells whose the routes are.
const PROTOCOL: &str = "237";
/// A network that the machine itself is in comes first.
const METRIC: &str = "4096";

/// The machine did not do it. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("forwarding on {device} cannot be read or changed: {source}")]
    Switch {
        device: String,
        #[source]
        source: std::io::Error,
    },
    #[error("forwarding of IPv6 is off: net.ipv6.conf.all.forwarding")]
    Ipv6Off,
    #[error("ip cannot be run: {0}")]
    Run(#[source] std::io::Error),
    #[error("ip did not end within the limit in seconds: {}", DEADLINE.as_secs())]
    Deadline,
    #[error("ip refused: {0}")]
    Refused(String),
}

/// Turns IPv4 forwarding on for what comes in at a device; whether it was off.
pub(super) fn forward(device: &str) -> Result<bool, Failed> {
    let path = switch(device);
    let failed = |source| Failed::Switch {
        device: device.to_owned(),
        source,
    };
    let before = std::fs::read_to_string(&path).map_err(failed)?;
    if before.trim() == "1" {
        return Ok(false);
    }
    std::fs::write(&path, "1").map_err(failed)?;
    Ok(true)
}

/// Turns it off again. A device that is gone needs nothing.
pub(super) fn forward_no_more(device: &str) {
    if let Err(error) = std::fs::write(switch(device), "0") {
        tracing::debug!(device, %error, "forwarding not turned off");
    }
}

/// IPv6 knows one switch for the whole machine, which changes more than forwarding: it is the operator's.
pub(super) fn forwards_ipv6() -> Result<(), Failed> {
    let all = std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding");
    match all.is_ok_and(|text| text.trim() == "1") {
        true => Ok(()),
        false => Err(Failed::Ipv6Off),
    }
}

fn switch(device: &str) -> PathBuf {
    // A dot in a device's name is no part of the path here: it stands for itself.
    ["/proc/sys/net/ipv4/conf", device, "forwarding"]
        .iter()
        .collect()
}

/// Makes the routes into the tunnel `wanted`, which were `present`.
pub(super) async fn route(
    tunnel: &DeviceName,
    present: &BTreeSet<IpNet>,
    wanted: &BTreeSet<IpNet>,
) -> Result<(), Failed> {
    for net in present.difference(wanted) {
        // It may be gone with the device's address.
        let _gone = call("delete", net, tunnel).await;
    }
    for net in wanted.difference(present) {
        call("replace", net, tunnel).await?;
    }
    Ok(())
}

async fn call(verb: &str, net: &IpNet, tunnel: &DeviceName) -> Result<(), Failed> {
    let family = if is_v4(net) { "-4" } else { "-6" };
    let output = Command::new(IP)
        .args([family, "route", verb, &net.to_string(), "dev"])
        .args([tunnel.as_str(), "proto", PROTOCOL, "metric", METRIC])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE, output)
        .await
        .map_err(|_| Failed::Deadline)?
        .map_err(Failed::Run)?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(Failed::Refused(
        complaint.trim().chars().take(300).collect(),
    ))
}

/// The devices of the set that an earlier run of this agent left: names between quotes in nft's JSON.
pub(super) fn devices_in(listing: &[u8]) -> BTreeSet<NetDevice> {
    let Ok(listing) = serde_json::from_slice::<serde_json::Value>(listing) else {
        return BTreeSet::new();
    };
    let parts = listing.get("nftables").and_then(|parts| parts.as_array());
    let elements = parts
        .into_iter()
        .flatten()
        .filter_map(|part| part.get("set")?.get("elem")?.as_array());
    elements
        .flatten()
        .filter_map(|element| element.as_str()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_run_turned_on_is_read_from_its_table() {
        let listing = br#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"set": {"family": "inet", "name": "ours",
            "table": "t", "type": "ifname", "handle": 2, "elem": ["lan0", "br-lan"]}}]}"#;
        let names: Vec<String> = devices_in(listing)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names, ["br-lan", "lan0"]);
        for text in [
            "",
            "{}",
            "[]",
            r#"{"nftables": [{"set": {"elem": [1, {}]}}]}"#,
        ] {
            assert!(devices_in(text.as_bytes()).is_empty());
        }
    }
}
