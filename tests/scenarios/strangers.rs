//! A flood of strangers' first flights: the TPM goes on attesting, and the tunnel goes on carrying.

use std::time::Duration;

use edgeward_tests::Lab;
use edgeward_tests::cloud::CloudOptions;
use edgeward_tests::process::Process;

use crate::traffic::{await_reach, reaches, serve};

const STATUS: u16 = 8080;
/// Sends QUIC v1 Initials of 1,200 bytes (RFC 9000 17.2.2) with random connection IDs: argv = address, per second, seconds.
const FLOOD: &str = r#"
import os, socket, sys, time
address, rate, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
begin, sent = time.monotonic(), 0
while (now := time.monotonic() - begin) < seconds:
    while sent < now * rate:
        head = b"\xc3\x00\x00\x00\x01\x14" + os.urandom(20) + b"\x08" + os.urandom(8) + b"\x00\x44\x80"
        out.sendto(head + os.urandom(1200 - len(head)), (address, 51820))
        sent += 1
    time.sleep(0.002)
print(sent)
"#;

#[test]
fn a_thousand_first_flights_a_second_from_strangers_stop_neither_attestation_nor_traffic()
-> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    let a = lab.member("a", "gateway")?;
    let b = lab.member("b", "machine")?;
    let _status = serve(&b, STATUS)?;
    await_reach(&a, &b, STATUS)?;
    let stranger = lab.host("stranger")?;
    // A pass that says what the one before said makes no event: the node's standing tells when it was.
    let passed = || -> anyhow::Result<String> {
        let shown = lab.cloud.json(&["node", "show", "b"])?;
        Ok(shown["attested"].to_string())
    };
    let before = passed()?;
    let mut command = stranger.command("python3");
    command.args(["-c", FLOOD, &b.host().ipv4(), "1000", "15"]);
    let mut flood = Process::start("flood", command, &lab.folder().join("flood.log"))?;
    for _ in 0..5 {
        std::thread::sleep(Duration::from_secs(2));
        assert!(
            reaches(&a, &b, STATUS, 3)?,
            "the tunnel stopped under the flood"
        );
    }
    flood.check()?;
    anyhow::ensure!(
        passed()? != before,
        "no attestation passed during ten seconds of flood"
    );
    let stale = lab
        .cloud
        .events(&["--node", "b", "--type", "attestation.stale"])?;
    anyhow::ensure!(stale.is_empty(), "b went stale: {stale:?}");
    Ok(())
}
