//! The machine's rules and routes, by rtnetlink. Ours are known by their protocol and priorities, and by their tables.
//!
//! Routes come before rules and go after them; the rule that keeps the agent's own packets out comes first and goes
//! last. At no moment does a packet meet half of it.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Handle, IpVersion};

use super::plan::{
    Asked, Does, FIRST, Family, LAST, Route, Rule, Steering, TABLE_EXIT, TABLE_NETS, Via, Whose,
};
use crate::enforce::DeviceName;
use crate::outside::{MARK, MARK_BITS};

/// By this number the kernel tells whose rules and routes are ours.
const PROTOCOL: u8 = 237;
/// All that is asked of the kernel at once must be done within this time.
const DEADLINE: Duration = Duration::from_secs(10);
/// Most rules and routes of ours that are read back.
const MAX_READ: usize = 16_384;
/// The kernel has IPv6 where this file is.
const HAS_IPV6: &str = "/proc/net/if_inet6";
const LOOPBACK: &str = "lo";

/// The kernel did not do it. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("rtnetlink: {0}")]
    Open(#[source] std::io::Error),
    #[error("the kernel refuses {what}: {source}")]
    Refused {
        what: &'static str,
        #[source]
        source: rtnetlink::Error,
    },
    #[error("the kernel did not answer within the limit in seconds: {}", DEADLINE.as_secs())]
    Deadline,
    #[error("no such device: {0}")]
    NoDevice(DeviceName),
    #[error("more rules or routes of ours than the limit: {MAX_READ}")]
    TooMany,
}

/// What is there of ours.
#[derive(Debug, Default)]
struct Present {
    rules: Vec<(Option<Rule>, RuleMessage)>,
    routes: Vec<(Option<Route>, RouteMessage)>,
}

/// Makes rules and routes as they are to be. Whether something had to be changed.
pub(super) async fn keep(wanted: &Steering, tunnel: &DeviceName) -> Result<bool, Failed> {
    bounded(reconcile(wanted, tunnel)).await
}

async fn bounded<T>(work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    let done = tokio::time::timeout(DEADLINE, work).await;
    done.unwrap_or(Err(Failed::Deadline))
}

async fn reconcile(wanted: &Steering, tunnel: &DeviceName) -> Result<bool, Failed> {
    let (connection, handle, _) =
        rtnetlink::new_connection_with_strict_check().map_err(Failed::Open)?;
    // Ends with the last handle.
    let connection = tokio::spawn(connection);
    let families: &[Family] = match Path::new(HAS_IPV6).exists() {
        true => &[Family::V4, Family::V6],
        false => &[Family::V4],
    };
    let device = nix::net::if_::if_nametoindex(tunnel.as_str()).ok();
    let needs_device = wanted.routes.iter().any(|route| route.via == Via::Tunnel);
    if needs_device && device.is_none() {
        return Err(Failed::NoDevice(tunnel.clone()));
    }
    let changed = change(wanted, families, device, &handle).await;
    drop(handle);
    connection.abort();
    changed
}

async fn change(
    wanted: &Steering,
    families: &[Family],
    device: Option<u32>,
    handle: &Handle,
) -> Result<bool, Failed> {
    let present = read(families, device, handle).await?;
    let (rules, routes) = (
        wanted_in(&wanted.rules, families, |rule| rule.family),
        wanted_in(&wanted.routes, families, |route| Family::of(&route.to)),
    );
    let there: BTreeSet<Route> = present
        .routes
        .iter()
        .filter_map(|(route, _)| *route)
        .collect();
    let mut changed = false;
    for route in routes.difference(&there) {
        add_route(route, device, handle).await?;
        changed = true;
    }
    let there: BTreeSet<Rule> = present.rules.iter().filter_map(|(rule, _)| *rule).collect();
    let mut missing: Vec<&Rule> = rules.difference(&there).collect();
    missing.sort_unstable_by_key(|rule| order(rule));
    for rule in missing {
        add_rule(rule, handle).await?;
        changed = true;
    }
    let mut surplus: Vec<(Option<Rule>, RuleMessage)> = present.rules;
    surplus.retain(|(rule, _)| rule.is_none_or(|rule| !rules.contains(&rule)));
    surplus.sort_unstable_by_key(|(rule, _)| {
        std::cmp::Reverse(rule.map_or((3, 0), |rule| order(&rule)))
    });
    for (_, message) in surplus {
        let removed = handle.rule().del(message).execute().await;
        removed.map_err(refused("a rule to go"))?;
        changed = true;
    }
    for (route, message) in present.routes {
        if route.is_none_or(|route| !routes.contains(&route)) {
            let removed = handle.route().del(message).execute().await;
            removed.map_err(refused("a route to go"))?;
            changed = true;
        }
    }
    Ok(changed)
}

fn wanted_in<T: Copy + Ord>(
    all: &BTreeSet<T>,
    families: &[Family],
    family: impl Fn(&T) -> Family,
) -> BTreeSet<T> {
    let known = all.iter().filter(|one| families.contains(&family(one)));
    known.copied().collect()
}

/// What lets packets past ours comes before what takes them.
fn order(rule: &Rule) -> (u8, u32) {
    let step = match rule.does {
        Does::End => 0,
        Does::Leave => 1,
        Does::Ask {
            table: Asked::Main, ..
        } => 2,
        Does::Ask { .. } => 3,
    };
    (step, rule.priority)
}

async fn read(
    families: &[Family],
    device: Option<u32>,
    handle: &Handle,
) -> Result<Present, Failed> {
    let mut present = Present::default();
    for family in families {
        let version = match family {
            Family::V4 => IpVersion::V4,
            Family::V6 => IpVersion::V6,
        };
        let rules = handle.rule().get(version).execute();
        tokio::pin!(rules);
        while let Some(message) = rules.try_next().await.map_err(refused("to list rules"))? {
            if is_ours(&message) {
                present.rules.push((rule_of(*family, &message), message));
            }
            bound(present.rules.len())?;
        }
        let mut filter = RouteMessage::default();
        filter.header.address_family = address_family(*family);
        filter.header.protocol = RouteProtocol::Other(PROTOCOL);
        let routes = handle.route().get(filter).execute();
        tokio::pin!(routes);
        while let Some(message) = routes.try_next().await.map_err(refused("to list routes"))? {
            let table = table_of(&message);
            let ours = message.header.protocol == RouteProtocol::Other(PROTOCOL)
                && (table == TABLE_EXIT || table == TABLE_NETS);
            if ours {
                present.routes.push((route_of(&message, device), message));
            }
            bound(present.routes.len())?;
        }
    }
    Ok(present)
}

fn bound(count: usize) -> Result<(), Failed> {
    match count <= MAX_READ {
        true => Ok(()),
        false => Err(Failed::TooMany),
    }
}

fn refused(what: &'static str) -> impl Fn(rtnetlink::Error) -> Failed {
    move |source| Failed::Refused { what, source }
}

async fn add_rule(rule: &Rule, handle: &Handle) -> Result<(), Failed> {
    let mut adding = handle.rule().add();
    *adding.message_mut() = message_of(rule);
    adding.execute().await.map_err(refused("a rule"))
}

fn message_of(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = address_family(rule.family);
    message.attributes = vec![
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
    ];
    let own = RuleAttribute::Iifname(LOOPBACK.to_owned());
    let attributes = &mut message.attributes;
    match rule.whose {
        Whose::Anybody => {}
        Whose::Agent => attributes.extend([
            RuleAttribute::FwMark(MARK),
            RuleAttribute::FwMask(MARK_BITS),
        ]),
        Whose::Own => attributes.push(own),
        Whose::From(net) | Whose::OwnFrom(net) => {
            if matches!(rule.whose, Whose::OwnFrom(_)) {
                attributes.push(own);
            }
            attributes.push(RuleAttribute::Source(net.addr()));
            message.header.src_len = net.prefix_len();
        }
    }
    match rule.does {
        Does::Leave => {
            message.header.action = RuleAction::Goto;
            attributes.push(RuleAttribute::Goto(LAST));
        }
        Does::End => message.header.action = RuleAction::Nop,
        Does::Ask { table, more_than } => {
            message.header.action = RuleAction::ToTable;
            attributes.push(RuleAttribute::Table(number_of(table)));
            if let Some(bits) = more_than {
                attributes.push(RuleAttribute::SuppressPrefixLen(bits.into()));
            }
        }
    }
    message
}

fn number_of(table: Asked) -> u32 {
    match table {
        Asked::Main => RouteHeader::RT_TABLE_MAIN.into(),
        Asked::Nets => TABLE_NETS,
        Asked::Exit => TABLE_EXIT,
    }
}

fn is_ours(message: &RuleMessage) -> bool {
    let protocol = RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL));
    let attributes = &message.attributes;
    attributes.contains(&protocol)
        && attributes
            .iter()
            .any(|one| matches!(one, RuleAttribute::Priority(at) if (FIRST..=LAST).contains(at)))
}

/// A rule of ours as the kernel tells it; none: not one that this agent would make.
fn rule_of(family: Family, message: &RuleMessage) -> Option<Rule> {
    let (mut priority, mut source, mut own, mut marked) = (None, None, false, [None; 2]);
    let (mut table, mut more_than, mut leaves) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(at) => priority = Some(*at),
            RuleAttribute::Source(address) => source = Some(*address),
            RuleAttribute::Iifname(name) => own = name == LOOPBACK,
            RuleAttribute::FwMark(mark) => marked[0] = Some(*mark),
            RuleAttribute::FwMask(bits) => marked[1] = Some(*bits),
            RuleAttribute::Table(number) => table = Some(*number),
            RuleAttribute::SuppressPrefixLen(bits) if *bits != u32::MAX => more_than = Some(*bits),
            RuleAttribute::Goto(to) => leaves = *to == LAST,
            _ => {}
        }
    }
    let source = match source {
        Some(address) => Some(IpNet::new(address, message.header.src_len).ok()?),
        // The kernel does not tell an address of zeroes.
        None if message.header.src_len > 0 => Some(nobody(family, message.header.src_len)?),
        None => None,
    };
    let whose = match (marked, source, own) {
        ([Some(MARK), Some(MARK_BITS)], None, false) => Whose::Agent,
        ([None | Some(0), None | Some(0)], Some(net), false) => Whose::From(net),
        ([None | Some(0), None | Some(0)], Some(net), true) => Whose::OwnFrom(net),
        ([None | Some(0), None | Some(0)], None, true) => Whose::Own,
        ([None | Some(0), None | Some(0)], None, false) => Whose::Anybody,
        _ => return None,
    };
    let does = match message.header.action {
        RuleAction::Goto if leaves => Does::Leave,
        RuleAction::Nop => Does::End,
        RuleAction::ToTable => Does::Ask {
            table: match table? {
                number if number == number_of(Asked::Main) => Asked::Main,
                TABLE_NETS => Asked::Nets,
                TABLE_EXIT => Asked::Exit,
                _ => return None,
            },
            more_than: more_than.map(u8::try_from).transpose().ok()?,
        },
        _ => return None,
    };
    Some(Rule {
        family,
        priority: priority?,
        whose,
        does,
    })
}

fn nobody(family: Family, bits: u8) -> Option<IpNet> {
    let address: IpAddr = match family {
        Family::V4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    IpNet::new(address, bits).ok()
}

async fn add_route(route: &Route, device: Option<u32>, handle: &Handle) -> Result<(), Failed> {
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(Family::of(&route.to));
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    message.header.destination_prefix_length = route.to.prefix_len();
    message.attributes = vec![
        RouteAttribute::Table(route.table),
        RouteAttribute::Destination(route.to.addr().into()),
        RouteAttribute::Priority(route.metric()),
    ];
    message.header.kind = match route.via {
        Via::Tunnel => {
            message.header.scope = RouteScope::Link;
            let device = device.map(RouteAttribute::Oif);
            message.attributes.extend(device);
            RouteType::Unicast
        }
        Via::Throw => RouteType::Throw,
        Via::Nowhere => RouteType::Unreachable,
    };
    if Family::of(&route.to) == Family::V6 {
        message.header.scope = RouteScope::Universe;
    }
    // A message with a destination and without the flag to dump: added, or as it was.
    let adding = handle.route().add(message).replace();
    adding.execute().await.map_err(refused("a route"))
}

fn table_of(message: &RouteMessage) -> u32 {
    let told = message.attributes.iter().find_map(|one| match one {
        RouteAttribute::Table(number) => Some(*number),
        _ => None,
    });
    told.unwrap_or_else(|| message.header.table.into())
}

/// A route of ours as the kernel tells it; none: not one that this agent would make.
fn route_of(message: &RouteMessage, device: Option<u32>) -> Option<Route> {
    let family = match message.header.address_family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return None,
    };
    let bits = message.header.destination_prefix_length;
    let (mut to, mut out, mut metric) = (nobody(family, bits)?, None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => {
                to = IpNet::new((*v4).into(), bits).ok()?;
            }
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => {
                to = IpNet::new((*v6).into(), bits).ok()?;
            }
            RouteAttribute::Oif(index) => out = Some(*index),
            RouteAttribute::Priority(number) => metric = *number,
            RouteAttribute::Gateway(_) | RouteAttribute::MultiPath(_) => return None,
            _ => {}
        }
    }
    let via = match message.header.kind {
        RouteType::Unicast if out.is_some() && out == device => Via::Tunnel,
        RouteType::Throw => Via::Throw,
        RouteType::Unreachable => Via::Nowhere,
        _ => return None,
    };
    let table = table_of(message);
    let route = Route { table, to, via };
    (route.metric() == metric).then_some(route)
}

fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enforce::steer::Leaving;
    use crate::view::Overlay;

    fn all() -> Steering {
        let nets = ["10.7.0.0/16", "fd01::/64"].map(|net| net.parse().unwrap());
        let overlay = Overlay {
            v6: "fd00::7".parse().unwrap(),
            v4: Some("100.64.0.7".parse().unwrap()),
        };
        let leaving = Leaving::Tunnel { or_nothing: true };
        Steering::new(&BTreeSet::from(nets), leaving, overlay)
    }

    #[test]
    fn a_rule_that_somebody_changed_is_not_taken_for_ours() {
        let rules = all().rules;
        for rule in rules {
            let message = message_of(&rule);
            assert!(is_ours(&message));
            assert_eq!(rule_of(rule.family, &message), Some(rule));
            let mut other = message.clone();
            other.header.action = RuleAction::Blackhole;
            assert_eq!(rule_of(rule.family, &other), None);
            let mut marked = message;
            marked.attributes.push(RuleAttribute::FwMark(MARK + 1));
            assert_ne!(rule_of(rule.family, &marked), Some(rule));
            marked
                .attributes
                .retain(|one| !matches!(one, RuleAttribute::Protocol(_)));
            assert!(!is_ours(&marked));
        }
    }

    #[test]
    fn the_agents_own_packets_are_let_past_before_any_is_taken() {
        let mut rules: Vec<Rule> = all().rules.into_iter().collect();
        rules.sort_unstable_by_key(order);
        let place = |wanted: fn(&Rule) -> bool| rules.iter().position(wanted).unwrap();
        let last_leave = rules
            .iter()
            .rposition(|rule| rule.does == Does::Leave)
            .unwrap();
        let first_taken = place(|rule| {
            matches!(
                rule.does,
                Does::Ask {
                    table: Asked::Nets | Asked::Exit,
                    ..
                }
            )
        });
        assert!(place(|rule| rule.does == Does::End) < last_leave && last_leave < first_taken);
    }
}
