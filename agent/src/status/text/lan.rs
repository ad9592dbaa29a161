//! LAN interfaces and devices as text.

use std::fmt::{self, Formatter};

use super::{bytes, length};
use crate::enforce::lan::LanReport;

pub(super) fn write(f: &mut Formatter<'_>, lan: &LanReport) -> fmt::Result {
    if let Some(failed) = &lan.failed {
        writeln!(f, "LAN interfaces are not as policy says: {failed}")?;
    }
    for interface in &lan.unserved {
        writeln!(f, "no network device for {interface}: nobody is kept out")?;
    }
    if !lan.guards.is_empty() {
        writeln!(
            f,
            "{:<44} {:<16} {:<16} {:>10} {:>8} {:>9}",
            "LAN INTERFACE", "NET", "DEVICE", "PORT", "LET IN", "DROPPED"
        )?;
    }
    for guard in &lan.guards {
        writeln!(
            f,
            "{:<44} {:<16} {:<16} {:>10} {:>8} {:>9}",
            guard.interface,
            guard.net,
            guard.device,
            format!("{}/{}", guard.protocol, guard.port),
            guard.allowed,
            guard.dropped
        )?;
    }
    if !lan.devices.is_empty() {
        writeln!(
            f,
            "{:<44} {:<12} {:>9} {:>9}  {:<44} LET IN AT",
            "VOUCHED FOR", "NET", "SEEN", "LEASE", "KNOWN BY"
        )?;
    }
    for device in &lan.devices {
        let seen = device.seen_secs.map_or_else(|| "-".to_owned(), length);
        let lease = device
            .lease_left_secs
            .map_or_else(|| "-".to_owned(), length);
        let allowed = match device.allowed.is_empty() {
            true => "-".to_owned(),
            false => device.allowed.join(", "),
        };
        writeln!(
            f,
            "{:<44} {:<12} {:>9} {:>9}  {:<44} {allowed}",
            device.id.to_string(),
            device.net,
            seen,
            lease,
            device.known_by,
        )?;
    }
    if !lan.rules.is_empty() {
        writeln!(
            f,
            "{:<44} {:>9} {:>10} {:>12} {:>9}",
            "RULE ON LAN", "", "PACKETS", "BYTES", "DENIED"
        )?;
    }
    for (rule, count) in &lan.rules {
        writeln!(
            f,
            "{rule:<44} {:>9} {:>10} {:>12} {:>9}",
            "",
            count.packets,
            bytes(count.bytes),
            count.denied
        )?;
    }
    Ok(())
}
