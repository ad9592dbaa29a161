//! A node with one interface on `lan0` (`eth1`), and devices there.

use edgeward_policy::slice::GroupId;
use edgeward_policy::{Mac, Proto, Recognition, Slice, SliceDevice};

use super::plan::Spot;
use crate::enforce::decide::PictureParts;
use crate::enforce::testing::{parts, rules, slice};

pub(super) const PLC_MAC: Mac = Mac([2, 0, 0, 0, 0, 0x11]);
pub(super) const OTHER_MAC: Mac = Mac([2, 0, 0, 0, 0, 0x99]);
pub(super) const PLC_IP: &str = "192.0.2.7";

pub(super) fn spot(port: u16) -> Spot {
    Spot {
        device: "eth1".parse().unwrap(),
        proto: Proto::Tcp,
        port,
    }
}

pub(super) fn device(name: &str, mac: Option<Mac>, ip: Option<&str>) -> SliceDevice {
    SliceDevice {
        id: format!("spiffe://plant.example/device/{name}")
            .parse()
            .unwrap(),
        groups: vec![GroupId(0)],
        net: "lan0".to_owned(),
        recognised: Recognition {
            mac,
            ip: ip.map(|ip| ip.parse().unwrap()),
            certificate: None,
        },
        seen_as: None,
    }
}

pub(super) fn plc() -> SliceDevice {
    device("plc", Some(PLC_MAC), Some(PLC_IP))
}

pub(super) fn lan_slice(devices: Vec<SliceDevice>) -> Slice {
    let mut slice = Slice { devices, ..slice() };
    slice.interfaces[0].net = "lan0".to_owned();
    slice
}

pub(super) fn lan_parts(devices: Vec<SliceDevice>) -> PictureParts {
    PictureParts {
        rules: Some(rules(lan_slice(devices))),
        ..parts()
    }
}
