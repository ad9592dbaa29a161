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
    for pcr in [0, 7, 10, 16, 17, 23, 24, u32::MAX] {
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
    let strange = AppLog::default().append(APPS_PCR, &started("2.3\n"));
    assert_eq!(strange, Err(NotWritten::Content));
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

#[test]
fn of_a_log_that_was_cut_off_the_whole_records_are_left() {
    let log = log(3);
    let size = log.bytes().len() / 3;
    for end in 0..=log.bytes().len() {
        let left = AppLog::salvage(&log.bytes()[..end], APPS_PCR);
        assert_eq!(left.events().len(), end / size, "{end}");
        assert_eq!(AppLog::parse(left.bytes(), APPS_PCR), Ok(left));
    }
    let other = AppLog::salvage(log.bytes(), 13);
    assert_eq!(other, AppLog::default());
}

#[test]
fn texts_of_an_own_choice_are_no_content() {
    let good = started("2.3.1");
    let breaks: [fn(&mut App); 5] = [
        |app| app.publisher = "Acme".to_owned(),
        |app| app.name = "a/b".to_owned(),
        |app| app.name = String::new(),
        |app| app.version = "2..3".to_owned(),
        |app| app.digest = "AB".repeat(32),
    ];
    for change in breaks {
        let mut event = good.clone();
        if let Happened::Started(app) = &mut event.happened {
            change(app);
        }
        assert_eq!(Event::from_bytes(&event.to_bytes()), None, "{event:?}");
    }
    assert_eq!(Event::from_bytes(&good.to_bytes()), Some(good));
}

fn app(version: &str) -> App {
    match started(version).happened {
        Happened::Started(app) => App {
            digest: hash_text(version),
            ..app
        },
        other => panic!("{other:?}"),
    }
}

fn hash_text(text: &str) -> String {
    hex::encode(hash(&[text.as_bytes()]))
}

fn written(events: &[Happened]) -> AppLog {
    let mut log = AppLog::default();
    for happened in events {
        let event = Event {
            happened: happened.clone(),
            level: "fanotify".to_owned(),
        };
        log.append(APPS_PCR, &event).unwrap();
    }
    log
}

fn followed(events: &[Happened]) -> AppState {
    let log = written(events);
    AppState::new(APPS_PCR, ZERO)
        .follow(0, log.bytes(), &log.replay(ZERO))
        .unwrap()
}

#[test]
fn what_was_revoked_stopped_or_replaced_runs_no_more_and_a_silent_log_says_nothing() {
    use Happened::{Overflow, Revoked, Started, Stopped};
    let runs = |events: &[Happened]| {
        let runs = followed(events).runs();
        runs.map(|runs| runs.into_values().collect::<Vec<_>>())
    };
    let [old, new] = [app("2.3.0"), app("2.4.0")];
    let none: Vec<String> = Vec::new();
    let none = Some(none);
    assert_eq!(runs(&[Started(old.clone()), Revoked(old.clone())]), none);
    assert_eq!(runs(&[Started(old.clone()), Stopped(old.clone())]), none);
    assert_eq!(runs(&[Happened::Installed(old.clone())]), none);
    assert_eq!(runs(&[Started(old.clone()), Overflow]), None);
    let only_new = Some(vec!["2.4.0".to_owned()]);
    let upgraded = [Started(old.clone()), Started(new.clone())];
    assert_eq!(runs(&upgraded), only_new);
    // The word about the release before comes late.
    let late = [&upgraded[..], &[Revoked(old.clone())]].concat();
    assert_eq!(runs(&late), only_new);
    let back = [&late[..], &[Started(old)]].concat();
    assert_eq!(runs(&back), Some(vec!["2.3.0".to_owned()]));
}

#[test]
fn a_log_is_followed_in_parts_up_to_each_quote_and_not_from_behind_what_is_known() {
    let log = log(3);
    let quoted: Vec<PcrValue> = (0..=3).map(|n| replay(&log.events[..n], ZERO)).collect();
    let begun = AppState::new(APPS_PCR, ZERO);
    // More came than the quote covers.
    let two = begun.follow(0, log.bytes(), &quoted[2]).unwrap();
    assert_eq!(two.records(), 2);
    assert!(two.reached(&quoted[2]) && !two.reached(&quoted[3]));
    let third = log.part(2, ZERO, &quoted[3]);
    let all = two.follow(2, third, &quoted[3]).unwrap();
    assert!(all.reached(&quoted[3]));
    // What is known already may come again, and a gap may not.
    let again = two.follow(0, log.bytes(), &quoted[3]).unwrap();
    assert_eq!(again, all);
    assert_eq!(begun.follow(2, third, &quoted[3]), Err(BadLog::Number(2)));
    assert_eq!(begun.follow(0, third, &quoted[3]), Err(BadLog::Number(0)));
    assert_eq!(log.part(0, ZERO, &quoted[0]), b"");
    assert_eq!(log.part(3, ZERO, &quoted[2]), b"");
    assert_eq!(log.part(0, ZERO, &[9; 32]), log.bytes());
    let first = log.part(0, ZERO, &quoted[1]);
    assert_eq!(begun.follow(0, first, &quoted[1]).unwrap().records(), 1);
}

#[test]
fn the_largest_record_and_the_longest_log_are_within_their_limits() {
    let longest = App {
        publisher: "p".repeat(63),
        name: "n".repeat(63),
        version: ["4294967295"; 4].join("."),
        digest: "ab".repeat(32),
    };
    let log = written(&[Happened::Installed(longest)]);
    assert!(log.bytes().len() <= MAX_CONTENT_BYTES + AROUND_CONTENT_BYTES);
    let content = log.events()[0].to_bytes().len();
    assert_eq!(log.bytes().len(), content + AROUND_CONTENT_BYTES);
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
