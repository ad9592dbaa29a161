//! `[device.x]`: things without an agent, where they hang and how they are recognised.

use std::net::IpAddr;

use edgeward_identity::{Kind, SpiffeId, TrustDomain};
use toml::Spanned;
use toml::de::DeValue;

use super::fields::{Fields, Keys, Reader, Unreadable};
use super::services::is_net;
use crate::ast::DeviceDef;
use crate::device::{Mac, Recognition};
use crate::diagnostic::Code;
use crate::fleet::Labels;
use crate::slice::MESH;
use crate::source::{MAX_LIST, Placed};

const DEVICE: Keys = Keys {
    accepted: &["node", "interface", "labels", "match"],
    not_enforced: &[],
};
const MATCH: Keys = Keys {
    accepted: &["mac", "ip", "certificate"],
    not_enforced: &[],
};

pub(super) fn read_device(
    reader: &mut Reader<'_, '_>,
    name: Placed<String>,
    value: &Spanned<DeValue<'_>>,
) -> Option<DeviceDef> {
    let what = format!("device `{}`", name.value);
    let named = is_id(reader, &name, Kind::Device, "name of the device");
    let fields = reader.table(value, &what, &DEVICE)?;
    let node = fields
        .required_string(reader, "node")
        .filter(|node| is_id(reader, node, Kind::Node, &fields.what("node")));
    let net = fields.required_string(reader, "interface").filter(|net| {
        let hangs_there = net.value != MESH;
        if !hangs_there {
            reader.bad(
                net.at,
                format!("{what} hangs on the tunnel"),
                "name the node's own network interface, such as lan0: what is in the tunnel has an agent",
            );
        }
        hangs_there && is_net(reader, net)
    });
    let labels = fields
        .required(reader, "labels")
        .and_then(|value| read_labels(reader, &fields, value));
    let recognised = fields
        .required(reader, "match")
        .and_then(|value| read_recognition(reader, &fields.what("match"), value));
    if !named {
        return None;
    }
    Some(DeviceDef {
        name,
        node: node?,
        net: net?.value,
        labels: labels?,
        recognised: recognised?,
    })
}

fn is_id(reader: &mut Reader<'_, '_>, name: &Placed<String>, kind: Kind, what: &str) -> bool {
    let domain = TrustDomain::new("any.example");
    let id = domain.and_then(|domain| SpiffeId::new(&domain, kind, &name.value));
    if let Err(error) = &id {
        reader.bad(
            name.at,
            format!("{what} is no name of a {kind}: {error}: {:?}", name.value),
            "write 1 to 63 of A-Z a-z 0-9 . - _, such as gw-3",
        );
    }
    id.is_ok()
}

/// `{ key = "value" }`: one value for each key.
fn read_labels(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
    value: &Spanned<DeValue<'_>>,
) -> Option<Placed<Labels>> {
    let what = fields.what("labels");
    let DeValue::Table(table) = value.get_ref() else {
        reader.wrong_type(value, &what, "{ key = \"value\" }");
        return None;
    };
    let at = reader.place(value.span().start);
    if table.is_empty() || table.len() > MAX_LIST {
        reader.bad(
            at,
            format!("{what} names no label"),
            "write { key = \"value\" }: groups find their devices by labels",
        );
        return None;
    }
    let mut labels = Labels::new();
    for (key, value) in table {
        let name = Placed {
            value: key.get_ref().to_string(),
            at: reader.place(key.span().start),
        };
        let value = reader.string(value, &format!("label `{}` in {what}", name.value));
        let fits = reader.is_label(&name, "label key");
        let value = value.filter(|value| reader.is_label(value, "label value"));
        if let (true, Some(value)) = (fits, value) {
            labels.insert(name.value, value.value);
        }
    }
    (labels.len() == table.len()).then_some(Placed { value: labels, at })
}

fn read_recognition(
    reader: &mut Reader<'_, '_>,
    what: &str,
    value: &Spanned<DeValue<'_>>,
) -> Option<Placed<Recognition>> {
    let at = reader.place(value.span().start);
    let before = reader.found.count();
    let fields = reader.table(value, what, &MATCH)?;
    let mac = read_one(
        reader,
        &fields,
        "mac",
        "write the address of one station: 02:00:00:00:00:11",
        |text| text.parse::<Mac>().ok(),
    );
    let ip = read_one(
        reader,
        &fields,
        "ip",
        "write one address: 192.168.1.17 or fd00::17",
        station_ip,
    );
    let certificate = read_one(
        reader,
        &fields,
        "certificate",
        "write \"sha256:\" and the 64 hex digits of the SHA-256 of its DER",
        |text| {
            let bytes = hex::decode(text.strip_prefix("sha256:")?).ok()?;
            (bytes.len() == 32).then(|| hex::encode(bytes))
        },
    );
    let recognised = Recognition {
        mac: mac.ok()?,
        ip: ip.ok()?,
        certificate: certificate.ok()?,
    };
    let nothing = recognised.mac.is_none() && recognised.ip.is_none();
    if nothing && recognised.certificate.is_none() {
        // A key that was refused already is no second error.
        if reader.found.count() == before {
            reader.found.error_with_help(
                at,
                Code::ChecksNothing,
                format!("{what} is empty: everything would be this device"),
                "name at least one of mac, ip, certificate",
            );
        }
        return None;
    }
    Some(Placed {
        value: recognised,
        at,
    })
}

/// An address that one station can have.
fn station_ip(text: &str) -> Option<IpAddr> {
    let ip = text.parse::<IpAddr>().ok()?;
    let one = match ip {
        IpAddr::V4(v4) => !v4.is_broadcast(),
        // Written as IPv4 it would never be seen on a wire as this.
        IpAddr::V6(v6) => v6.to_ipv4_mapped().is_none(),
    };
    (one && !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback()).then_some(ip)
}

fn read_one<T>(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
    key: &str,
    help: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Unreadable> {
    let Some(text) = fields.optional_string(reader, key)? else {
        return Ok(None);
    };
    match parse(&text.value) {
        Some(value) => Ok(Some(value)),
        None => {
            let message = format!("{} does not fit: {:?}", fields.what(key), text.value);
            reader.bad(text.at, message, help);
            Err(Unreadable)
        }
    }
}
