//! The table as text for `nft -f -`: made whole, in one transaction. Pure.
//!
//! It only drops: an accept here ends this table's say and nobody else's, so that leases and other rules still hold.
//! Matched is the control group that a socket was made in, so a program must be in its group before it makes one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use edgeward_apps::name::AppName;
use edgeward_policy::slice::Beyond;
use edgeward_policy::{Proto, Slice};
use ipnet::IpNet;

use crate::apps::hierarchy::Place;
use crate::enforce::DeviceName;

/// Most places that one application may reach; further ones are left out.
pub const MAX_GOALS: usize = 1_024;

/// One place that an application may reach, through the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Goal {
    pub net: IpNet,
    pub proto: Proto,
    pub port: u16,
}

/// An application that may have sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    pub group: Place,
    pub goals: BTreeSet<Goal>,
}

/// What holds for all of them.
#[derive(Clone, Debug)]
pub struct Ground<'a> {
    pub table: &'a str,
    pub tunnel: &'a DeviceName,
    /// The group of all applications.
    pub parent: &'a Place,
    /// Where names are answered on this machine.
    pub names: Option<SocketAddr>,
    /// Ports of this node that others may come to: answers leave from there.
    pub serves: BTreeSet<(Proto, u16)>,
}

/// Of what this node may reach the part that its policy gives to an application: none where it gives nothing.
pub fn goals(slice: &Slice, app: &AppName) -> BTreeSet<Goal> {
    let mut goals = BTreeSet::new();
    let Some(reach) = slice.apps.reach.get(app) else {
        return goals;
    };
    for egress in &slice.egress {
        let name = format!("{}/{}", egress.service, egress.interface);
        // What is for devices of this node is not for itself.
        if !reach.contains(&name) || !egress.devices.is_empty() {
            continue;
        }
        let nets: Vec<IpNet> = match egress.beyond {
            Some(Beyond::Net(net)) => vec![net],
            // Who may reach the whole internet could reach everybody: not one application's goal.
            Some(Beyond::Internet) => Vec::new(),
            None => {
                let peer = slice.peers.get(egress.peer.0 as usize);
                let addresses = peer.map(|peer| {
                    let v4 = peer.v4.map(IpAddr::V4);
                    std::iter::once(IpAddr::V6(peer.v6)).chain(v4)
                });
                addresses.into_iter().flatten().map(IpNet::from).collect()
            }
        };
        let (proto, port) = (egress.proto, egress.port);
        goals.extend(nets.into_iter().map(|net| Goal { net, proto, port }));
    }
    while goals.len() > MAX_GOALS {
        goals.pop_last();
    }
    goals
}

/// Ports at which this node itself answers.
pub fn serves(slice: &Slice) -> BTreeSet<(Proto, u16)> {
    let own = slice.interfaces.iter().filter(|own| own.beyond.is_none());
    own.map(|own| (own.proto, own.to.map_or(own.port, |to| to.port())))
        .collect()
}

/// Puts these ways in the place of all there were.
pub fn make(ground: &Ground<'_>, ways: &BTreeMap<AppName, Way>) -> String {
    let Ground {
        table,
        tunnel,
        parent,
        ..
    } = ground;
    let mut text =
        format!("table inet {table} {{}}\ndelete table inet {table}\ntable inet {table} {{\n");
    common(&mut text, ground);
    for (number, way) in ways.values().enumerate() {
        let _ = writeln!(text, "\tchain app{number} {{");
        for goal in &way.goals {
            let family = match goal.net {
                IpNet::V4(_) => "ip",
                IpNet::V6(_) => "ip6",
            };
            let (net, proto, port) = (goal.net, goal.proto.as_str(), goal.port);
            let _ = writeln!(
                text,
                "\t\toifname \"{tunnel}\" {family} daddr {net} {proto} dport {port} accept"
            );
        }
        let names = match way.goals.is_empty() {
            true => "answers",
            false => "named",
        };
        let _ = writeln!(text, "\t\tgoto {names}\n\t}}");
    }
    // The chain comes last: what it leads to must be there.
    text.push_str("\tchain judge {\n");
    if !ways.is_empty() {
        let level = parent.level + 1;
        let _ = write!(text, "\t\tsocket cgroupv2 level {level} vmap {{");
        for (number, way) in ways.values().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            let _ = write!(text, "{comma} \"{}\" : goto app{number}", way.group.shown);
        }
        text.push_str(" }\n");
    }
    let _ = write!(
        text,
        "\t\tcounter drop\n\t}}\n\
         \tchain out {{\n\
         \t\ttype filter hook output priority filter; policy accept;\n\
         \t\tsocket cgroupv2 level {} \"{}\" goto judge\n\
         \t}}\n}}\n",
        parent.level, parent.shown
    );
    text
}

/// Answers to whom this machine's other guards let in, and names for those who may reach something.
fn common(text: &mut String, ground: &Ground<'_>) {
    text.push_str("\tset serves { type inet_proto . inet_service;");
    if !ground.serves.is_empty() {
        text.push_str(" elements = {");
        for (number, (proto, port)) in ground.serves.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            let _ = write!(text, "{comma} {} . {port}", proto.as_str());
        }
        text.push_str(" }");
    }
    text.push_str(
        " }\n\tchain answers {\n\
         \t\toifname \"lo\" ct direction reply accept\n\
         \t\tct direction reply meta l4proto . th sport @serves accept\n\
         \t\tcounter drop\n\t}\n\tchain named {\n",
    );
    if let Some(names) = ground.names {
        let family = if names.is_ipv4() { "ip" } else { "ip6" };
        let _ = writeln!(
            text,
            "\t\toifname \"lo\" {family} daddr {} meta l4proto {{ tcp, udp }} th dport {} accept",
            names.ip(),
            names.port()
        );
    }
    text.push_str("\t\tgoto answers\n\t}\n");
}

#[cfg(test)]
mod tests;
