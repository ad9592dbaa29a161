//! Under which addresses peers may find this node's UDP port, best first. Pure.

use std::net::{IpAddr, SocketAddr};

use edgeward_wire::limits::MAX_ENDPOINTS;

/// What is known of this node's addresses.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub port: u16,
    /// Of this machine's interfaces.
    pub local: Vec<IpAddr>,
    /// The one of them that reaches the cloud.
    pub towards_cloud: Option<IpAddr>,
    /// What the cloud's STUN says.
    pub reflexive: Option<SocketAddr>,
    /// What bound peers see, newest first.
    pub observed: Vec<SocketAddr>,
    /// Where the session comes from, as the cloud sees it.
    pub session: Option<IpAddr>,
}

impl Known {
    /// All of them, each once, at most [`MAX_ENDPOINTS`].
    pub fn candidates(&self) -> Vec<SocketAddr> {
        let at = |ip: IpAddr| SocketAddr::new(ip.to_canonical(), self.port);
        let (public, private): (Vec<IpAddr>, Vec<IpAddr>) =
            self.local.iter().copied().partition(|ip| is_public(*ip));
        let link_local_only = self.local.iter().all(|ip| is_link_local(*ip));
        let all = self
            .towards_cloud
            .map(at)
            .into_iter()
            .chain(public.into_iter().map(at))
            .chain(self.reflexive)
            .chain(self.observed.iter().copied())
            .chain(
                private
                    .into_iter()
                    .filter(|ip| link_local_only || !is_link_local(*ip))
                    .map(at),
            )
            // A router that keeps ports: a guess, so it comes last.
            .chain(self.session.map(at));
        let mut found: Vec<SocketAddr> = Vec::new();
        for address in all {
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            if may_be_sent_to(address) && !found.contains(&address) {
                found.push(address);
            }
            if found.len() == MAX_ENDPOINTS {
                break;
            }
        }
        found
    }

    /// Whether something between here and the cloud translates addresses; `None`: not known yet.
    pub fn is_translated(&self) -> Option<bool> {
        let reflexive = self.reflexive?;
        let own = self
            .local
            .iter()
            .any(|ip| ip.to_canonical() == reflexive.ip());
        Some(!(own && reflexive.port() == self.port))
    }
}

/// Addresses that somebody else names: none that leads to this machine, to everybody or to nobody.
pub fn may_be_sent_to(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast() || ip.octets()[0] == 0);
    address.port() != 0
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && !ip.is_loopback()
        && !broadcast
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            // 100.64.0.0/10 is what carriers translate (RFC 6598).
            let shared = a == 100 && (64..128).contains(&b);
            !ip.is_private() && !ip.is_link_local() && !shared
        }
        IpAddr::V6(ip) => !ip.is_unique_local() && !ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;
