//! `[route.x]` and `[role]`: networks behind nodes, and what nodes do for others.

use std::net::IpAddr;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::DeValue;

use super::fields::{Fields, Keys, Reader, Unreadable};
use super::services::is_net;
use crate::ast::{RoleDef, RouteDef};
use crate::compile::{EMBEDDING_BITS, Seen, embedded};
use crate::slice::MESH;
use crate::slice::beyond::{host_bits, is_one_to_one};
use crate::source::Placed;

const ROUTE: Keys = Keys {
    accepted: &["on", "net", "prefix", "as"],
    not_enforced: &[],
};
const ROLE: Keys = Keys {
    accepted: &["relay", "exit"],
    not_enforced: &[],
};
/// How each node of a group gets a network of its own for what lies behind it.
const PER_NODE: &str = "per-node";
/// Shortest prefix of a network behind a node: what is larger is the internet, for which `exit` is there.
const SHORTEST_V4: u8 = 8;
const SHORTEST_V6: u8 = 16;
/// What no network behind a node may touch: loopback, link-local, multicast and reserved ranges, and the overlay's own
/// IPv4 addresses.
const NEVER: &[&str] = &[
    "0.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/3",
    "::/16",
    "fe80::/10",
    "ff00::/8",
];

pub(super) fn read_route(
    reader: &mut Reader<'_, '_>,
    name: Placed<String>,
    value: &Spanned<DeValue<'_>>,
) -> Option<RouteDef> {
    let what = format!("route `{}`", name.value);
    let fields = reader.table(value, &what, &ROUTE)?;
    let on = fields.required_string(reader, "on");
    let net = fields.required_string(reader, "net").filter(|net| {
        let elsewhere = net.value != MESH;
        if !elsewhere {
            let help = "name the node's own network interface, such as lan0";
            reader.bad(net.at, format!("{what} leads into the tunnel itself"), help);
        }
        elsewhere && is_net(reader, net)
    });
    fields.required(reader, "prefix");
    let prefix = read_prefix(reader, &fields, "prefix");
    let seen = read_seen(reader, &fields, prefix.as_ref().ok()?.as_ref());
    let (prefix, seen) = (prefix.ok()??, seen?);
    Some(RouteDef {
        name,
        on: on?,
        net: net?.value,
        prefix,
        seen,
    })
}

/// `as`: how the overlay knows the network. Without it: as it is.
fn read_seen(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
    prefix: Option<&Placed<IpNet>>,
) -> Option<Placed<Seen>> {
    let text = fields.optional_string(reader, "as").ok()?;
    let Some(text) = text else {
        let prefix = prefix?;
        return Some(Placed {
            value: Seen::As(prefix.value),
            at: prefix.at,
        });
    };
    let value = if text.value == PER_NODE {
        let v4 = matches!(prefix?.value, IpNet::V4(_));
        if !v4 {
            reader.bad(
                text.at,
                format!(
                    "{} is `{PER_NODE}` for a network of IPv6",
                    fields.what("as")
                ),
                "name a network of the same size, or leave `as` out",
            );
        }
        v4.then_some(Seen::PerNode)?
    } else {
        let net = read_prefix(reader, fields, "as").ok()??.value;
        let prefix = prefix?.value;
        let value = match net {
            IpNet::V6(room)
                if room.prefix_len() == EMBEDDING_BITS && matches!(prefix, IpNet::V4(_)) =>
            {
                embedded(prefix, room)
            }
            other => other,
        };
        if !is_one_to_one(prefix, value) {
            reader.bad(
                text.at,
                format!("{} is not a network of the same size as `prefix`", fields.what("as")),
                format!(
                    "every address needs exactly one of its own: a network with {} host bits, for IPv4 an IPv6 /{EMBEDDING_BITS}, or \"{PER_NODE}\"",
                    host_bits(prefix)
                ),
            );
            return None;
        }
        Seen::As(value)
    };
    Some(Placed { value, at: text.at })
}

fn read_prefix(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
    key: &str,
) -> Result<Option<Placed<IpNet>>, Unreadable> {
    let Some(text) = fields.optional_string(reader, key)? else {
        return Ok(None);
    };
    match parse_prefix(&text.value) {
        Some(value) => Ok(Some(Placed { value, at: text.at })),
        None => {
            reader.bad(
                text.at,
                format!("{} is not a network: {:?}", fields.what(key), text.value),
                "write its first address and the length of its prefix: 192.168.1.0/24 or fd7a:1::/96; never loopback, link-local, multicast, the overlay's 100.64.0.0/10, or all there is",
            );
            Err(Unreadable)
        }
    }
}

/// The first address of a network, and its length.
fn parse_prefix(text: &str) -> Option<IpNet> {
    let (address, digits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let length: u8 = digits.parse().ok()?;
    if length.to_string() != digits {
        return None;
    }
    let net = IpNet::new(address, length).ok()?;
    let long_enough = match net {
        IpNet::V4(_) => length >= SHORTEST_V4,
        IpNet::V6(_) => length >= SHORTEST_V6,
    };
    (net == net.trunc() && long_enough && !NEVER.iter().any(|never| overlap(never, net)))
        .then_some(net)
}

fn overlap(never: &str, net: IpNet) -> bool {
    // What stands in the list below reads as a network; if not, nothing passes.
    never
        .parse::<IpNet>()
        .map_or(true, |never| never.contains(&net) || net.contains(&never))
}

pub(super) fn read_role(
    reader: &mut Reader<'_, '_>,
    value: &Spanned<DeValue<'_>>,
) -> Option<RoleDef> {
    let at = reader.place(value.span().start);
    let fields = reader.table(value, "role", &ROLE)?;
    if fields.get("relay").is_none() && fields.get("exit").is_none() {
        reader.bad(
            at,
            "role is empty",
            "name groups: relay = [\"gateways\"], exit = []",
        );
        return None;
    }
    let relay = read_groups(reader, &fields, "relay");
    let exit = read_groups(reader, &fields, "exit");
    Some(RoleDef {
        relay: relay.ok()?,
        exit: exit.ok()?,
    })
}

/// Names of groups; here an empty list says something: nobody.
fn read_groups(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
    key: &str,
) -> Result<Vec<Placed<String>>, Unreadable> {
    match fields.get(key).map(|value| (value, value.get_ref())) {
        None => Ok(Vec::new()),
        Some((_, DeValue::Array(array))) if array.is_empty() => Ok(Vec::new()),
        Some((value, _)) => reader.strings(value, &fields.what(key)).ok_or(Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_its_first_address_and_a_plain_length() {
        for text in [
            "192.168.1.1/24",
            "192.168.1.0",
            "192.168.1.0/33",
            "192.168.1.0/024",
            "192.168.1.0/+24",
            "224.0.0.0/8",
            "127.0.0.0/8",
            "0.0.0.0/0",
            "100.0.0.0/8",
            "100.64.7.0/24",
            "169.254.0.0/16",
            "fe80::/64",
            "ff00::/16",
            "::/0",
            "::/96",
            "fd00::1/96",
            "fd00::/129",
            "",
            "/",
        ] {
            assert!(parse_prefix(text).is_none(), "{text}");
        }
        for text in ["192.168.1.0/24", "10.0.0.1/32", "10.0.0.0/8", "fd7a:1::/96"] {
            assert_eq!(
                parse_prefix(text).map(|net| net.to_string()).as_deref(),
                Some(text)
            );
        }
    }
}
