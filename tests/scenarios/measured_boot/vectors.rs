//! The same with logs of real machines, where the published vectors are at hand.

use super::*;

const SECURE: &str = "keylime/binary_bios_measurements-secureboot";
/// Started at locality 3, without Secure Boot.
const INSECURE: &str = "keylime/binary_bios_measurements";

#[test]
fn logs_of_real_machines_give_their_known_registers_and_verdicts() -> anyhow::Result<()> {
    let Some(vectors) = vectors_folder() else {
        println!("vectors not found: logs that are built say the same, see the other scenarios");
        return Ok(());
    };
    let folder = vectors.join("uefi-eventlogs");
    let expected: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("expected-pcrs.json"))?)?;
    let mut lab = lab()?;
    // Both machines' registers, so that Secure Boot alone makes the difference.
    let sets: String = [0, 4, 7]
        .into_iter()
        .map(|pcr| {
            let value = |name: &str| register(&expected, name, pcr);
            format!(
                "pcr.{pcr} = [\"sha256:{}\", \"sha256:{}\"]\n",
                value(SECURE),
                value(INSECURE)
            )
        })
        .collect();
    require(&lab, &sets, "secure_boot = true\n")?;
    let secure = std::fs::read(folder.join(SECURE))?;
    let mut b = machine(&mut lab, &secure)?;
    await_state(&lab, &b, "trusted")?;

    b.reboot_by(&std::fs::read(folder.join(INSECURE))?)?;
    b.start()?;
    await_state(&lab, &b, "failed")?;
    explained(&lab, &b, "profile_secure_boot", "", "")?;

    b.reboot_by(&secure)?;
    b.start()?;
    await_state(&lab, &b, "trusted").map(|_| ())
}

fn register(expected: &Value, name: &str, pcr: u8) -> String {
    let sets = &expected[name];
    let bank = sets.get("pcrs").unwrap_or(sets);
    bank["sha256"][pcr.to_string()]
        .as_str()
        .unwrap_or_default()
        .trim_start_matches("0x")
        .to_owned()
}
