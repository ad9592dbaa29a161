//! Leases once more, in the kernel: one nftables table for the tunnel device, as text for `nft -f -`.
//!
//! Every packet from or to the device must match an element of the lease sets (addresses, and networks behind peers),
//! whose timeout is the lease; only on the
//! way out may it also be for a peer that sleeps, or for a network behind one, whose packets the agent holds. The chains
//! only drop, so no accept of anybody's rules (on connection state or otherwise) outlives a lease; and they come
//! before connection tracking (priority `raw`). The table belongs to this device alone. It stays when the agent dies
//! and is replaced as a whole at the next start; the kernel counts timeouts without time in suspend, the tunnel with.

mod kernel;
mod queue;

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use super::DeviceName;

pub(in crate::enforce) use kernel::list_set;
pub(crate) use kernel::run as run_nft;
pub use kernel::{KernelLeases, NftFailed};
pub use queue::LeaseQueue;

/// Longest timeout of an element, in seconds: ten years.
const MAX_TIMEOUT_SECS: u64 = 10 * 365 * 24 * 3600;
/// Most lines of one transaction.
pub const MAX_CHANGES: usize = 4096;

/// One change of the lease sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// From now on the address may be used for this long; replaces what was said before.
    Lease { address: IpAddr, left: Duration },
    /// The address may no longer be used.
    Cut { address: IpAddr },
    /// The same, but packets to it may wake its peer: they reach the agent, which holds them.
    Asleep { address: IpAddr },
}

impl Change {
    pub fn address(&self) -> IpAddr {
        match self {
            Self::Lease { address, .. } | Self::Cut { address } | Self::Asleep { address } => {
                *address
            }
        }
    }
}

/// Makes the table anew, empty, in one transaction.
pub fn make_table(device: &DeviceName) -> String {
    let table = table(device);
    format!(
        "table inet {table} {{}}\n\
         delete table inet {table}\n\
         table inet {table} {{\n\
         \tset lease4 {{ type ipv4_addr; flags timeout; }}\n\
         \tset lease6 {{ type ipv6_addr; flags timeout; }}\n\
         \tset nets4 {{ type ipv4_addr; flags interval, timeout; }}\n\
         \tset nets6 {{ type ipv6_addr; flags interval, timeout; }}\n\
         \tset asleep4 {{ type ipv4_addr; }}\n\
         \tset asleep6 {{ type ipv6_addr; }}\n\
         \tset asleepnets4 {{ type ipv4_addr; flags interval; }}\n\
         \tset asleepnets6 {{ type ipv6_addr; flags interval; }}\n\
         \tchain from_peers {{\n\
         \t\ttype filter hook prerouting priority raw; policy accept;\n\
         \t\tiifname \"{device}\" ip saddr != @lease4 ip saddr != @nets4 counter drop\n\
         \t\tiifname \"{device}\" ip6 saddr != @lease6 ip6 saddr != @nets6 counter drop\n\
         \t}}\n\
         \tchain to_peers {{\n\
         \t\ttype filter hook output priority raw; policy accept;\n\
         \t\toifname \"{device}\" ip daddr != @lease4 ip daddr != @nets4 ip daddr != @asleep4 ip daddr != @asleepnets4 counter drop\n\
         \t\toifname \"{device}\" ip6 daddr != @lease6 ip6 daddr != @nets6 ip6 daddr != @asleep6 ip6 daddr != @asleepnets6 counter drop\n\
         \t}}\n\
         \tchain through {{\n\
         \t\ttype filter hook forward priority -300; policy accept;\n\
         \t\toifname \"{device}\" ip daddr != @lease4 ip daddr != @nets4 ip daddr != @asleep4 ip daddr != @asleepnets4 counter drop\n\
         \t\toifname \"{device}\" ip6 daddr != @lease6 ip6 daddr != @nets6 ip6 daddr != @asleep6 ip6 daddr != @asleepnets6 counter drop\n\
         \t}}\n\
         }}\n"
    )
}

/// Names the table as [`make_table`] makes it: one with another name has other rules.
pub fn table_hash(device: &DeviceName) -> String {
    let text = make_table(device);
    hex::encode(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()))
}

/// Makes the sets of a table that stands hold these leases and no others, in one transaction; leases of networks
/// behind peers are left as they are. Nobody sleeps until it is known who may.
pub fn replace(device: &DeviceName, leases: &[Change]) -> String {
    let table = table(device);
    let sets = [
        "lease4",
        "lease6",
        "asleep4",
        "asleep6",
        "asleepnets4",
        "asleepnets6",
    ];
    let mut text: String = sets
        .iter()
        .map(|set| format!("flush set inet {table} {set}\n"))
        .collect();
    for change in leases {
        let Change::Lease { address, left } = change else {
            continue;
        };
        let family = match address {
            IpAddr::V4(_) => 4,
            IpAddr::V6(_) => 6,
        };
        let seconds = left.as_secs().min(MAX_TIMEOUT_SECS);
        if seconds > 0 {
            let _ = writeln!(
                text,
                "add element inet {table} lease{family} {{ {address} timeout {seconds}s }}"
            );
        }
    }
    text
}

/// Removes the table.
pub fn remove_table(device: &DeviceName) -> String {
    let table = table(device);
    format!("table inet {table} {{}}\ndelete table inet {table}\n")
}

/// Changes of the sets, as one transaction.
pub fn apply(device: &DeviceName, changes: &[Change]) -> String {
    let table = table(device);
    let mut text = String::new();
    for change in changes.iter().take(MAX_CHANGES) {
        let address = change.address();
        let family = match address {
            IpAddr::V4(_) => 4,
            IpAddr::V6(_) => 6,
        };
        // To add what is there already changes nothing, and then it can be deleted: the only way to move a timeout.
        let element = format!("element inet {table} lease{family} {{ {address}");
        let sleeper = format!("element inet {table} asleep{family} {{ {address} }}");
        let _ = writeln!(text, "add {sleeper}");
        match change {
            Change::Asleep { .. } => {}
            Change::Lease { .. } | Change::Cut { .. } => {
                let _ = writeln!(text, "delete {sleeper}");
            }
        }
        let _ = writeln!(text, "add {element} timeout 1s }}");
        let _ = writeln!(text, "delete {element} }}");
        if let Change::Lease { left, .. } = change {
            let seconds = left.as_secs().min(MAX_TIMEOUT_SECS);
            if seconds > 0 {
                let _ = writeln!(text, "add {element} timeout {seconds}s }}");
            }
        }
    }
    text
}

/// The name of the device's table: what may not stand in an identifier of nft is spelt out.
pub fn table(device: &DeviceName) -> String {
    let name = device.as_str().replace('_', "_u").replace('-', "_h");
    format!("edgeward_{name}")
}

#[cfg(test)]
mod tests;
