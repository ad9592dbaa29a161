//! Sites behind a router that translates addresses, as homes, plants and phone networks have them.

use std::net::Ipv4Addr;

use crate::netns::{Host, Network, Socket, bridge, ip, nft};
use crate::process::run;

/// How a router translates and what it lets in (RFC 4787's words).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// Endpoint-independent mapping and filtering: whoever knows the mapping gets in while it lasts.
    FullCone,
    /// Endpoint-independent mapping, filtering by address and port: only whom the inside has sent to gets in.
    PortRestricted,
    /// A random port for every destination, filtering by address and port.
    Symmetric,
    /// Nothing but TCP to these ports of the outside passes.
    TcpOnly(&'static [u16]),
}

/// A router with `eth0` on the network and a switch of its own inside, `10.NUMBER.0.0/24`.
#[derive(Debug)]
pub struct Site {
    name: String,
    nat: Nat,
    router: Host,
    number: u8,
    hosts: u8,
    moves: u16,
}

/// What the routers' outer ports are called when a mapping is moved.
const FIRST_MOVED_PORT: u16 = 40_000;
/// How long a mapping lasts without a packet unless a test says otherwise, in seconds (RFC 4787, REQ-5).
const MAPPING_SECONDS: u32 = 120;

impl Network {
    /// Adds a site; `number` becomes the last octet of its router's address and the second one inside.
    pub fn site(&mut self, name: &str, number: u8, nat: Nat) -> anyhow::Result<Site> {
        let router = self.host(name, number)?;
        bridge(router.namespace(), "lan0")?;
        let inside = format!("10.{number}.0.1/24");
        let namespace = router.namespace();
        ip(&["-n", namespace, "addr", "add", &inside, "dev", "lan0"])?;
        run(router
            .command("sysctl")
            .args(["-q", "-w", "net.ipv4.ip_forward=1"]))?;
        let site = Site {
            name: name.to_owned(),
            nat,
            router,
            number,
            hosts: 1,
            moves: 0,
        };
        site.mapping_lasts(MAPPING_SECONDS)?;
        Ok(site)
    }

    /// Adds a host inside of a site, with the router as its way out. It has no IPv6.
    pub fn host_at(&mut self, site: &mut Site, name: &str) -> anyhow::Result<Host> {
        site.hosts += 1;
        let address = Ipv4Addr::new(10, site.number, 0, site.hosts);
        let socket = Socket::new(site.router.namespace(), &format!("l{}", site.hosts));
        let host = self.unplugged(name, address, socket)?;
        host.plug("lan0")?;
        let (namespace, gateway) = (host.namespace(), format!("10.{}.0.1", site.number));
        let inside = format!("{address}/24");
        ip(&["-n", namespace, "addr", "add", &inside, "dev", "eth0"])?;
        ip(&["-n", namespace, "link", "set", "eth0", "up"])?;
        ip(&["-n", namespace, "route", "add", "default", "via", &gateway])?;
        Ok(host)
    }
}

impl Site {
    /// How the outside sees everybody inside.
    pub fn public(&self) -> String {
        self.router.ipv4()
    }

    /// To cut its cable or to lose packets on it.
    pub fn router(&self) -> &Host {
        &self.router
    }

    /// From now on a mapping is forgotten after this long without a packet. Mappings that are there are
    /// forgotten at once, as at a router's restart.
    pub fn mapping_lasts(&self, seconds: u32) -> anyhow::Result<()> {
        for name in [
            "nf_conntrack_udp_timeout",
            "nf_conntrack_udp_timeout_stream",
        ] {
            run(self.router.command("sysctl").args([
                "-q",
                "-w",
                &format!("net.netfilter.{name}={seconds}"),
            ]))?;
        }
        nft(self.router.namespace(), &self.rules(seconds))?;
        self.forget()
    }

    /// The router forgets every UDP mapping. A cone makes the same ones again, a symmetric NAT others.
    pub fn forget(&self) -> anyhow::Result<()> {
        let mut command = self.router.command("conntrack");
        // Fails when there is nothing to delete.
        let _none_there = crate::process::output(command.args(["-D", "-p", "udp"]))?;
        if self.nat == Nat::FullCone {
            nft(self.router.namespace(), "flush map ip site owners\n")?;
        }
        Ok(())
    }

    /// Gives a host's UDP port another port outside, as routers do when they restart; what was mapped is
    /// forgotten. Returns the new one.
    pub fn rebind(&mut self, host: &Host, port: u16) -> anyhow::Result<u16> {
        let moved = FIRST_MOVED_PORT + self.moves;
        self.moves += 1;
        let (inside, outside) = (host.ipv4(), self.public());
        // An element that is there cannot be replaced, only deleted; adding it first makes the deletion valid.
        let mut text =
            format!("add element ip site moved {{ {inside} . {port} : {outside} . {moved} }}\n");
        if self.moves > 1 {
            text = format!("delete element ip site moved {{ {inside} . {port} }}\n{text}");
        }
        text += &format!("add element ip site moved_back {{ {moved} : {inside} . {port} }}\n");
        nft(self.router.namespace(), &text)?;
        self.forget()?;
        Ok(moved)
    }

    /// What the router has mapped, as `conntrack -L` prints it.
    pub fn mappings(&self) -> anyhow::Result<String> {
        run(self.router.command("conntrack").args(["-L", "-p", "udp"]))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    fn rules(&self, seconds: u32) -> String {
        let (outwards, inwards, port) = match self.nat {
            Nat::FullCone => (
                format!(
                    "meta l4proto udp update @owners {{ udp sport timeout {seconds}s : ip saddr }}; accept"
                ),
                "meta l4proto udp dnat ip to udp dport map @moved_back; \
                 meta l4proto udp dnat to udp dport map @owners",
                "",
            ),
            Nat::PortRestricted => ("accept".to_owned(), "", ""),
            Nat::Symmetric => ("accept".to_owned(), "", "random,fully-random"),
            Nat::TcpOnly(ports) => (
                format!("tcp dport {{ {} }} accept; drop", list(ports)),
                "",
                "",
            ),
        };
        let outwards = outwards
            .split("; ")
            .map(|rule| format!("iifname \"lan0\" {rule};"))
            .collect::<String>();
        let inwards = inwards
            .split("; ")
            .filter(|rule| !rule.is_empty())
            .map(|rule| format!("iifname \"eth0\" {}; ", rule.trim()))
            .collect::<String>();
        // A packet from outside that belongs to nobody must leave no trace: it would take the port from the
        // inside's own packet, and no hole could be punched.
        format!(
            "table ip site\ndelete table ip site\n\
             table ip site {{\n\
             map owners {{ type inet_service : ipv4_addr; flags dynamic,timeout; timeout {seconds}s; }}\n\
             map moved {{ type ipv4_addr . inet_service : ipv4_addr . inet_service; }}\n\
             map moved_back {{ type inet_service : ipv4_addr . inet_service; }}\n\
             chain arriving {{ type filter hook input priority filter;\n\
             iifname \"eth0\" ct state established,related accept; iifname \"eth0\" meta l4proto icmp accept; iifname \"eth0\" drop; }}\n\
             chain passing {{ type filter hook forward priority filter; policy drop;\n\
             {outwards}\n\
             ct state established,related accept; iifname \"eth0\" ct status dnat accept; }}\n\
             chain before {{ type nat hook prerouting priority dstnat; {inwards} }}\n\
             chain after {{ type nat hook postrouting priority srcnat;\n\
             oifname \"eth0\" meta l4proto udp snat ip to ip saddr . udp sport map @moved;\n\
             oifname \"eth0\" masquerade {port}; }}\n}}\n"
        )
    }
}

fn list(ports: &[u16]) -> String {
    let texts: Vec<String> = ports.iter().map(u16::to_string).collect();
    texts.join(", ")
}
