//! Devices of this node: things without an agent, known by how they show themselves, vouched for while this node is.

use std::collections::HashMap;
use std::net::IpAddr;

use edgeward_identity::{AttestationState, SpiffeId};
use edgeward_policy::{Link, Mac, MetWants, SliceDevice, Standing as Evidence, StatedProfiles};

use super::picture::Picture;
use super::reason::Nothing;

/// What is seen of somebody on a network interface. On a shared segment both addresses can be forged; a certificate
/// whose key the device proved cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting<'a> {
    /// The network as policy names it.
    pub net: &'a str,
    pub ip: IpAddr,
    /// `None` where it is not known: then nothing that names one fits.
    pub mac: Option<Mac>,
    /// SHA-256 of the DER of the certificate whose key was proven, if one was.
    pub certificate: Option<&'a [u8; 32]>,
}

/// Devices of one slice by how they are recognised. Who fits several is the one that names most; where two name
/// the same, nobody.
#[derive(Debug, Default)]
pub struct Devices {
    /// Index into the slice's devices; `None` where two of them are recognised alike.
    by: HashMap<String, HashMap<Shown, Option<usize>>>,
}

/// What a device may be known by, all of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shown {
    mac: Option<Mac>,
    ip: Option<IpAddr>,
    certificate: Option<String>,
}

impl Shown {
    fn of(device: &SliceDevice) -> Self {
        Self {
            mac: device.recognised.mac,
            ip: device.recognised.ip.map(plain),
            certificate: device.recognised.certificate.clone(),
        }
    }
}

impl Devices {
    pub fn new(devices: &[SliceDevice]) -> Self {
        let mut by: HashMap<String, HashMap<Shown, Option<usize>>> = HashMap::new();
        for (index, device) in devices.iter().enumerate() {
            by.entry(device.net.clone())
                .or_default()
                .entry(Shown::of(device))
                .and_modify(|known| *known = None)
                .or_insert(Some(index));
        }
        Self { by }
    }

    /// Whether no other device of the slice is recognised just like this one.
    pub fn is_unique(&self, index: usize, device: &SliceDevice) -> bool {
        let known = self.by.get(&device.net);
        let found = known.and_then(|known| known.get(&Shown::of(device)).copied());
        found.flatten() == Some(index)
    }

    /// Which device of the slice this is.
    pub fn find(&self, sighting: &Sighting<'_>) -> Option<usize> {
        let known = self.by.get(sighting.net)?;
        let certificate = sighting.certificate.map(hex::encode);
        let certificates = [certificate.as_ref(), None];
        // What names a certificate before what does not, then both addresses, then the MAC, then the IP alone.
        for certificate in certificates
            .into_iter()
            .skip(usize::from(certificate.is_none()))
        {
            for (mac, ip) in [(true, true), (true, false), (false, true), (false, false)] {
                let shown = Shown {
                    mac: sighting.mac.filter(|_| mac),
                    ip: ip.then(|| plain(sighting.ip)),
                    certificate: certificate.cloned(),
                };
                if let Some(found) = known.get(&shown) {
                    return *found;
                }
            }
        }
        None
    }
}

/// An IPv4 address in its IPv6 form is that IPv4 address: sockets of both families show it so.
fn plain(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

impl Picture {
    /// The device that shows itself so, whether or not it may do anything.
    pub fn device(&self, sighting: &Sighting<'_>) -> Option<&SliceDevice> {
        let rules = self.parts.rules.as_deref()?;
        let index = rules.devices().find(sighting)?;
        rules.engine().slice().devices.get(index)
    }

    /// What is known of a device's evidence, and the link to judge it by: its state is `vouched` while the node that it
    /// hangs on is trusted, else `stale`; tier and last pass are that node's own.
    pub fn device_standing(&self, device: &SpiffeId) -> Result<(Evidence, Link), Nothing> {
        let rules = self.may_grant()?;
        if rules.node_of_guest(device).is_some() {
            return self.guest_standing(rules, device);
        }
        let own = self.parts.own;
        let passed = own.map(|own| own.passed);
        if !self.parts.floors.admits(device, passed.unwrap_or_default()) {
            return Err(Nothing::Cut);
        }
        let trusted = own.is_some_and(|own| own.state == AttestationState::Trusted);
        let evidence = Evidence {
            state: match trusted {
                true => AttestationState::Vouched,
                false => AttestationState::Stale,
            },
            tier: own.map(|own| own.tier),
            last_pass: passed,
            // A device measures nothing itself.
            profiles: Some(StatedProfiles::NONE),
            runs: Some(MetWants::NONE),
        };
        Ok((evidence, self.parts.hearing.towards(passed)))
    }
}

#[cfg(test)]
mod tests;
