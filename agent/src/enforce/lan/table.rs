//! The table as text for `nft -f -`: made whole, or changed by what is new in a plan; one transaction each way.
//!
//! It only drops, so nobody's accept (on connection state or otherwise) gets past it; and inward it comes before
//! connection tracking (priority `raw`), so a connection that was open dies with its lease. Matched are TCP and UDP to a
//! guarded port of this machine's own addresses, before translation, and answers from it where they leave, after
//! translation. ICMP is never matched: errors about an allowed flow, path MTU among them, pass. What is routed through
//! this machine, and every other port, is not ours.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use edgeward_identity::BootTime;

use super::plan::{Lease, Plan, Shown, Spot};
use crate::enforce::{DeviceName, NetDevice, leases};

/// Most sources that the kernel counts apart, refused ones of each address family.
pub const MAX_REFUSED: usize = 1024;
/// Most sources that the kernel counts apart, of those that were let in, of each address family.
pub const MAX_PASSED: usize = 16_384;
/// Most addresses that a device known by its MAC alone was lately heard from, all devices together.
pub const MAX_HEARD: usize = 4096;
/// How long answers may go to an address after a device known by its MAC alone was heard from it, in seconds.
const HEARD_SECS: u64 = 60;
/// Longest timeout of an element, in seconds: ten years.
const MAX_TIMEOUT_SECS: u64 = 10 * 365 * 24 * 3600;
/// With this much left an element is surely there still.
const SURE: Duration = Duration::from_secs(5);
/// Elements in one line.
const CHUNK: usize = 256;

const SPOT: &str = "ifname . inet_proto . inet_service";
/// The packet's own spot, inward and outward.
const INWARD: &str = "iifname . meta l4proto . th dport";
const OUTWARD: &str = "oifname . meta l4proto . th sport";

/// Leases as the kernel holds them.
pub type Installed = BTreeMap<Lease, BootTime>;

/// The name of the table. Unlike any that [`leases::table`] makes.
pub fn name(tunnel: &DeviceName) -> String {
    format!("{}_lan", leases::table(tunnel))
}

/// Replaces the table by one that says what the plan says. Its counters begin anew.
pub fn make(table: &str, plan: &Plan, now: BootTime) -> (String, Installed) {
    let mut text =
        format!("table inet {table} {{}}\ndelete table inet {table}\ntable inet {table} {{\n");
    sets(&mut text);
    chains(&mut text);
    text.push_str("}\n");
    let mut elements = Elements::default();
    for spot in plan.guarded.keys() {
        guard(&mut elements, spot);
    }
    for (device, shown) in &plan.owned {
        own(&mut elements, device, shown);
    }
    let mut installed = Installed::new();
    for (lease, term) in &plan.leases {
        if grant(&mut elements, lease, term.until, now) {
            installed.insert(lease.clone(), term.until);
        }
    }
    elements.write(&mut text, "add", table);
    (text, installed)
}

/// What makes a table of `before`, in which `installed` is, one of `after`. `None`: nothing at all.
pub fn change(
    table: &str,
    (before, installed): (&Plan, &Installed),
    after: &Plan,
    now: BootTime,
) -> Option<(String, Installed)> {
    let (mut gone, mut probed, mut new) = (
        Elements::default(),
        Elements::default(),
        Elements::default(),
    );
    for spot in before.guarded.keys() {
        if !after.guarded.contains_key(spot) {
            guard(&mut gone, spot);
        }
    }
    for spot in after.guarded.keys() {
        if !before.guarded.contains_key(spot) {
            guard(&mut new, spot);
        }
    }
    for (device, shown) in before.owned.difference(&after.owned) {
        own(&mut gone, device, shown);
    }
    for (device, shown) in after.owned.difference(&before.owned) {
        own(&mut new, device, shown);
    }
    let mut kept = Installed::new();
    for (lease, until) in installed {
        match after.leases.get(lease) {
            Some(term) if !is_worth_it(*until, term.until, now) => {
                kept.insert(lease.clone(), *until);
            }
            // The kernel's clock stands still in suspend, so what runs by ours runs by its.
            _ if until.since(now) > SURE => put_lease(&mut gone, lease, None),
            // It may have ended by itself: to add what is there changes nothing, and then it can be deleted.
            _ => put_lease(&mut probed, lease, Some(1)),
        }
    }
    for (lease, term) in &after.leases {
        if !kept.contains_key(lease) && grant(&mut new, lease, term.until, now) {
            kept.insert(lease.clone(), term.until);
        }
    }
    let mut text = String::new();
    probed.write(&mut text, "add", table);
    probed.plain().write(&mut text, "delete", table);
    gone.write(&mut text, "delete", table);
    new.write(&mut text, "add", table);
    (!text.is_empty()).then_some((text, kept))
}

/// Empties the sets in which the kernel counts sources.
pub fn forget(table: &str, sets: &[&str]) -> String {
    let lines = sets.iter();
    lines
        .map(|set| format!("flush set inet {table} {set}\n"))
        .collect()
}

/// Whether a lease is to be written again: at once if it gets shorter; if longer, not for every little.
fn is_worth_it(has: BootTime, gets: BootTime, now: BootTime) -> bool {
    if gets < has {
        return true;
    }
    let more = gets.since(has);
    more > Duration::ZERO && more >= gets.since(now) / 4
}

/// Elements by their sets.
#[derive(Debug, Default)]
struct Elements(BTreeMap<&'static str, Vec<(String, Option<u64>)>>);

impl Elements {
    fn put(&mut self, set: &'static str, element: String, timeout: Option<u64>) {
        self.0.entry(set).or_default().push((element, timeout));
    }

    /// Without their timeouts, as they are deleted.
    fn plain(&self) -> Self {
        let sets = self.0.iter().map(|(set, elements)| {
            let plain = elements.iter().map(|(element, _)| (element.clone(), None));
            (*set, plain.collect())
        });
        Self(sets.collect())
    }

    fn write(&self, text: &mut String, verb: &str, table: &str) {
        for (set, elements) in &self.0 {
            for chunk in elements.chunks(CHUNK) {
                let _ = write!(text, "{verb} element inet {table} {set} {{ ");
                for (number, (element, timeout)) in chunk.iter().enumerate() {
                    let comma = if number == 0 { "" } else { ", " };
                    let _ = write!(text, "{comma}{element}");
                    if let Some(seconds) = timeout {
                        let _ = write!(text, " timeout {seconds}s");
                    }
                }
                text.push_str(" }\n");
            }
        }
    }
}

fn guard(elements: &mut Elements, spot: &Spot) {
    elements.put("guarded", spot_text(spot), None);
    elements.put("dropped", spot_text(spot), None);
}

fn own(elements: &mut Elements, device: &NetDevice, shown: &Shown) {
    match shown {
        Shown::Both(mac, ip) => {
            let set = by_family(ip, ["own4", "own6"]);
            elements.put(set, format!("\"{device}\" . {mac} . {ip}"), None);
        }
        Shown::Mac(mac) => elements.put("ownm", format!("\"{device}\" . {mac}"), None),
        // Nobody is known by less than an address.
        Shown::Ip(_) | Shown::Anyone => {}
    }
}

/// Whether there was a whole second to grant.
fn grant(elements: &mut Elements, lease: &Lease, until: BootTime, now: BootTime) -> bool {
    let seconds = until.since(now).as_secs().min(MAX_TIMEOUT_SECS);
    if seconds > 0 {
        put_lease(elements, lease, Some(seconds));
    }
    seconds > 0
}

fn put_lease(elements: &mut Elements, lease: &Lease, timeout: Option<u64>) {
    let spot = spot_text(&lease.at);
    match lease.shown {
        Shown::Both(mac, ip) => {
            let (inward, outward) = (
                by_family(&ip, ["in4", "in6"]),
                by_family(&ip, ["out4", "out6"]),
            );
            elements.put(inward, format!("{spot} . {mac} . {ip}"), timeout);
            elements.put(outward, format!("{spot} . {ip}"), timeout);
        }
        Shown::Mac(mac) => elements.put("inm", format!("{spot} . {mac}"), timeout),
        Shown::Anyone => elements.put("open", spot, timeout),
        Shown::Ip(ip) => {
            let set = by_family(&ip, ["free4", "free6"]);
            elements.put(set, format!("{spot} . {ip}"), timeout);
        }
    }
}

fn by_family(ip: &IpAddr, [v4, v6]: [&'static str; 2]) -> &'static str {
    match ip {
        IpAddr::V4(_) => v4,
        IpAddr::V6(_) => v6,
    }
}

fn spot_text(spot: &Spot) -> String {
    format!(
        "\"{}\" . {} . {}",
        spot.device,
        spot.proto.as_str(),
        spot.port
    )
}

fn sets(text: &mut String) {
    let mut set = |name: &str, kind: String, more: &str| {
        let _ = writeln!(text, "\tset {name} {{ type {kind}; {more} }}");
    };
    set("guarded", SPOT.to_owned(), "");
    set("dropped", SPOT.to_owned(), "counter;");
    set("open", SPOT.to_owned(), "flags timeout;");
    set("inm", format!("{SPOT} . ether_addr"), "flags timeout;");
    set("ownm", "ifname . ether_addr".to_owned(), "");
    for (family, address) in [("4", "ipv4_addr"), ("6", "ipv6_addr")] {
        let name = |set: &str| format!("{set}{family}");
        let counted = |size| format!("flags dynamic; size {size}; counter;");
        let seen = format!("{SPOT} . ether_addr . {address}");
        let by_ip = format!("{SPOT} . {address}");
        set(&name("in"), seen.clone(), "flags timeout;");
        set(&name("own"), format!("ifname . ether_addr . {address}"), "");
        set(&name("free"), by_ip.clone(), "flags timeout;");
        set(&name("out"), by_ip.clone(), "flags timeout;");
        let heard = format!("flags dynamic,timeout; size {MAX_HEARD}; timeout {HEARD_SECS}s;");
        set(&name("heard"), by_ip, &heard);
        set(&name("passed"), seen.clone(), &counted(MAX_PASSED));
        set(&name("refused"), seen, &counted(MAX_REFUSED));
    }
}

fn chains(text: &mut String) {
    let families = [("4", "ip"), ("6", "ip6")];
    for (family, ip) in families {
        let seen = format!("{INWARD} . ether saddr . {ip} saddr");
        let _ = write!(
            text,
            "\tchain pass{family} {{\n\t\tadd @passed{family} {{ {seen} }}\n\t}}\n\
             \tchain count{family} {{\n\t\tadd @refused{family} {{ {seen} }}\n\t}}\n"
        );
    }
    text.push_str(
        "\tchain pass {\n\
         \t\tmeta nfproto ipv4 goto pass4\n\
         \t\tgoto pass6\n\
         \t}\n\
         \tchain refuse {\n\
         \t\tmeta nfproto ipv4 jump count4\n\
         \t\tmeta nfproto ipv6 jump count6\n",
    );
    let _ = write!(text, "\t\t{INWARD} @dropped drop\n\t\tdrop\n\t}}\n");
    let _ = writeln!(text, "\tchain heard {{");
    for (family, ip) in families {
        let _ = writeln!(
            text,
            "\t\tupdate @heard{family} {{ {INWARD} . {ip} saddr }}"
        );
    }
    text.push_str("\t\tgoto pass\n\t}\n\tchain judge {\n");
    let _ = writeln!(text, "\t\t{INWARD} @open return");
    // Who fits several devices is the one that names most: both addresses, then the MAC, then the IP address.
    for (family, ip) in families {
        let _ = writeln!(
            text,
            "\t\t{INWARD} . ether saddr . {ip} saddr @in{family} goto pass"
        );
    }
    for (family, ip) in families {
        let _ = writeln!(
            text,
            "\t\tiifname . ether saddr . {ip} saddr @own{family} goto refuse"
        );
    }
    let _ = writeln!(text, "\t\t{INWARD} . ether saddr @inm goto heard");
    let _ = writeln!(text, "\t\tiifname . ether saddr @ownm goto refuse");
    for (family, ip) in families {
        let _ = writeln!(text, "\t\t{INWARD} . {ip} saddr @free{family} goto pass");
    }
    text.push_str("\t\tgoto refuse\n\t}\n\tchain answer {\n");
    let _ = writeln!(text, "\t\t{OUTWARD} @open return");
    for (family, ip) in families {
        for set in ["out", "free", "heard"] {
            let _ = writeln!(text, "\t\t{OUTWARD} . {ip} daddr @{set}{family} return");
        }
    }
    let _ = write!(
        text,
        "\t\tcounter drop\n\t}}\n\
         \tchain from_lan {{\n\
         \t\ttype filter hook prerouting priority raw; policy accept;\n\
         \t\tmeta l4proto {{ tcp, udp }} {INWARD} @guarded fib daddr type != unicast jump judge\n\
         \t}}\n\
         \tchain delivered {{\n\
         \t\ttype filter hook input priority raw; policy accept;\n\
         \t\tmeta l4proto {{ tcp, udp }} {INWARD} @guarded fib daddr type unicast jump judge\n\
         \t}}\n\
         \tchain to_lan {{\n\
         \t\ttype filter hook postrouting priority 300; policy accept;\n\
         \t\tmeta l4proto {{ tcp, udp }} {OUTWARD} @guarded fib saddr type local jump answer\n\
         \t}}\n"
    );
}

#[cfg(test)]
mod tests;
