//! `[route.x]` and `[role]`: networks behind nodes, and what nodes do for others.

use std::net::IpAddr;

use toml::Spanned;
use toml::de::DeValue;

use super::fields::{Fields, Keys, Reader, Unreadable};
use super::services::is_net;
use crate::ast::{Prefix, RoleDef, RouteDef};
use crate::slice::MESH;
use crate::source::Placed;

const ROUTE: Keys = Keys {
    accepted: &["on", "net", "prefix", "as"],
    not_enforced: &[],
};
const ROLE: Keys = Keys {
    accepted: &["relay", "exit"],
    not_enforced: &[],
};

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
    let seen_as = read_prefix(reader, &fields, "as");
    let (prefix, seen_as) = (prefix.ok()??, seen_as.ok()?);
    if let Some(seen_as) = &seen_as
        && seen_as.value.host_bits() < prefix.value.host_bits()
    {
        reader.bad(
            seen_as.at,
            format!("{} has less room than `prefix`", fields.what("as")),
            format!(
                "every address needs one of its own: {} bits",
                prefix.value.host_bits()
            ),
        );
        return None;
    }
    net?;
    Some(RouteDef { name, on: on? })
}

fn read_prefix(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
    key: &str,
) -> Result<Option<Placed<Prefix>>, Unreadable> {
    let Some(text) = fields.optional_string(reader, key)? else {
        return Ok(None);
    };
    match parse_prefix(&text.value) {
        Some(value) => Ok(Some(Placed { value, at: text.at })),
        None => {
            reader.bad(
                text.at,
                format!("{} is not a network: {:?}", fields.what(key), text.value),
                "write its first address and the length of its prefix: 192.168.1.0/24 or fd7a:1::/96",
            );
            Err(Unreadable)
        }
    }
}

/// The first address of a network, and its length.
fn parse_prefix(text: &str) -> Option<Prefix> {
    let (address, digits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let length: u8 = digits.parse().ok()?;
    if length.to_string() != digits {
        return None;
    }
    let prefix = match address {
        IpAddr::V4(_) if length > 32 => return None,
        IpAddr::V4(_) => Prefix { bits: 32, length },
        IpAddr::V6(_) if length > 128 => return None,
        IpAddr::V6(_) => Prefix { bits: 128, length },
    };
    let number = match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let host = 1_u128
        .checked_shl(u32::from(prefix.host_bits()))
        .map_or(u128::MAX, |bit| bit - 1);
    (number & host == 0 && !address.is_multicast() && !address.is_loopback()).then_some(prefix)
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
    let (mut groups, exit) = (relay.ok()?, exit.ok()?);
    groups.extend(exit);
    Some(RoleDef { at, groups })
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
            "224.0.0.0/4",
            "127.0.0.0/8",
            "fd00::1/96",
            "fd00::/129",
            "",
            "/",
        ] {
            assert!(parse_prefix(text).is_none(), "{text}");
        }
        for (text, host_bits) in [
            ("192.168.1.0/24", 8),
            ("10.0.0.1/32", 0),
            ("0.0.0.0/0", 32),
            ("fd7a:1::/96", 32),
            ("::/0", 128),
        ] {
            assert_eq!(
                parse_prefix(text).map(Prefix::host_bits),
                Some(host_bits),
                "{text}"
            );
        }
    }
}
