//! Two enforcements in two network namespaces, without cloud and TPM: real tunnels, real kernel, real cuts.
//!
//! Needs root, `ip` and `nft`; without them it says so and skips.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "test helpers"
)]

mod fleet;
mod lab;
mod lan;

use std::time::{Duration, Instant};

use edgeward_agent::view::{Held, Standing};
use edgeward_audit::EventKind;
use edgeward_identity::{Clock, SystemClock};

use fleet::{Fleet, OPEN_PORT};
use lab::{Lab, Namespaces, eventually, exchange, serve};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn two_nodes_meet_by_policy_and_part_by_a_cut() {
    let Some(namespaces) = Namespaces::new() else {
        println!("needs root, ip and nft: skipped");
        return;
    };
    let fleet = Fleet::new();
    let mut a = Lab::new(&namespaces, &fleet, "a");
    let mut b = Lab::new(&namespaces, &fleet, "b");
    fleet.introduce(&mut a, &mut b);
    b.recorder.refuse(Some(EventKind::BindOpened));
    let begun = Instant::now();
    a.start();
    b.start();

    // What cannot be recorded is not granted.
    eventually(SOON, "b tries to open a bind", || b.recorder.refused() > 0);
    assert_eq!(b.progress().binds_open, 0);
    b.recorder.refuse(None);
    eventually(SOON, "both are bound", || {
        a.progress().binds_open == 1 && b.progress().binds_open == 1
    });
    println!("bound after {:?}", begun.elapsed());

    // The one interface that policy names, and no other, in one direction.
    let _open = serve(&b, OPEN_PORT);
    let _closed = serve(&b, OPEN_PORT + 1);
    let _back = serve(&a, OPEN_PORT);
    lab::answered(&a, &b, OPEN_PORT);
    assert!(exchange(&a, &b, OPEN_PORT + 1).is_err());
    assert!(exchange(&b, &a, OPEN_PORT).is_err());
    eventually(SOON, "denials are recorded", || {
        a.recorder.count(EventKind::FlowDenied) > 0 && b.recorder.count(EventKind::FlowDenied) > 0
    });
    eventually(SOON, "the flow is recorded at both ends", || {
        a.recorder.count(EventKind::FlowAllowed) > 0 && b.recorder.count(EventKind::FlowAllowed) > 0
    });
    for node in [&a, &b] {
        let order = node.recorder.kinds();
        let at = |kind| order.iter().position(|found| *found == kind).unwrap();
        assert!(at(EventKind::PolicyActivated) < at(EventKind::BindOpened));
    }
    let status = a.status();
    assert!(status.binds[0].open, "{status}");
    assert!(a.nft().contains(&b.v6().to_string()), "{}", a.nft());
    println!("{status}");
    println!("{}", a.wg_show());

    // A renewed pass travels over the bind.
    let passed = SystemClock.now();
    b.attest(&fleet, passed);
    eventually(SOON, "a knows of the new pass", || {
        let status = a.status();
        status.binds.first().and_then(|bind| bind.passed) == Some(passed)
    });

    // A cut: the data path at once, then kernel, connection and record.
    let mut stream = lab::answered(&a, &b, OPEN_PORT);
    let begun = Instant::now();
    fleet.cut(&a, "b");
    eventually(SOON, "the cut has taken effect", || {
        a.progress().cut_number == 1
    });
    println!("cut after {:?}", begun.elapsed());
    assert!(stream.ask().is_err());
    assert_eq!(a.progress().binds_open, 0);
    eventually(SOON, "the kernel's lease is gone", || {
        !a.nft().contains(&b.v6().to_string())
    });
    assert_eq!(a.recorder.count(EventKind::CutEffected), 1);
    eventually(SOON, "b hears of it", || b.progress().binds_open == 0);

    // A new pass ends what the cut began.
    b.attest(&fleet, SystemClock.now());
    fleet.tell(&a, &b);
    eventually(SOON, "they are bound again", || {
        a.progress().binds_open == 1 && b.progress().binds_open == 1
    });
    lab::answered(&a, &b, OPEN_PORT);

    // A node that is held lets go of everything.
    b.publisher
        .standing
        .send_replace(Standing::Held(Held::NoFloor));
    eventually(SOON, "b lets go", || {
        a.progress().binds_open == 0 && b.progress().binds_open == 0
    });
    assert!(exchange(&a, &b, OPEN_PORT).is_err());

    a.stop();
    b.stop();
    assert!(
        !a.nft_all().contains("edgeward"),
        "the table goes with an orderly end"
    );
}

#[test]
fn policy_trust_and_silence_take_away_what_they_must() {
    let Some(namespaces) = Namespaces::new() else {
        println!("needs root, ip and nft: skipped");
        return;
    };
    let fleet = Fleet::new();
    let mut a = Lab::new(&namespaces, &fleet, "a");
    let mut b = Lab::new(&namespaces, &fleet, "b");
    fleet.introduce(&mut a, &mut b);
    a.start();
    b.start();
    let together = |a: &Lab, b: &Lab| a.progress().binds_open == 1 && b.progress().binds_open == 1;
    let apart = |a: &Lab, b: &Lab| a.progress().binds_open == 0 && b.progress().binds_open == 0;
    eventually(SOON, "both are bound", || together(&a, &b));
    let _open = serve(&b, OPEN_PORT);

    // A rule that ended takes an open connection with it, and the bind.
    let mut stream = lab::answered(&a, &b, OPEN_PORT);
    fleet.rule(&a, &b, |row| row.until = Some(SystemClock.now()));
    eventually(SOON, "the bind ends with its last rule", || apart(&a, &b));
    assert!(stream.ask().is_err());
    fleet.rule(&a, &b, |_| {});
    eventually(SOON, "the rule is back", || together(&a, &b));

    // A key on the deny-list.
    let mut stream = lab::answered(&a, &b, OPEN_PORT);
    fleet.deny(&b, &a, true);
    eventually(SOON, "a denied key is cut", || apart(&a, &b));
    assert!(stream.ask().is_err());
    assert!(b.recorder.count(EventKind::CutEffected) == 1);
    fleet.deny(&b, &a, false);
    eventually(SOON, "the key is accepted again", || together(&a, &b));

    // Cut off from the cloud: `offline` holds, and where it is zero nothing does.
    b.lose_the_cloud();
    eventually(SOON, "b knows that it is cut off", || {
        b.status().link == "cut-off"
    });
    let mut stream = lab::answered(&a, &b, OPEN_PORT);
    fleet.rule(&a, &b, |row| {
        row.offline.own = Some(edgeward_policy::Seconds::new(0))
    });
    eventually(SOON, "nothing is left offline", || apart(&a, &b));
    assert!(stream.ask().is_err());
    a.stop();
    b.stop();
}
