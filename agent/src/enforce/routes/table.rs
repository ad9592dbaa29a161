//! The table as text for `nft -f -`, always whole: it has a few lines for each network.
//!
//! It belongs to the tunnel device alone. What comes from the tunnel goes to a network of the plan or nowhere; into the
//! tunnel comes what is from such a network. Towards a network the node stands for its peers (masquerade), so that
//! nothing there needs to know of the overlay. Leases are in the table beside it, before connection tracking.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use edgeward_identity::BootTime;
use ipnet::IpNet;

use super::plan::{Led, is_v4};
use crate::enforce::{DeviceName, NetDevice, leases};

/// Longest timeout of an element, in seconds: ten years.
const MAX_TIMEOUT_SECS: u64 = 10 * 365 * 24 * 3600;
/// The set of devices on which this agent turned forwarding on.
pub const OURS: &str = "ours";

/// The name of the table. Unlike any that [`leases::table`] makes.
pub fn name(tunnel: &DeviceName) -> String {
    format!("{}_routes", leases::table(tunnel))
}

/// Replaces the table. `ours`: devices on which this agent turned forwarding on.
pub fn make(tunnel: &DeviceName, led: &BTreeSet<Led>, ours: &BTreeSet<NetDevice>) -> String {
    let table = name(tunnel);
    let mut text = format!(
        "table inet {table} {{}}\ndelete table inet {table}\ntable inet {table} {{\n\
         \tset {OURS} {{ type ifname; }}\n\
         \tchain through {{\n\
         \t\ttype filter hook forward priority -290; policy accept;\n"
    );
    for Led { device, prefix } in led {
        let ip = family(prefix);
        let _ = writeln!(
            text,
            "\t\tiifname \"{tunnel}\" oifname \"{device}\" {ip} daddr {prefix} accept"
        );
        let _ = writeln!(
            text,
            "\t\tiifname \"{device}\" oifname \"{tunnel}\" {ip} saddr {prefix} accept"
        );
    }
    let _ = write!(
        text,
        "\t\tiifname \"{tunnel}\" counter drop\n\
         \t\toifname \"{tunnel}\" counter drop\n\
         \t\tiifname @{OURS} counter drop\n\
         \t}}\n\
         \tchain towards {{\n\
         \t\ttype nat hook postrouting priority srcnat; policy accept;\n"
    );
    for Led { device, prefix } in led {
        let ip = family(prefix);
        let _ = writeln!(
            text,
            "\t\tiifname \"{tunnel}\" oifname \"{device}\" {ip} daddr {prefix} masquerade"
        );
    }
    text.push_str("\t}\n}\n");
    for device in ours {
        let _ = writeln!(text, "add element inet {table} {OURS} {{ \"{device}\" }}");
    }
    text
}

pub fn remove(tunnel: &DeviceName) -> String {
    let table = name(tunnel);
    format!("table inet {table} {{}}\ndelete table inet {table}\n")
}

/// Says anew which networks of peers have a lease, in the table of leases.
pub fn lease(tunnel: &DeviceName, leased: &BTreeMap<IpNet, BootTime>, now: BootTime) -> String {
    let table = leases::table(tunnel);
    let mut text = String::new();
    for set in ["nets4", "nets6"] {
        let _ = writeln!(text, "flush set inet {table} {set}");
    }
    for (net, until) in leased {
        let seconds = until.since(now).as_secs().min(MAX_TIMEOUT_SECS);
        if seconds > 0 {
            let set = if is_v4(net) { "nets4" } else { "nets6" };
            let _ = writeln!(
                text,
                "add element inet {table} {set} {{ {net} timeout {seconds}s }}"
            );
        }
    }
    text
}

fn family(net: &IpNet) -> &'static str {
    if is_v4(net) { "ip" } else { "ip6" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tunnel() -> DeviceName {
        "edgeward0".parse().unwrap()
    }

    fn led(device: &str, prefix: &str) -> Led {
        Led {
            device: device.parse().unwrap(),
            prefix: prefix.parse().unwrap(),
        }
    }

    #[test]
    fn what_is_not_led_is_dropped_after_what_is() {
        let led = BTreeSet::from([led("lan0", "192.168.1.0/24"), led("lan1", "fd01::/64")]);
        let ours = BTreeSet::from(["lan0".parse().unwrap()]);
        let text = make(&tunnel(), &led, &ours);
        let at = |part: &str| {
            text.find(part)
                .unwrap_or_else(|| panic!("{part} in {text}"))
        };
        let drops = at("iifname \"edgeward0\" counter drop");
        for part in [
            "iifname \"edgeward0\" oifname \"lan0\" ip daddr 192.168.1.0/24 accept",
            "iifname \"lan0\" oifname \"edgeward0\" ip saddr 192.168.1.0/24 accept",
            "iifname \"edgeward0\" oifname \"lan1\" ip6 daddr fd01::/64 accept",
        ] {
            assert!(at(part) < drops, "{part}");
        }
        assert!(at("oifname \"edgeward0\" counter drop") < at("iifname @ours counter drop"));
        at("iifname \"edgeward0\" oifname \"lan0\" ip daddr 192.168.1.0/24 masquerade");
        at("add element inet edgeward_edgeward0_routes ours { \"lan0\" }");
        assert!(!text.contains("accept\n\t\taccept") && !text.contains("ct state"));
    }

    #[test]
    fn a_lease_that_is_over_is_not_written_and_all_others_end() {
        let now = BootTime::from_duration(std::time::Duration::from_secs(1000));
        let after = |seconds| now.plus(std::time::Duration::from_secs(seconds));
        let leased = BTreeMap::from([
            ("10.7.3.0/24".parse().unwrap(), after(60)),
            ("fd7a:1::/120".parse().unwrap(), after(0)),
        ]);
        let text = lease(&tunnel(), &leased, now);
        assert_eq!(
            text,
            "flush set inet edgeward_edgeward0 nets4\nflush set inet edgeward_edgeward0 nets6\n\
             add element inet edgeward_edgeward0 nets4 { 10.7.3.0/24 timeout 60s }\n"
        );
    }
}
