//! The machine's switches for forwarding, and its default route.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::enforce::{DeviceName, NetDevice};

/// Most lines of the kernel's table of routes that are read.
const MAX_ROUTES: usize = 65_536;

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

/// The device of the default route of IPv4: by the kernel's table, the one of the least metric.
pub(super) fn uplink(tunnel: &DeviceName) -> Option<NetDevice> {
    let table = std::fs::read_to_string("/proc/net/route").ok()?;
    uplink_in(&table, tunnel)
}

fn uplink_in(table: &str, tunnel: &DeviceName) -> Option<NetDevice> {
    let routes = table.lines().skip(1).take(MAX_ROUTES).filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [device, destination, _, flags, _, _, metric, mask, ..] = words.as_slice() else {
            return None;
        };
        let up = u32::from_str_radix(flags, 16).ok()? & 1 != 0;
        let default = *destination == "00000000" && *mask == "00000000";
        let metric: u32 = metric.parse().ok()?;
        (up && default && *device != tunnel.as_str()).then_some((metric, *device))
    });
    routes.min().and_then(|(_, device)| device.parse().ok())
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
    fn the_uplink_is_the_default_route_of_the_least_metric_and_never_the_tunnel() {
        let head =
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";
        let line = |device: &str, destination: &str, flags: &str, metric: &str, mask: &str| {
            format!("{device}\t{destination}\t0102A8C0\t{flags}\t0\t0\t{metric}\t{mask}\t0\t0\t0\n")
        };
        let tunnel: DeviceName = "edgeward0".parse().unwrap();
        let found = |lines: &[String]| {
            let table = format!("{head}{}", lines.concat());
            uplink_in(&table, &tunnel).map(|device| device.to_string())
        };
        let slow = line("lte0", "00000000", "0003", "700", "00000000");
        let fast = line("eth1", "00000000", "0003", "100", "00000000");
        let lan = line("lan0", "0001A8C0", "0001", "0", "00FFFFFF");
        let down = line("eth2", "00000000", "0002", "0", "00000000");
        let own = line("edgeward0", "00000000", "0003", "0", "00000000");
        assert_eq!(
            found(&[slow.clone(), fast, lan.clone(), down.clone(), own.clone()]).as_deref(),
            Some("eth1")
        );
        assert_eq!(found(&[slow, own.clone()]).as_deref(), Some("lte0"));
        assert_eq!(found(&[lan, down, own]), None);
        assert_eq!(uplink_in("", &tunnel), None);
    }

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
