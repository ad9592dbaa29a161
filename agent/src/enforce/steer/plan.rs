//! Rules and routes as they are to be: a pure function of the networks behind peers and of how the internet is left to.
//!
//! Two tables of our own. In one are networks behind peers; rules ask it and the machine's main table for prefixes of
//! the same length in turn, the longest first, so that both together answer as one table would, the machine's own
//! routes before ours. In the other is the internet, asked for what the main table knows by its default route only.
//!
//! Rules for the internet name the source: a socket that has none yet, or the overlay's. Whatever has another address
//! of this machine (answers to those who called from outside, what is forwarded for others) could not pass the exit.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;

use crate::enforce::routes::table::elsewhere;
use crate::view::Overlay;

/// The tables, by number.
pub const TABLE_EXIT: u32 = 8429;
pub const TABLE_NETS: u32 = 8430;
/// The first and the last of our rules, by priority: after `local`, before `main`.
pub const FIRST: u32 = 23_000;
pub const LAST: u32 = 23_999;
/// Of networks of 128 bits; each bit less comes two later.
const FIRST_NETS: u32 = 23_100;
const FROM_INTERNET: u32 = 23_400;
const MAIN_BUT_DEFAULT: u32 = 23_401;
const INTO_EXIT: u32 = 23_402;
/// Metrics of routes: the tunnel's before the one that refuses, which stays when the device is gone.
pub const METRIC_TUNNEL: u32 = 100;
pub const METRIC_ELSE: u32 = 4096;
/// Longest prefix of all, in bits.
const MOST_BITS: u8 = 128;

/// How the exit that the operator named is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitUse {
    /// The internet is reached through it, or not at all.
    #[default]
    Only,
    /// The internet is reached without it while it is not bound.
    Prefer,
    /// It is sent what the operator routes into the tunnel.
    ByRoute,
}

/// How the internet is left to at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leaving {
    /// As the machine routes it.
    #[default]
    Own,
    Tunnel {
        /// Refuse when the tunnel's device is gone.
        or_nothing: bool,
    },
    Nowhere,
}

impl Leaving {
    pub fn new(used: ExitUse, is_bound: bool) -> Self {
        match (used, is_bound) {
            (ExitUse::ByRoute, _) | (ExitUse::Prefer, false) => Self::Own,
            (ExitUse::Only, false) => Self::Nowhere,
            (ExitUse::Only, true) => Self::Tunnel { or_nothing: true },
            (ExitUse::Prefer, true) => Self::Tunnel { or_nothing: false },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

/// Whom a rule concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    Anybody,
    /// The agent's own sockets, by their mark.
    Agent,
    From(IpNet),
    /// What this machine sends itself, from this address.
    OwnFrom(IpNet),
    /// What this machine sends itself.
    Own,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Does {
    /// None of the other rules counts: on to the machine's own.
    Leave,
    /// Asks a table; an answer with at most so many bits counts for none.
    Ask { table: Asked, more_than: Option<u8> },
    /// Nothing: the end of ours.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    Main,
    Nets,
    Exit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    pub family: Family,
    pub priority: u32,
    pub whose: Whose,
    pub does: Does,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    Tunnel,
    /// The next rule has it.
    Throw,
    Nowhere,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub table: u32,
    pub to: IpNet,
    pub via: Via,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    pub rules: BTreeSet<Rule>,
    pub routes: BTreeSet<Route>,
}

impl Family {
    pub fn of(net: &IpNet) -> Self {
        match net {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }
}

impl Route {
    pub fn metric(&self) -> u32 {
        match self.via {
            Via::Tunnel => METRIC_TUNNEL,
            Via::Throw | Via::Nowhere => METRIC_ELSE,
        }
    }
}

impl Steering {
    pub fn new(nets: &BTreeSet<IpNet>, leaving: Leaving, overlay: Overlay) -> Self {
        let mut steering = Self::default();
        for family in [Family::V4, Family::V6] {
            steering.nets(family, nets);
            steering.internet(family, leaving, overlay);
            if steering.rules.iter().any(|rule| rule.family == family) {
                steering.rule(family, FIRST, Whose::Agent, Does::Leave);
                steering.rule(family, LAST, Whose::Anybody, Does::End);
            }
        }
        steering
    }

    fn nets(&mut self, family: Family, nets: &BTreeSet<IpNet>) {
        for net in nets.iter().filter(|net| Family::of(net) == family) {
            let bits = net.prefix_len();
            let Some(shorter) = bits.checked_sub(1) else {
                // Everything is no network: that is what an exit is for.
                continue;
            };
            let priority = FIRST_NETS + 2 * u32::from(MOST_BITS - bits);
            for (table, priority) in [(Asked::Main, priority), (Asked::Nets, priority + 1)] {
                let more_than = Some(shorter);
                let ask = Does::Ask { table, more_than };
                self.rule(family, priority, Whose::Anybody, ask);
            }
            self.route(TABLE_NETS, *net, Via::Tunnel);
        }
    }

    fn internet(&mut self, family: Family, leaving: Leaving, overlay: Overlay) {
        if leaving == Leaving::Own {
            return;
        }
        let all = match family {
            Family::V4 => IpNet::V4(Ipv4Net::default()),
            Family::V6 => IpNet::V6(Ipv6Net::default()),
        };
        for net in elsewhere().filter(|net| Family::of(net) == family) {
            self.route(TABLE_EXIT, net, Via::Throw);
        }
        let has_address = family == Family::V6 || overlay.v4.is_some();
        if matches!(leaving, Leaving::Tunnel { .. }) && has_address {
            self.route(TABLE_EXIT, all, Via::Tunnel);
        }
        if leaving != (Leaving::Tunnel { or_nothing: false }) {
            self.route(TABLE_EXIT, all, Via::Nowhere);
        }
        let main = Does::Ask {
            table: Asked::Main,
            more_than: Some(0),
        };
        let exit = Does::Ask {
            table: Asked::Exit,
            more_than: None,
        };
        self.rule(family, MAIN_BUT_DEFAULT, Whose::Anybody, main);
        match family {
            Family::V4 => {
                let unspecified = host(Ipv4Addr::UNSPECIFIED.into());
                let own = overlay.v4.map(|v4| host(v4.into()));
                for from in std::iter::once(unspecified).chain(own) {
                    self.rule(family, INTO_EXIT, Whose::OwnFrom(from), exit);
                }
            }
            // To no source yet, no rule with a source applies.
            Family::V6 => {
                let from = Whose::From(global());
                self.rule(family, FROM_INTERNET, from, Does::Leave);
                self.rule(family, INTO_EXIT, Whose::Own, exit);
            }
        }
    }

    fn rule(&mut self, family: Family, priority: u32, whose: Whose, does: Does) {
        self.rules.insert(Rule {
            family,
            priority,
            whose,
            does,
        });
    }

    fn route(&mut self, table: u32, to: IpNet, via: Via) {
        self.routes.insert(Route { table, to, via });
    }
}

fn host(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

/// Addresses with which somebody is reached on the internet of IPv6.
fn global() -> IpNet {
    let first = Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0);
    IpNet::V6(Ipv6Net::new_assert(first, 3))
}

#[cfg(test)]
mod tests;
