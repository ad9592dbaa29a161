//! The IMA list beside the boot log: what the kernel measured since it runs.

use super::*;

const POLICY: &str = "ima = { allow = \"ima/machine.allow\", violations = \"fail\" }\n";

/// Digests that the machine may measure; `boot_aggregate` is the kernel's own first entry.
fn allowed(digests: &[u8]) -> String {
    digests
        .iter()
        .map(|digest| format!("sha256:{}\n", hex::encode([*digest; 32])))
        .collect()
}

#[test]
fn files_are_allowed_by_digest_and_only_new_entries_are_sent() -> anyhow::Result<()> {
    let mut lab = lab()?;
    let good = BootLogBuilder::typical(true);
    let profile = format!("{}{POLICY}", pcrs(&good, &[4, 7]));
    let list = allowed(&[1, 2, 3]);
    require_with(&lab, &profile, &[("ima/machine.allow", &list)])?;
    let a = lab.member("a", "gateway")?;
    let mut b = lab.node("b")?;
    b.boot_by(&good.build())?;
    b.measure(&[
        MeasuredFile::new("boot_aggregate", 1),
        MeasuredFile::new("/usr/bin/one", 2),
    ])?;
    enrol(&lab, &mut b)?;
    let _status = serve(&b, STATUS)?;
    await_state(&lab, &b, "trusted")?;
    await_reach(&a, &b, STATUS)?;
    let first = await_sent(&b, std::fs::metadata(b.ima_path())?.len())?;

    b.measure(&[MeasuredFile::new("/usr/bin/two", 3)])?;
    let all = std::fs::metadata(b.ima_path())?.len();
    let second = await_sent(&b, all)?;
    println!("ima bytes sent: {first}, and then {} more", second - first);
    assert_eq!(second, all, "entries were sent more than once");
    await_state(&lab, &b, "trusted")?;

    b.measure(&[MeasuredFile::new("/tmp/\u{1b}[2Jimplant", 9)])?;
    await_state(&lab, &b, "failed")?;
    explained(&lab, &b, "ima_file_not_allowed", "pcr 10", "implant")?;
    eventually("b is dark", SECONDS, || {
        anyhow::ensure!(!reaches(&a, &b, STATUS, 1)?, "still reached");
        Ok(())
    })?;

    // A reboot begins a new list, and the whole of it is asked for.
    b.reboot_by(&good.build())?;
    b.measure(&[MeasuredFile::new("boot_aggregate", 1)])?;
    b.start()?;
    await_state(&lab, &b, "trusted")?;
    await_sent(&b, std::fs::metadata(b.ima_path())?.len())?;
    await_reach(&a, &b, STATUS)
}

#[test]
fn a_list_that_was_shortened_or_left_out_is_refused() -> anyhow::Result<()> {
    let mut lab = lab()?;
    let good = BootLogBuilder::typical(true);
    let profile = format!("{}{POLICY}", pcrs(&good, &[4]));
    require_with(&lab, &profile, &[("ima/machine.allow", &allowed(&[1, 2]))])?;
    let mut b = lab.node("b")?;
    b.boot_by(&good.build())?;
    b.measure(&[MeasuredFile::new("boot_aggregate", 1)])?;
    let short = std::fs::read(b.ima_path())?;
    b.measure(&[MeasuredFile::new("/usr/bin/one", 2)])?;
    let mut whole = std::fs::read(b.ima_path())?;
    enrol(&lab, &mut b)?;
    await_state(&lab, &b, "trusted")?;

    // An entry is gone before the next one comes: the list does not lead to the register any more.
    std::fs::write(b.ima_path(), &short)?;
    b.measure(&[MeasuredFile::new("/usr/bin/two", 2)])?;
    await_state(&lab, &b, "failed")?;
    explained(&lab, &b, "ima_replay_mismatch", "pcr 10", "")?;

    let last = std::fs::read(b.ima_path())?;
    whole.extend(last.iter().skip(short.len()));
    std::fs::write(b.ima_path(), whole)?;
    await_state(&lab, &b, "trusted")?;

    b.reboot_by(&good.build())?;
    b.start()?;
    await_code(&lab, &b, "ima_log_missing").map(|_| ())
}

#[test]
fn a_list_larger_than_an_answer_comes_in_parts() -> anyhow::Result<()> {
    let mut lab = lab()?;
    let good = BootLogBuilder::typical(true);
    let profile = format!("{}{POLICY}", pcrs(&good, &[4]));
    require_with(&lab, &profile, &[("ima/machine.allow", &allowed(&[1, 2]))])?;
    let mut b = lab.node("b")?;
    b.boot_by(&good.build())?;
    // Long paths, so that few extends make many bytes.
    let paths: Vec<String> = (0..600)
        .map(|at| format!("/{at}/{}", "x".repeat(3900)))
        .collect();
    let mut files = vec![MeasuredFile::new("boot_aggregate", 1)];
    files.extend(paths.iter().map(|path| MeasuredFile::new(path, 2)));
    for part in files.chunks(200) {
        b.measure(part)?;
    }
    let bytes = std::fs::metadata(b.ima_path())?.len();
    anyhow::ensure!(bytes > 2 << 20, "it fits one answer: {bytes} bytes");
    enrol(&lab, &mut b)?;
    await_state(&lab, &b, "trusted")?;
    assert_eq!(await_sent(&b, bytes)?, bytes);
    Ok(())
}

/// Waits until the agent has sent this many bytes of the list since it started.
fn await_sent(node: &Node, bytes: u64) -> anyhow::Result<u64> {
    eventually("the list is sent", SECONDS, || {
        let sent = sent(node)?;
        anyhow::ensure!(sent >= bytes, "{sent} of {bytes} bytes");
        Ok(sent)
    })
}

fn sent(node: &Node) -> anyhow::Result<u64> {
    let text = edgeward_tests::process::run(node.host().command("curl").args([
        "-sS",
        "--max-time",
        "2",
        "http://127.0.0.1:9464/metrics",
    ]))?;
    let line = text
        .lines()
        .find(|line| line.starts_with("edgeward_log_bytes_sent_total{log=\"ima\"}"))
        .ok_or_else(|| anyhow::anyhow!("no count of bytes"))?;
    let number = line.split_whitespace().last().unwrap_or_default();
    Ok(number.parse()?)
}
