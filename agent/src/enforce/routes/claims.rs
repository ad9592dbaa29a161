//! Nobody on a network sends into the tunnel from the address of a device that he is not: lines of the table beside.
//!
//! Who is a device is told as on interfaces of the node (`lan/table.rs`): both addresses where policy names both; an
//! address alone where it names no more, and then no station that another device is known by.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::plan::{Claim, Claims};
use crate::enforce::DeviceName;

const FAMILIES: [(&str, &str, &str); 2] = [("4", "ip", "ipv4_addr"), ("6", "ip6", "ipv6_addr")];

pub(super) fn sets(text: &mut String) {
    text.push_str("\tset stations { type ifname . ether_addr; }\n");
    for (family, _, address) in FAMILIES {
        let _ = write!(
            text,
            "\tset whole{family} {{ type ifname . ether_addr . {address}; }}\n\
             \tset named{family} {{ type ifname . {address}; }}\n\
             \tset alone{family} {{ type ifname . {address}; }}\n"
        );
    }
}

/// To stand before what lets packets of a network into the tunnel.
pub(super) fn rules(text: &mut String, tunnel: &DeviceName) {
    for (family, ip, _) in FAMILIES {
        let into = format!("\t\toifname \"{tunnel}\"");
        let from = format!("iifname . {ip} saddr");
        // Whole first: on a device without stations nothing is ever whole, and what is named is dropped.
        let _ = write!(
            text,
            "{into} iifname . ether saddr . {ip} saddr @whole{family} accept\n\
             {into} {from} @named{family} counter drop\n\
             {into} {from} @alone{family} iifname . ether saddr @stations counter drop\n"
        );
    }
}

pub(super) fn elements(text: &mut String, table: &str, claims: &Claims) {
    let mut add = |set: &str, element: String| {
        let _ = writeln!(text, "add element inet {table} {set} {{ {element} }}");
    };
    for (device, mac) in &claims.stations {
        add("stations", format!("\"{device}\" . {mac}"));
    }
    for (device, Claim { ip, mac }) in &claims.addresses {
        let family = match ip {
            IpAddr::V4(_) => "4",
            IpAddr::V6(_) => "6",
        };
        match mac {
            Some(mac) => {
                add(
                    &format!("whole{family}"),
                    format!("\"{device}\" . {mac} . {ip}"),
                );
                add(&format!("named{family}"), format!("\"{device}\" . {ip}"));
            }
            None => add(&format!("alone{family}"), format!("\"{device}\" . {ip}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::enforce::routes::table::make;

    #[test]
    fn who_has_a_devices_address_and_not_its_station_is_dropped_before_the_network_is_let_in() {
        let net = || "lan0".parse().unwrap();
        let mac = "02:00:00:00:00:11".parse().unwrap();
        let claim = |ip: &str, mac| {
            (
                net(),
                Claim {
                    ip: ip.parse().unwrap(),
                    mac,
                },
            )
        };
        let claims = Claims {
            addresses: [
                claim("192.168.1.17", Some(mac)),
                claim("192.168.1.18", None),
                claim("fd01::7", Some(mac)),
            ]
            .into(),
            stations: [(net(), mac)].into(),
        };
        let led = [super::super::plan::Led {
            device: net(),
            prefix: "192.168.1.0/24".parse().unwrap(),
        }];
        let tunnel = "edgeward0".parse().unwrap();
        let text = make(&tunnel, &led.into(), None, &claims, &BTreeSet::new());
        let at = |part: &str| {
            text.find(part)
                .unwrap_or_else(|| panic!("{part} in {text}"))
        };
        let order = [
            "iifname . ether saddr . ip saddr @whole4 accept",
            "iifname . ip saddr @named4 counter drop",
            "iifname . ip saddr @alone4 iifname . ether saddr @stations counter drop",
            "iifname \"lan0\" oifname \"edgeward0\" ip saddr 192.168.1.0/24 accept",
        ];
        assert!(order.map(at).is_sorted(), "{text}");
        for element in [
            "whole4 { \"lan0\" . 02:00:00:00:00:11 . 192.168.1.17 }",
            "named4 { \"lan0\" . 192.168.1.17 }",
            "alone4 { \"lan0\" . 192.168.1.18 }",
            "whole6 { \"lan0\" . 02:00:00:00:00:11 . fd01::7 }",
            "stations { \"lan0\" . 02:00:00:00:00:11 }",
        ] {
            at(element);
        }
    }
}
