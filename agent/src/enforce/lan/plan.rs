//! Whom the kernel is to let in: a pure function of the picture and the names of network devices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::{BootTime, SpiffeId};
use edgeward_policy::filter::{self, FilterSubject};
use edgeward_policy::slice::MESH;
use edgeward_policy::{DeviceIndex, InterfaceIndex, Mac, Proto, SliceInterface};

use crate::enforce::NetDevice;
use crate::enforce::decide::{self, Picture, Rules};

/// How long a forwarded port stays open without a word of the gateway.
pub const GATEWAY_TERM: Duration = Duration::from_secs(30);
/// What stands in place of a rule there.
const GATEWAY: &str = "gateway";
/// Most leases at once; further ones are not given.
pub const MAX_LEASES: usize = 65_536;

/// A port on a network device, as the kernel sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spot {
    pub device: NetDevice,
    pub proto: Proto,
    pub port: u16,
}

/// What policy says of a guarded port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded {
    /// `service/interface`.
    pub name: Arc<str>,
    /// The network as policy names it.
    pub net: Arc<str>,
    pub interface: InterfaceIndex,
    /// The gateway answers there: the kernel only sees to it that nobody else does.
    pub forwarded: bool,
}

/// By what the kernel knows a device: all that policy names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Shown {
    Both(Mac, IpAddr),
    Mac(Mac),
    Ip(IpAddr),
    /// Whoever it is: who may come in is the gateway's to say.
    Anyone,
}

/// A device may come in at a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lease {
    pub at: Spot,
    pub shown: Shown,
}

/// For how long, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    pub device: SpiffeId,
    pub rule: Arc<str>,
    pub until: BootTime,
}

/// What the table is to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Whoever has no lease is not let in here.
    pub guarded: BTreeMap<Spot, Guarded>,
    pub leases: BTreeMap<Lease, Term>,
    /// Who is one device must not come in as another that is known by less.
    pub owned: BTreeSet<(NetDevice, Shown)>,
    /// Interfaces whose network has no device: nobody is kept out there. `service/interface`.
    pub unserved: Vec<String>,
    /// Leases that were not given: beyond [`MAX_LEASES`], or for an address that another device has.
    pub left_out: usize,
    /// When to ask again though nothing changed; none: only then.
    pub changes_at: Option<BootTime>,
}

impl Plan {
    /// `None` where there is no policy: then what is guarded stays so.
    pub fn new(
        picture: &Picture,
        nets: &impl Fn(&str) -> Option<NetDevice>,
        now: BootTime,
    ) -> Option<Self> {
        let rules = picture.parts().rules.as_deref()?;
        let mut plan = Self::default();
        plan.guard(rules, nets);
        plan.own(rules, nets);
        plan.lease(picture, rules, nets, now);
        plan.serve(picture, now);
        Some(plan)
    }

    /// The same ports, open to nobody.
    #[must_use]
    pub fn closed(&self) -> Self {
        Self {
            leases: BTreeMap::new(),
            changes_at: None,
            ..self.clone()
        }
    }

    fn guard(&mut self, rules: &Rules, nets: &impl Fn(&str) -> Option<NetDevice>) {
        let interfaces = &rules.engine().slice().interfaces;
        for (index, interface) in (0..).map(InterfaceIndex).zip(interfaces) {
            if interface.net == MESH {
                continue;
            }
            let forwarded = interface.is_forwarded();
            let name: Arc<str> = format!("{}/{}", interface.service, interface.name).into();
            let Some(device) = nets(&interface.net) else {
                // The gateway tells of its own.
                if !forwarded {
                    self.unserved.push(name.to_string());
                }
                continue;
            };
            let spot = Spot {
                device,
                proto: interface.proto,
                port: interface.port,
            };
            let guarded = Guarded {
                name,
                net: interface.net.as_str().into(),
                interface: index,
                forwarded,
            };
            self.guarded.insert(spot, guarded);
        }
    }

    /// Forwarded spots are open while the gateway says that it listens there; the kernel closes them soon after it
    /// says no more, so that what else listens at such a port is never reached past it.
    fn serve(&mut self, picture: &Picture, now: BootTime) {
        let parts = picture.parts();
        let listens = |spot: &Spot, guarded: &Guarded| {
            parts.served.contains(&decide::Spot {
                net: Arc::clone(&guarded.net),
                proto: spot.proto,
                port: spot.port,
            })
        };
        let served = self.guarded.iter();
        let served = served.filter(|(spot, guarded)| guarded.forwarded && listens(spot, guarded));
        let served: Vec<Spot> = served.map(|(spot, _)| spot.clone()).collect();
        for at in served {
            let lease = Lease {
                at,
                shown: Shown::Anyone,
            };
            let term = Term {
                device: parts.node.clone(),
                rule: GATEWAY.into(),
                until: now.plus(GATEWAY_TERM),
            };
            self.leases.insert(lease, term);
            let again = now.plus(GATEWAY_TERM / 3);
            self.changes_at = Some(self.changes_at.map_or(again, |at| at.min(again)));
        }
    }

    fn own(&mut self, rules: &Rules, nets: &impl Fn(&str) -> Option<NetDevice>) {
        for device in &rules.engine().slice().devices {
            let shown = Shown::of(device);
            if let (Some(shown), Some(net)) = (shown, nets(&device.net)) {
                self.owned.insert((net, shown));
            }
        }
    }

    fn lease(
        &mut self,
        picture: &Picture,
        rules: &Rules,
        nets: &impl Fn(&str) -> Option<NetDevice>,
        now: BootTime,
    ) {
        let slice = rules.engine().slice();
        let mut link = None;
        let mut subjects = Vec::new();
        for (index, device) in slice.devices.iter().enumerate() {
            let Ok((evidence, towards)) = picture.device_standing(&device.id) else {
                continue;
            };
            // A device that proves a key cannot do so to the kernel; one of two alike is nobody.
            let known = Shown::of(device).is_some() && rules.devices().is_unique(index, device);
            if let (true, Ok(number)) = (known, u32::try_from(index)) {
                subjects.push((FilterSubject::Device(DeviceIndex(number)), evidence));
                link = Some(towards);
            }
        }
        let anchor = picture.parts().anchor;
        let Some(link) = link else {
            return;
        };
        let rows = filter::rows(rules.engine(), &subjects, link, anchor.wall_at(now));
        self.changes_at = Some(anchor.boot_at(rows.valid_until));
        let mut answered = BTreeSet::new();
        for row in &rows.interfaces {
            let interface = slice.interfaces.get(row.interface.0 as usize);
            let device = interface.filter(|interface| is_plain_lan(interface));
            let Some(device) = device.and_then(|interface| nets(&interface.net)) else {
                continue;
            };
            let at = Spot {
                device,
                proto: row.proto,
                port: row.port,
            };
            for entry in &row.allowed {
                let FilterSubject::Device(DeviceIndex(index)) = entry.subject else {
                    continue;
                };
                let device = slice.devices.get(index as usize);
                let Some((device, shown)) =
                    device.and_then(|known| Some((known, Shown::of(known)?)))
                else {
                    continue;
                };
                if self.leases.len() >= MAX_LEASES {
                    self.left_out += 1;
                    continue;
                }
                let lease = Lease {
                    at: at.clone(),
                    shown,
                };
                let term = Term {
                    device: device.id.clone(),
                    rule: Arc::clone(&entry.rule),
                    until: anchor.boot_at(entry.valid_until),
                };
                // Two stations cannot have one address; and answers to it could not be told apart.
                if let Shown::Both(_, ip) = shown
                    && !answered.insert((at.clone(), ip))
                {
                    self.left_out += 1;
                    continue;
                }
                self.leases.insert(lease, term);
            }
        }
    }
}

impl Shown {
    /// `None` for a device that is known by a certificate.
    fn of(device: &edgeward_policy::SliceDevice) -> Option<Self> {
        let how = &device.recognised;
        match (
            how.mac,
            how.ip.map(|ip| ip.to_canonical()),
            &how.certificate,
        ) {
            (Some(mac), Some(ip), None) => Some(Self::Both(mac, ip)),
            (Some(mac), None, None) => Some(Self::Mac(mac)),
            (None, Some(ip), None) => Some(Self::Ip(ip)),
            _ => None,
        }
    }
}

/// Whether nothing but the kernel stands before the interface.
pub fn is_plain_lan(interface: &SliceInterface) -> bool {
    interface.net != MESH && !interface.is_forwarded()
}

#[cfg(test)]
mod tests;
