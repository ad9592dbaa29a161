//! What the device asks of the kernel, on a real device in a namespace of its own.

#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::process::Command;

use edgeward_tunnel::shell::Profile;
use edgeward_tunnel::shell::tun::{TunConfig, TunDevice};
use nix::sched::{CloneFlags, unshare};

fn config(offload: bool, mtu: u16) -> TunConfig {
    TunConfig {
        name: "ewseg0".into(),
        mtu,
        ipv4: None,
        ipv6: Vec::new(),
        offload,
    }
}

/// What the kernel says of the device.
fn details() -> String {
    let output = Command::new("ip")
        .args(["-d", "link", "show", "ewseg0"])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn super_packets_of_the_device_leave_in_one_send() {
    // A thread of its own, since the namespace is the thread's.
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        for (mtu, segments) in [(1420, 45), (1280, 49), (9000, 7)] {
            let device = TunDevice::create(&config(true, mtu), Profile::Balanced).unwrap();
            assert!(device.has_offload());
            let text = details();
            assert!(
                text.contains(&format!("gso_max_segs {segments} ")),
                "{text}"
            );
        }
        let plain = TunDevice::create(&config(false, 1420), Profile::Balanced).unwrap();
        assert!(!plain.has_offload());
        assert!(!details().contains("gso_max_segs 45 "));
    })
    .join()
    .unwrap();
}
