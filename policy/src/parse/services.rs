//! `[service.x]` with its interfaces, and `[window.x]`.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use toml::Spanned;
use toml::de::DeValue;

use super::fields::{Fields, Keys, Reader};
use super::l7::read_l7;
use crate::ast::{BehindDef, InterfaceDef, ServiceDef, WindowDef};
use crate::slice::{MESH, Proto};
use crate::source::Placed;
use crate::window::{Day, MINUTES_PER_DAY, Window, zone_exists};

/// Longest name of a network interface, in bytes (Linux IFNAMSIZ less its final zero).
const MAX_NET_BYTES: usize = 15;

/// The target that is the internet, and the service that its ways in are of.
pub(crate) const EXIT: &str = "exit";

const SERVICE: Keys = Keys {
    accepted: &["on", "interface"],
    not_enforced: &[],
};
const INTERFACE: Keys = Keys {
    accepted: &["net", "l4", "to", "l7", "route", "device"],
    not_enforced: &[],
};
const WINDOW: Keys = Keys {
    accepted: &["tz", "days", "from", "to"],
    not_enforced: &[],
};

pub(super) fn read_service(
    reader: &mut Reader<'_, '_>,
    name: Placed<String>,
    value: &Spanned<DeValue<'_>>,
    unreadable: &mut BTreeSet<(&'static str, String)>,
) -> Option<ServiceDef> {
    if name.value == EXIT {
        reader.bad(
            name.at,
            "service `exit` is the internet, which nobody defines",
            "choose another name; [role] exit says who leads there",
        );
        return None;
    }
    let fields = reader.table(value, &format!("service `{}`", name.value), &SERVICE)?;
    let on = fields.required_string(reader, "on");
    let named = fields
        .required(reader, "interface")
        .map(|value| reader.named(value, "interface"))
        .unwrap_or_default();
    let mut interfaces = Vec::new();
    for (interface, value) in named {
        let full_name = format!("{}/{}", name.value, interface.value);
        match read_interface(reader, interface, &full_name, value) {
            Some(interface) => interfaces.push(interface),
            None => {
                unreadable.insert(("interface", full_name));
            }
        }
    }
    Some(ServiceDef {
        name,
        on: on?,
        interfaces,
    })
}

fn read_interface(
    reader: &mut Reader<'_, '_>,
    name: Placed<String>,
    full_name: &str,
    value: &Spanned<DeValue<'_>>,
) -> Option<InterfaceDef> {
    let fields = reader.table(value, &format!("interface `{full_name}`"), &INTERFACE)?;
    let net = fields
        .required_string(reader, "net")
        .filter(|net| is_net(reader, net));
    let l4 = fields.required_string(reader, "l4").and_then(|text| {
        let l4 = read_l4(&text.value);
        if l4.is_none() {
            reader.bad(
                text.at,
                format!("not a protocol and port: {:?}", text.value),
                "write tcp/<1-65535> or udp/<1-65535>",
            );
        }
        l4
    });
    let to = read_forward(reader, &fields)?;
    let behind = read_behind(reader, &fields, full_name, net.as_ref())?;
    let (l7, overlaps) = match fields.get("l7") {
        None => (None, Vec::new()),
        Some(value) => {
            let (l7, overlaps) = read_l7(reader, value, full_name)?;
            (Some(l7), overlaps)
        }
    };
    let (proto, port) = l4?;
    if let (Some(_), Proto::Udp, Some(value)) = (&l7, proto, fields.get("l7")) {
        let at = reader.place(value.span().start);
        reader.bad(
            at,
            "l7 over UDP",
            "http, mqtt and modbus are read over TCP: l4 = \"tcp/…\"",
        );
        return None;
    }
    Some(InterfaceDef {
        name,
        net: net?.value,
        proto,
        port,
        to,
        behind,
        l7,
        overlaps,
    })
}

/// `Some(None)`: it is the node itself.
fn read_behind(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
    full_name: &str,
    net: Option<&Placed<String>>,
) -> Option<Option<BehindDef>> {
    let route = fields.optional_string(reader, "route").ok()?;
    let device = fields.optional_string(reader, "device").ok()?;
    let (behind, at) = match (route, device) {
        (None, None) => return Some(None),
        (Some(_), Some(device)) => {
            reader.bad(
                device.at,
                format!("interface `{full_name}` has both `route` and `device`"),
                "name the whole route, or one device in it",
            );
            return None;
        }
        (Some(route), None) => {
            let at = route.at;
            (BehindDef::Route(route), at)
        }
        (None, Some(device)) => {
            let at = device.at;
            (BehindDef::Device(device), at)
        }
    };
    if net.is_some_and(|net| net.value != MESH) {
        reader.bad(
            at,
            format!(
                "interface `{full_name}` leads beyond the node from another network than the tunnel"
            ),
            "net = \"mesh\": who comes through the tunnel is led on",
        );
        return None;
    }
    for key in ["to", "l7"] {
        if let Some(value) = fields.get(key) {
            let at = reader.place(value.span().start);
            reader.bad(
                at,
                format!("interface `{full_name}` leads beyond the node, and has `{key}`"),
                "the gateway answers at the node itself: leave out `route` or `device`, and name its address in `to`",
            );
            return None;
        }
    }
    Some(Some(behind))
}

/// A name that Linux gives a network interface.
pub(super) fn is_net(reader: &mut Reader<'_, '_>, net: &Placed<String>) -> bool {
    let fits = !net.value.is_empty()
        && net.value.len() <= MAX_NET_BYTES
        && !matches!(net.value.as_str(), "." | "..")
        && net
            .value
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte));
    if !fits {
        reader.bad(
            net.at,
            format!("not the name of a network interface: {:?}", net.value),
            format!("`mesh` for the tunnel, or 1 to {MAX_NET_BYTES} of A-Z a-z 0-9 - _ . @"),
        );
    }
    fits
}

fn read_l4(text: &str) -> Option<(Proto, u16)> {
    let (proto, port) = text.split_once('/')?;
    let proto = match proto {
        "tcp" => Proto::Tcp,
        "udp" => Proto::Udp,
        _ => return None,
    };
    let number = port.parse::<u16>().ok().filter(|number| *number > 0)?;
    (number.to_string() == port).then_some((proto, number))
}

/// `Some(None)`: not forwarded.
fn read_forward(reader: &mut Reader<'_, '_>, fields: &Fields<'_>) -> Option<Option<SocketAddr>> {
    let Some(text) = fields.optional_string(reader, "to").ok()? else {
        return Some(None);
    };
    let address = text.value.parse::<SocketAddr>().ok().filter(|address| {
        let ip = address.ip();
        address.port() > 0 && !ip.is_unspecified() && !ip.is_multicast()
    });
    if address.is_none() {
        reader.bad(
            text.at,
            format!("not an address to forward to: {:?}", text.value),
            "write an address and port: 192.0.2.10:502 or [2001:db8::10]:502",
        );
    }
    address.map(Some)
}

pub(super) fn read_window(
    reader: &mut Reader<'_, '_>,
    name: &Placed<String>,
    value: &Spanned<DeValue<'_>>,
) -> Option<WindowDef> {
    let fields = reader.table(value, &format!("window `{}`", name.value), &WINDOW)?;
    let tz = fields.required_string(reader, "tz").filter(|tz| {
        let known = zone_exists(&tz.value);
        if !known {
            reader.bad(
                tz.at,
                format!("time zone is unknown: {:?}", tz.value),
                "write an IANA name such as Asia/Shanghai or UTC",
            );
        }
        known
    });
    let days = fields.words(reader, "days", &Day::ALL.map(|day| (day.as_str(), day)));
    let from = read_minute(reader, &fields, "from", MINUTES_PER_DAY - 1);
    let to = read_minute(reader, &fields, "to", MINUTES_PER_DAY);
    let (tz, days, from, to) = (tz?, days.ok()?, from?, to?);
    if from == to {
        reader.bad(
            name.at,
            format!("window `{}` begins and ends at the same minute", name.value),
            "write 00:00 to 24:00 for whole days",
        );
        return None;
    }
    let days = days.map_or_else(|| Day::ALL.to_vec(), |days| days.value);
    Some(WindowDef {
        at: name.at,
        window: Window {
            name: name.value.clone(),
            tz: tz.value,
            days,
            from,
            to,
        },
    })
}

fn read_minute(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
    key: &str,
    largest: u16,
) -> Option<u16> {
    let text = fields.required_string(reader, key)?;
    let minute = text
        .value
        .split_once(':')
        .filter(|(hours, minutes)| hours.len() == 2 && minutes.len() == 2)
        .filter(|_| {
            text.value
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b':')
        })
        .and_then(|(hours, minutes)| {
            Some((hours.parse::<u16>().ok()?, minutes.parse::<u16>().ok()?))
        })
        .filter(|(hours, minutes)| *hours <= 24 && *minutes < 60)
        .map(|(hours, minutes)| hours * 60 + minutes)
        .filter(|minute| *minute <= largest);
    if minute.is_none() {
        let last = if largest == MINUTES_PER_DAY {
            "24:00"
        } else {
            "23:59"
        };
        let help = format!("write HH:MM, 00:00 to {last}");
        reader.bad(
            text.at,
            format!("not a time of day: {:?}", text.value),
            help,
        );
    }
    minute
}
