//! Network namespaces joined by one switch: several hosts on one machine.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process::{run, run_with_input};

static LABS: AtomicU32 = AtomicU32::new(0);

/// A switch with hosts on `192.0.2.0/24` (RFC 5737) and `2001:db8::/64` (RFC 3849).
#[derive(Debug)]
pub struct Network {
    prefix: String,
    namespaces: Vec<String>,
}

/// One namespace with `eth0` on a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    namespace: String,
    address: Ipv4Addr,
    socket: Socket,
}

/// Where a host's cable ends: the port of a switch in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    namespace: String,
    port: String,
}

impl Network {
    pub fn new() -> anyhow::Result<Self> {
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let mut network = Self {
            prefix: format!("ew{}-{number}", std::process::id()),
            namespaces: Vec::new(),
        };
        let switch = network.namespace("sw")?;
        bridge(&switch, "br0")?;
        Ok(network)
    }

    /// Adds a host; `number` becomes the last octet of its address.
    pub fn host(&mut self, name: &str, number: u8) -> anyhow::Result<Host> {
        let host = self.unplugged(name, Ipv4Addr::new(192, 0, 2, number), self.port(number))?;
        host.plug("br0")?;
        self.address(&host, number)?;
        Ok(host)
    }

    /// As [`Network::host`], on a cable that `lay` puts between `eth0` and the switch's port.
    pub fn host_by(
        &mut self,
        name: &str,
        number: u8,
        lay: impl FnOnce(&Host) -> anyhow::Result<()>,
    ) -> anyhow::Result<Host> {
        let host = self.unplugged(name, Ipv4Addr::new(192, 0, 2, number), self.port(number))?;
        lay(&host)?;
        host.socket.join("br0")?;
        self.address(&host, number)?;
        Ok(host)
    }

    /// Takes a host's cable out or puts it back.
    pub fn link(&self, host: &Host, up: bool) -> anyhow::Result<()> {
        let (socket, state) = (&host.socket, if up { "up" } else { "down" });
        ip(&["-n", &socket.namespace, "link", "set", &socket.port, state])
    }

    /// Loses this share of what a host sends and of what it is sent, on the switch. A packet that the kernel
    /// has not segmented yet counts as one.
    pub fn lose(&self, host: &Host, percent: u8) -> anyhow::Result<()> {
        let (socket, table) = (&host.socket, format!("loss_{}", host.socket.port));
        let mut text = format!("table bridge {table}\ndelete table bridge {table}\n");
        let chance = match percent {
            0 => return nft(&socket.namespace, &text),
            1..=99 => format!("numgen random mod 100 < {percent} drop"),
            _ => "drop".to_owned(),
        };
        let port = &socket.port;
        text += &format!(
            "table bridge {table} {{\n\
             chain from {{ type filter hook prerouting priority 0; iifname \"{port}\" {chance}; }}\n\
             chain to {{ type filter hook postrouting priority 0; oifname \"{port}\" {chance}; }}\n}}\n"
        );
        nft(&socket.namespace, &text)
    }

    /// A namespace of its own, gone with the network.
    pub(crate) fn namespace(&mut self, name: &str) -> anyhow::Result<String> {
        let name = format!("{}-{name}", self.prefix);
        ip(&["netns", "add", &name])?;
        self.namespaces.push(name.clone());
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        Ok(name)
    }

    /// A host whose cable is still to be laid.
    pub(crate) fn unplugged(
        &mut self,
        name: &str,
        address: Ipv4Addr,
        socket: Socket,
    ) -> anyhow::Result<Host> {
        let namespace = self.namespace(name)?;
        Ok(Host {
            namespace,
            address,
            socket,
        })
    }

    fn port(&self, number: u8) -> Socket {
        Socket::new(&format!("{}-sw", self.prefix), &format!("p{number}"))
    }

    fn address(&self, host: &Host, number: u8) -> anyhow::Result<()> {
        let namespace = host.namespace.as_str();
        let (v4, v6) = (
            format!("{}/24", host.address),
            format!("2001:db8::{number}/64"),
        );
        ip(&["-n", namespace, "addr", "add", &v4, "dev", "eth0"])?;
        ip(&["-n", namespace, "addr", "add", &v6, "dev", "eth0", "nodad"])?;
        ip(&["-n", namespace, "link", "set", "eth0", "up"])
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in self.namespaces.iter().rev() {
            let _ = ip(&["netns", "del", name]);
        }
    }
}

impl Socket {
    pub(crate) fn new(namespace: &str, port: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            port: port.to_owned(),
        }
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) fn port(&self) -> &str {
        &self.port
    }

    fn join(&self, switch: &str) -> anyhow::Result<()> {
        let (namespace, port) = (&self.namespace, &self.port);
        ip(&["-n", namespace, "link", "set", port, "master", switch, "up"])
    }
}

impl Host {
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// On its own network: behind a NAT that is not how others see it.
    pub fn ipv4(&self) -> String {
        self.address.to_string()
    }

    /// A command that runs inside this host.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace])
            .arg(program);
        command
    }

    /// Runs `work` in a thread of its own inside this host; what it opens, and the threads it starts, stay there.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.namespace))?;
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
                    Ok(work())
                })
                .join()
                .map_err(|_| anyhow::anyhow!("a thread panicked"))?
        })
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// A plain cable from `eth0` to its port of the switch.
    pub(crate) fn plug(&self, switch: &str) -> anyhow::Result<()> {
        let socket = &self.socket;
        ip(&[
            "link",
            "add",
            "eth0",
            "netns",
            &self.namespace,
            "type",
            "veth",
            "peer",
            "name",
            &socket.port,
            "netns",
            &socket.namespace,
        ])?;
        socket.join(switch)
    }
}

pub(crate) fn bridge(namespace: &str, name: &str) -> anyhow::Result<()> {
    ip(&["-n", namespace, "link", "add", name, "type", "bridge"])?;
    ip(&["-n", namespace, "link", "set", name, "up"])
}

pub(crate) fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    run(Command::new("ip").args(arguments)).map(|_| ())
}

/// One transaction in a namespace.
pub(crate) fn nft(namespace: &str, text: &str) -> anyhow::Result<()> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, "nft", "-f", "-"]);
    run_with_input(&mut command, text)
}
