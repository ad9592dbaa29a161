use super::*;

const APPS_PCR: u32 = 14;
const ZERO: PcrValue = [0; 32];

fn started(version: &str) -> Event {
    Event {
        happened: Happened::Started(App {
            publisher: "acme".to_owned(),
            name: "collector".to_owned(),
            version: version.to_owned(),
            digest: "ab".repeat(32),
        }),
        level: "fanotify".to_owned(),
    }
}

fn log(count: usize) -> AppLog {
    let mut log = AppLog::default();
    for n in 0..count {
        log.append(APPS_PCR, &started(&format!("2.3.{n}"))).unwrap();
    }
    log
}

#[test]
fn a_change_of_any_byte_is_refused_or_gives_another_value() {
    let log = log(3);
    let value = log.replay(ZERO);
    for at in 0..log.bytes().len() {
        for bit in [1, 0x80] {
            let mut bytes = log.bytes().to_vec();
            bytes[at] ^= bit;
            if let Ok(changed) = AppLog::parse(&bytes, APPS_PCR) {
                assert_ne!(changed.replay(ZERO), value, "byte {at}");
            }
        }
    }
}

#[test]
fn a_log_that_is_cut_lengthened_or_in_another_order_does_not_replay() {
    let whole = log(3);
    let value = whole.replay(ZERO);
    for end in 0..whole.bytes().len() {
        if let Ok(cut) = AppLog::parse(&whole.bytes()[..end], APPS_PCR) {
            assert_ne!(cut.replay(ZERO), value, "cut at {end}");
        }
    }
    let longer = [whole.bytes(), &[0]].concat();
    assert_eq!(AppLog::parse(&longer, APPS_PCR), Err(BadLog::Malformed(3)));
    let size = whole.bytes().len() / 3;
    let turned = [&whole.bytes()[size..2 * size], &whole.bytes()[..size]].concat();
    assert_eq!(AppLog::parse(&turned, APPS_PCR), Err(BadLog::Number(0)));
    assert_eq!(AppLog::parse(whole.bytes(), 13), Err(BadLog::OtherPcr(0)));
}

#[test]
fn what_is_written_is_read_and_replays_from_where_the_boot_left_the_pcr() {
    let whole = log(3);
    let read = AppLog::parse(whole.bytes(), APPS_PCR).unwrap();
    assert_eq!(read, whole);
    assert_eq!(read.events()[2], started("2.3.2"));
    assert_ne!(read.replay(ZERO), read.replay([1; 32]));
    assert_eq!(AppLog::default().replay([1; 32]), [1; 32]);
}

#[test]
fn a_log_that_is_one_record_ahead_is_mended_and_any_other_difference_is_not() {
    let whole = log(3);
    let (now, before) = (whole.replay(ZERO), log(2).replay(ZERO));
    assert_eq!(whole.standing(ZERO, &now), Standing::Whole);
    let Standing::LastMissing(value) = whole.standing(ZERO, &before) else {
        panic!("the last one is missing");
    };
    assert_eq!(hash(&[&before, &value]), now);
    assert_eq!(whole.standing(ZERO, &log(1).replay(ZERO)), Standing::Broken);
    assert_eq!(log(2).standing(ZERO, &now), Standing::Broken);
    assert_eq!(whole.standing([1; 32], &now), Standing::Broken);
}

#[test]
fn a_pcr_that_can_be_reset_a_full_log_and_a_large_record_are_refused() {
    for pcr in [16, 17, 23, 24, u32::MAX] {
        let refused = AppLog::default().append(pcr, &started("1"));
        assert_eq!(refused, Err(NotWritten::Pcr(pcr)));
    }
    let mut full = log(MAX_RECORDS);
    assert_eq!(full.append(APPS_PCR, &started("1")), Err(NotWritten::Full));
    assert!(AppLog::parse(full.bytes(), APPS_PCR).is_ok());
    let large = started(&"1".repeat(MAX_CONTENT_BYTES));
    assert_eq!(
        AppLog::default().append(APPS_PCR, &large),
        Err(NotWritten::TooLarge)
    );
}

#[test]
fn content_in_another_form_is_refused_although_its_digest_fits() {
    for content in [
        br#"{"happened":"overflow","level":"fanotify"} "#.as_slice(),
        br#"{"level":"fanotify","happened":"overflow"}"#,
        br#"{"happened":"overflow","level":"fanotify","more":1}"#,
        b"",
    ] {
        let mut bytes = Vec::new();
        put(&mut bytes, RECORD_NUMBER, &0_u64.to_be_bytes());
        put(&mut bytes, PCR, &APPS_PCR.to_be_bytes());
        let mut digests = Vec::new();
        put(&mut digests, ALG_SHA256, &hash(&[content]));
        put(&mut bytes, DIGESTS, &digests);
        put(&mut bytes, CONTENT, content);
        assert_eq!(AppLog::parse(&bytes, APPS_PCR), Err(BadLog::Content(0)));
    }
}

/// The TPM hashes by itself: `swtpm`, in a network namespace of its own.
#[test]
fn a_tpm_that_was_extended_by_the_digests_holds_the_replayed_value() {
    let mut log = AppLog::default();
    let mut extends = String::new();
    for n in 0..5 {
        let (_, value) = log.append(APPS_PCR, &started(&format!("2.3.{n}"))).unwrap();
        extends += &format!("tpm2_pcrextend {APPS_PCR}:sha256={}\n", hex::encode(value));
    }
    let script = format!(
        "set -e; D=$(mktemp -d); ip link set lo up\n\
         swtpm socket --tpm2 --flags not-need-init,startup-clear --tpmstate dir=$D --server type=tcp,port=2321 --ctrl type=tcp,port=2322 &\n\
         P=$!; trap 'kill $P; rm -rf $D' EXIT\n\
         for n in $(seq 100); do ss -ltnH '( sport = :2321 )' | grep -q . && break; sleep 0.05; done\n\
         export TPM2TOOLS_TCTI=swtpm:port=2321\n{extends}tpm2_pcrread sha256:{APPS_PCR}\n"
    );
    let output = std::process::Command::new("unshare")
        .args(["-n", "timeout", "-s", "KILL", "60", "sh", "-c", &script])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).to_lowercase();
    let wanted = hex::encode(log.replay(ZERO));
    assert!(
        text.contains(&wanted),
        "{wanted}: {text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
