use std::collections::BTreeMap;
use std::sync::Arc;

use edgeward_policy::{InterfaceIndex, Mac};

use super::super::plan::{Guarded, Term};
use super::super::testing::{OTHER_MAC, PLC_MAC, spot};
use super::*;

const TABLE: &str = "edgeward_ew0_lan";

fn at(seconds: u64) -> BootTime {
    BootTime::from_duration(Duration::from_secs(seconds))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn plan(leases: &[(Shown, u64)]) -> Plan {
    let guarded = Guarded {
        name: "line3/modbus".into(),
        net: "lan0".into(),
        interface: InterfaceIndex(0),
        forwarded: false,
    };
    let leases = leases.iter().map(|(shown, until)| {
        let lease = Lease {
            at: spot(502),
            shown: *shown,
        };
        let term = Term {
            device: "spiffe://plant.example/device/plc".parse().unwrap(),
            rule: Arc::from("r"),
            until: at(*until),
        };
        (lease, term)
    });
    Plan {
        guarded: BTreeMap::from([(spot(502), guarded)]),
        leases: leases.collect(),
        ..Plan::default()
    }
}

fn both(mac: Mac, address: &str) -> Shown {
    Shown::Both(mac, ip(address))
}

fn at_once(plan: &Plan) -> Installed {
    let leases = plan.leases.iter();
    leases
        .map(|(lease, term)| (lease.clone(), term.until))
        .collect()
}

#[test]
fn nothing_in_the_table_accepts() {
    let (text, _) = make(TABLE, &plan(&[]), at(0));
    assert!(!text.contains(" accept\n") && !text.contains("established"));
    assert_eq!(text.matches("policy accept").count(), 3);
}

#[test]
fn names_of_tables_never_meet() {
    let lan = |device: &str| name(&device.parse().unwrap());
    let tunnel = |device: &str| leases::table(&device.parse().unwrap());
    for device in ["ew0", "lan", "a_lan", "a-lan", "a_ulan"] {
        for other in ["ew0", "lan", "a_lan", "a-lan", "ew0_lan", "a", "a_ulan"] {
            assert_ne!(lan(device), tunnel(other));
            assert_eq!(lan(device) == lan(other), device == other);
        }
    }
}

#[test]
fn a_lease_is_shortened_at_once_and_not_prolonged_for_every_little() {
    let device = both(PLC_MAC, "192.0.2.7");
    let before = plan(&[(device, 600)]);
    let (_, installed) = make(TABLE, &before, at(0));
    // A pass after a minute would give it ten per cent more: not worth a transaction.
    let little = plan(&[(device, 660)]);
    assert_eq!(change(TABLE, (&before, &installed), &little, at(60)), None);
    let later = plan(&[(device, 780)]);
    let (text, installed) = change(TABLE, (&before, &installed), &later, at(180)).unwrap();
    assert!(text.contains("timeout 600s"), "{text}");
    assert_eq!(installed.values().copied().collect::<Vec<_>>(), [at(780)]);
    let shorter = plan(&[(device, 779)]);
    let (text, _) = change(TABLE, (&later, &installed), &shorter, at(180)).unwrap();
    assert!(text.contains("timeout 599s"), "{text}");
    // Gone in both directions.
    let (text, installed) = change(TABLE, (&later, &installed), &plan(&[]), at(180)).unwrap();
    assert!(installed.is_empty());
    for line in [
        "delete element inet edgeward_ew0_lan in4 { \"eth1\" . tcp . 502 . 02:00:00:00:00:11 . 192.0.2.7 }",
        "delete element inet edgeward_ew0_lan out4 { \"eth1\" . tcp . 502 . 192.0.2.7 }",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(!text.contains("timeout"), "{text}");
    // With little left it may be gone by itself.
    let (text, _) = change(TABLE, (&later, &at_once(&later)), &plan(&[]), at(777)).unwrap();
    assert_eq!(text.matches("timeout 1s").count(), 2, "{text}");
}

#[test]
fn the_kernel_takes_every_kind_of_element_and_change() {
    let root = nix::unistd::geteuid().is_root();
    let nft = std::process::Command::new("nft").arg("--version").output();
    if !root || nft.is_err() {
        println!("needs root and nft: skipped");
        return;
    }
    let mut first = plan(&[
        (both(PLC_MAC, "192.0.2.7"), 600),
        (both(OTHER_MAC, "2001:db8::7"), 600),
        (Shown::Mac(PLC_MAC), 600),
        (Shown::Ip(ip("192.0.2.8")), 600),
        (Shown::Ip(ip("2001:db8::8")), 1),
    ]);
    for shown in [both(PLC_MAC, "192.0.2.7"), Shown::Mac(OTHER_MAC)] {
        first.owned.insert((spot(502).device, shown));
    }
    let mut second = plan(&[
        (both(PLC_MAC, "192.0.2.7"), 300),
        (Shown::Ip(ip("192.0.2.9")), 600),
    ]);
    let guarded = second.guarded[&spot(502)].clone();
    second.guarded.insert(spot(503), guarded);
    let (made, installed) = make(TABLE, &first, at(0));
    let (changed, installed) = change(TABLE, (&first, &installed), &second, at(2)).unwrap();
    let empty = Plan::default();
    let (emptied, _) = change(TABLE, (&second, &installed), &empty, at(2)).unwrap();
    let list = format!("list table inet {TABLE}\n");
    let flush = forget(TABLE, &["refused4", "passed6"]);
    // The second time over what is there; and after a lease has ended by itself.
    let texts = [
        &made,
        &made,
        &"\n".to_owned(),
        &changed,
        &flush,
        &list,
        &emptied,
        &list,
    ];
    let folder = tempfile::tempdir().unwrap();
    let mut command = String::from("set -e");
    for (number, text) in texts.iter().enumerate() {
        let path = folder.path().join(number.to_string());
        std::fs::write(&path, text).unwrap();
        command.push_str(&format!("; nft -f {}", path.display()));
        if number == 2 {
            command.push_str("; sleep 1.5");
        }
        if number == 5 {
            command.push_str("; echo EMPTIED");
        }
    }
    let output = std::process::Command::new("unshare")
        .args(["--net", "sh", "-c", &command])
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{complaint}\n{made}\n{changed}\n{emptied}"
    );
    let listed = String::from_utf8_lossy(&output.stdout);
    let (changed, emptied) = listed.split_once("EMPTIED").unwrap();
    for there in [
        "\"eth1\" . tcp . 502 . 02:00:00:00:00:11 . 192.0.2.7 timeout 4m58s",
        "\"eth1\" . tcp . 502 . 192.0.2.9 timeout",
        "\"eth1\" . tcp . 503 counter packets 0 bytes 0",
    ] {
        assert!(changed.contains(there), "{there}: {changed}");
    }
    for gone in ["192.0.2.8", "2001:db8", "00:99"] {
        assert!(!changed.contains(gone), "{gone}: {changed}");
    }
    assert!(!emptied.contains("eth1"), "{emptied}");
}
