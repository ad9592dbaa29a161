//! The table as text for `nft -f -`, always whole: it has a few lines for each network.
//!
//! It belongs to the tunnel device alone. What comes from the tunnel goes to a network of the plan or nowhere; into the
//! tunnel comes what is from such a network. Towards a network the node stands for its peers (masquerade), so that
//! nothing there needs to know of the overlay. Leases are in the table beside it, before connection tracking.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use edgeward_identity::BootTime;
use ipnet::IpNet;

use super::claims;
use super::plan::{Claims, Led, is_v4};
use crate::enforce::{DeviceName, NetDevice, leases};

/// Longest timeout of an element, in seconds: ten years.
const MAX_TIMEOUT_SECS: u64 = 10 * 365 * 24 * 3600;
/// The set of devices on which this agent turned forwarding on.
pub const OURS: &str = "ours";

/// What is not the internet, as in `edgeward_policy::slice::beyond::is_internet`: the filter decides by that; here it is
/// said once more.
const ELSEWHERE: [(&str, &str); 2] = [
    (
        "ip",
        "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.0.0.0/24, 192.0.2.0/24, \
         192.88.99.0/24, 192.168.0.0/16, 198.18.0.0/15, 198.51.100.0/24, 203.0.113.0/24, 224.0.0.0/3",
    ),
    (
        "ip6",
        "::/3, 2001::/23, 2001:db8::/32, 2002::/16, 3fff::/20, 4000::/2, 8000::/1",
    ),
];

/// The same as networks.
pub(in crate::enforce) fn elsewhere() -> impl Iterator<Item = IpNet> {
    let texts = ELSEWHERE.iter().flat_map(|(_, nets)| nets.split(", "));
    texts.filter_map(|net| net.trim().parse().ok())
}

/// The name of the table. Unlike any that [`leases::table`] makes.
pub fn name(tunnel: &DeviceName) -> String {
    format!("{}_routes", leases::table(tunnel))
}

/// Replaces the table. `ours`: devices on which this agent turned forwarding on.
pub fn make(
    tunnel: &DeviceName,
    led: &BTreeSet<Led>,
    exit: Option<&NetDevice>,
    claims: &Claims,
    ours: &BTreeSet<NetDevice>,
) -> String {
    let table = name(tunnel);
    let mut text = format!(
        "table inet {table} {{}}\ndelete table inet {table}\ntable inet {table} {{\n\
         \tset {OURS} {{ type ifname; }}\n"
    );
    claims::sets(&mut text);
    let _ = write!(
        text,
        "\tchain through {{\n\
         \t\ttype filter hook forward priority -290; policy accept;\n"
    );
    claims::rules(&mut text, tunnel);
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
    if let Some(device) = exit {
        for (ip, elsewhere) in ELSEWHERE {
            for (inward, outward, end) in [
                (tunnel.as_str(), device.as_str(), "daddr"),
                (device.as_str(), tunnel.as_str(), "saddr"),
            ] {
                let _ = writeln!(
                    text,
                    "\t\tiifname \"{inward}\" oifname \"{outward}\" {ip} {end} != {{ {elsewhere} }} accept"
                );
            }
        }
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
    if let Some(device) = exit {
        for (ip, elsewhere) in ELSEWHERE {
            let _ = writeln!(
                text,
                "\t\tiifname \"{tunnel}\" oifname \"{device}\" {ip} daddr != {{ {elsewhere} }} masquerade"
            );
        }
    }
    text.push_str("\t}\n}\n");
    for device in ours {
        let _ = writeln!(text, "add element inet {table} {OURS} {{ \"{device}\" }}");
    }
    claims::elements(&mut text, &table, claims);
    text
}

pub fn remove(tunnel: &DeviceName) -> String {
    let table = name(tunnel);
    format!("table inet {table} {{}}\ndelete table inet {table}\n")
}

/// Says anew, in the table of leases, which networks of peers have a lease, and which belong to peers that a packet
/// wakes: none inside another.
pub fn lease(
    tunnel: &DeviceName,
    leased: &BTreeMap<IpNet, BootTime>,
    asleep: &BTreeSet<IpNet>,
    now: BootTime,
) -> String {
    let table = leases::table(tunnel);
    let mut text = String::new();
    for set in ["nets4", "nets6", "asleepnets4", "asleepnets6"] {
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
    for net in asleep {
        let set = if is_v4(net) {
            "asleepnets4"
        } else {
            "asleepnets6"
        };
        let _ = writeln!(text, "add element inet {table} {set} {{ {net} }}");
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
        let text = make(&tunnel(), &led, None, &Claims::default(), &ours);
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
    fn the_list_of_what_is_not_the_internet_is_the_one_that_the_filter_goes_by() {
        use edgeward_policy::slice::beyond::is_internet;
        for (_, elsewhere) in ELSEWHERE {
            for net in elsewhere.split(", ") {
                let net: IpNet = net.trim().parse().unwrap();
                assert!(
                    !is_internet(net.network()) && !is_internet(net.broadcast()),
                    "{net}"
                );
                // The next address is of the internet, or of another line.
                let others = elsewhere
                    .split(", ")
                    .map(|net| net.trim().parse::<IpNet>().unwrap());
                let after = match net.broadcast() {
                    std::net::IpAddr::V4(v4) => v4
                        .to_bits()
                        .checked_add(1)
                        .map(|v4| std::net::Ipv4Addr::from_bits(v4).into()),
                    std::net::IpAddr::V6(v6) => v6
                        .to_bits()
                        .checked_add(1)
                        .map(|v6| std::net::Ipv6Addr::from_bits(v6).into()),
                };
                if let Some(after) = after {
                    assert!(
                        is_internet(after)
                            || others.into_iter().any(|other| other.contains(&after)),
                        "{after}"
                    );
                }
            }
        }
        let exit: NetDevice = "wan0".parse().unwrap();
        let nothing = (BTreeSet::new(), Claims::default());
        let text = make(
            &tunnel(),
            &nothing.0,
            Some(&exit),
            &nothing.1,
            &BTreeSet::new(),
        );
        let drops = text.find("iifname \"edgeward0\" counter drop").unwrap();
        let out = text
            .find("iifname \"edgeward0\" oifname \"wan0\" ip daddr != {")
            .unwrap();
        assert!(out < drops);
        assert_eq!(text.matches("masquerade").count(), 2);
    }

    #[test]
    fn a_lease_that_is_over_is_not_written_and_all_others_end() {
        let now = BootTime::from_duration(std::time::Duration::from_secs(1000));
        let after = |seconds| now.plus(std::time::Duration::from_secs(seconds));
        let leased = BTreeMap::from([
            ("10.7.3.0/24".parse().unwrap(), after(60)),
            ("fd7a:1::/120".parse().unwrap(), after(0)),
        ]);
        let asleep = BTreeSet::from(["10.8.0.0/16".parse().unwrap()]);
        let text = lease(&tunnel(), &leased, &asleep, now);
        assert_eq!(
            text,
            "flush set inet edgeward_edgeward0 nets4\nflush set inet edgeward_edgeward0 nets6\n\
             flush set inet edgeward_edgeward0 asleepnets4\nflush set inet edgeward_edgeward0 asleepnets6\n\
             add element inet edgeward_edgeward0 nets4 { 10.7.3.0/24 timeout 60s }\n\
             add element inet edgeward_edgeward0 asleepnets4 { 10.8.0.0/16 }\n"
        );
    }
}
