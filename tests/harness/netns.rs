//! Network namespaces joined by one switch: several hosts on one machine.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process::run;

static LABS: AtomicU32 = AtomicU32::new(0);

/// A switch with hosts on `192.0.2.0/24` (RFC 5737) and `2001:db8::/64` (RFC 3849).
#[derive(Debug)]
pub struct Network {
    prefix: String,
    hosts: Vec<Host>,
}

/// One namespace with `eth0` on the switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    namespace: String,
    number: u8,
}

impl Network {
    pub fn new() -> anyhow::Result<Self> {
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let network = Self {
            prefix: format!("ew{}-{number}", std::process::id()),
            hosts: Vec::new(),
        };
        let switch = network.switch();
        ip(&["netns", "add", &switch])?;
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "br0", "up"])?;
        Ok(network)
    }

    /// Adds a host; `number` becomes the last octet of its address.
    pub fn host(&mut self, name: &str, number: u8) -> anyhow::Result<Host> {
        let host = Host {
            namespace: format!("{}-{name}", self.prefix),
            number,
        };
        let (switch, port) = (self.switch(), format!("p{number}"));
        ip(&["netns", "add", &host.namespace])?;
        self.hosts.push(host.clone());
        let namespace = host.namespace.as_str();
        ip(&[
            "link", "add", "eth0", "netns", namespace, "type", "veth", "peer", "name", &port,
            "netns", &switch,
        ])?;
        ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"])?;
        ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        ip(&[
            "-n",
            namespace,
            "addr",
            "add",
            &format!("{}/24", host.ipv4()),
            "dev",
            "eth0",
        ])?;
        let ipv6 = format!("2001:db8::{number}/64");
        ip(&[
            "-n", namespace, "addr", "add", &ipv6, "dev", "eth0", "nodad",
        ])?;
        ip(&["-n", namespace, "link", "set", "eth0", "up"])?;
        Ok(host)
    }

    /// Takes a host's cable out or puts it back.
    pub fn link(&self, host: &Host, up: bool) -> anyhow::Result<()> {
        let state = if up { "up" } else { "down" };
        ip(&[
            "-n",
            &self.switch(),
            "link",
            "set",
            &format!("p{}", host.number),
            state,
        ])
    }

    fn switch(&self) -> String {
        format!("{}-sw", self.prefix)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let names = self.hosts.iter().map(|host| host.namespace.clone());
        for name in names.chain([self.switch()]) {
            let _ = ip(&["netns", "del", &name]);
        }
    }
}

impl Host {
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn ipv4(&self) -> String {
        format!("192.0.2.{}", self.number)
    }

    /// A command that runs inside this host.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace])
            .arg(program);
        command
    }
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    run(Command::new("ip").args(arguments)).map(|_| ())
}
