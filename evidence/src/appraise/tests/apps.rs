//! Profiles that name a PCR for applications.

use super::logs::codes_of;
use super::*;
use crate::app_log::{App, AppLog, Event, Happened};

const APPS_PCR: u8 = 14;
/// What the boot left there.
const START: [u8; 32] = [0x5a; 32];

fn profile() -> Profile {
    Profile::new(ProfileFields {
        apps_pcr: Some(APPS_PCR),
        ..fields()
    })
    .unwrap()
}

fn app(name: &str) -> App {
    App {
        publisher: "acme".to_owned(),
        name: name.to_owned(),
        version: "2.3.1".to_owned(),
        digest: "ab".repeat(32),
    }
}

fn log(events: &[Happened]) -> AppLog {
    log_at("fanotify", events)
}

fn log_at(level: &str, events: &[Happened]) -> AppLog {
    let mut log = AppLog::default();
    for happened in events {
        let event = Event {
            happened: happened.clone(),
            level: level.to_owned(),
        };
        log.append(u32::from(APPS_PCR), &event).unwrap();
    }
    log
}

/// A node whose TPM was extended by the log.
fn evidence_of(log: &AppLog) -> VerifiedEvidence {
    let mut tpm = SoftwareTpm::new();
    tpm.pcrs[usize::from(APPS_PCR)] = log.replay(START);
    let boot_key = *SoftwareKey::generate().unwrap().public_key();
    let selection = sha256_selection(&EVIDENCE_PCRS);
    tpm.evidence(&node(), &boot_key, Tier::Virtual, &selection)
}

fn followed(log: &AppLog, to: [u8; 32]) -> AppState {
    let begun = AppState::new(u32::from(APPS_PCR), START);
    begun.follow(0, log.bytes(), &to).unwrap()
}

fn appraised(evidence: &VerifiedEvidence, apps: Result<&AppState, &BadLog>) -> Appraisal {
    let logs = Logs {
        apps: Some(apps),
        ..Logs::default()
    };
    appraise(evidence, &profile(), &logs)
}

#[test]
fn a_log_that_is_missing_malformed_of_another_pcr_or_start_or_short_fails_and_proves_nothing() {
    let log = log(&[
        Happened::Started(app("collector")),
        Happened::Denied {
            digest: "cd".repeat(32),
        },
    ]);
    let evidence = evidence_of(&log);
    let quoted = log.replay(START);
    let missing = appraise(&evidence, &profile(), &Logs::default());
    assert_eq!(codes_of(&missing), ["apps_log_missing"]);
    assert_eq!(missing.state(), AttestationState::Failed);
    let other = AppState::new(13, START);
    let mut cases = vec![(appraised(&evidence, Ok(&other)), "apps_log_missing")];
    let bad = AppLog::parse(&[1, 2, 3], u32::from(APPS_PCR)).unwrap_err();
    cases.push((appraised(&evidence, Err(&bad)), "apps_log_malformed"));
    // Without the denial at its end, and from another value at its beginning.
    let first = log.part(0, START, &self::log(&log_of(&log, 1)).replay(START));
    let short = AppState::new(u32::from(APPS_PCR), START)
        .follow(0, first, &quoted)
        .unwrap();
    assert_eq!(short.records(), 1);
    cases.push((appraised(&evidence, Ok(&short)), "apps_log_replay"));
    let moved = AppState::new(u32::from(APPS_PCR), [0; 32])
        .follow(0, log.bytes(), &quoted)
        .unwrap();
    cases.push((appraised(&evidence, Ok(&moved)), "apps_log_replay"));
    for (appraisal, code) in cases {
        assert_eq!(codes_of(&appraisal), [code]);
        assert_eq!(appraisal.runs(), None, "{code}");
        assert_eq!(appraisal.state(), AttestationState::Failed);
    }
}

fn log_of(log: &AppLog, count: usize) -> Vec<Happened> {
    let events = log.events().iter().take(count);
    events.map(|event| event.happened.clone()).collect()
}

#[test]
fn a_pcr_that_was_not_quoted_proves_nothing() {
    let log = log(&[Happened::Started(app("collector"))]);
    let evidence = tpm_evidence(&mut SoftwareTpm::new(), Tier::Virtual);
    let state = followed(&log, log.replay(START));
    let appraisal = appraised(&evidence, Ok(&state));
    assert!(codes_of(&appraisal).contains(&"profile_pcr_not_quoted"));
    assert_eq!(appraisal.runs(), None);
}

#[test]
fn a_log_that_replays_says_what_runs_and_one_without_records_that_nothing_does() {
    let empty = AppLog::default();
    let state = followed(&empty, START);
    let appraisal = appraised(&evidence_of(&empty), Ok(&state));
    assert!(appraisal.matched());
    assert_eq!(appraisal.runs(), Some(&Runs::new()));
    let log = log(&[
        Happened::Installed(app("collector")),
        Happened::Started(app("collector")),
    ]);
    let state = followed(&log, log.replay(START));
    let appraisal = appraised(&evidence_of(&log), Ok(&state));
    assert_eq!(appraisal.state(), AttestationState::Trusted);
    let runs = Runs::from([("acme/collector".to_owned(), "2.3.1".to_owned())]);
    assert_eq!(appraisal.runs(), Some(&runs));
    // Of a node whose profile names no PCR nothing is said, whatever it sends.
    let without = Profile::new(fields()).unwrap();
    let logs = Logs {
        apps: Some(Ok(&state)),
        ..Logs::default()
    };
    assert_eq!(appraise(&evidence_of(&log), &without, &logs).runs(), None);
}

#[test]
fn a_log_that_fell_silent_or_names_too_much_leaves_open_what_runs_and_tells_why() {
    let silent = log(&[Happened::Started(app("collector")), Happened::Overflow]);
    let many: Vec<Happened> = (0..60)
        .map(|n| Happened::Started(app(&format!("{n}{}", "x".repeat(50)))))
        .collect();
    for (log, code) in [(silent, "apps_log_full"), (log(&many), "runs_too_many")] {
        let state = followed(&log, log.replay(START));
        let appraisal = appraised(&evidence_of(&log), Ok(&state));
        assert!(appraisal.matched(), "{code}");
        assert_eq!(appraisal.runs(), None, "{code}");
        let told: Vec<&str> = appraisal
            .notices()
            .iter()
            .map(|notice| notice.code.as_str())
            .collect();
        assert_eq!(told, [code]);
    }
}

#[test]
fn the_agents_word_for_its_level_is_worth_no_more_than_what_was_measured() {
    let fields = ProfileFields {
        apps_pcr: Some(APPS_PCR),
        app_control: Some(AppControl::Fanotify),
        ..fields()
    };
    let profile = Profile::new(fields).unwrap();
    let started = [Happened::Started(app("collector"))];
    let codes = |measured: &str, said: &str| {
        let log = log_at(measured, &started);
        let state = followed(&log, log.replay(START));
        let logs = Logs {
            apps: Some(Ok(&state)),
            app_control: AppControl::from_word(said),
            ..Logs::default()
        };
        codes_of(&appraise(&evidence_of(&log), &profile, &logs))
    };
    for (measured, said) in [("launcher", "kernel"), ("", "fanotify"), ("fanotify", "")] {
        assert_eq!(codes(measured, said), ["profile_app_control"], "{measured}");
    }
    assert!(codes("fanotify", "kernel").is_empty());
}

#[test]
fn the_pcr_is_quoted_and_never_stated_since_it_goes_on_changing() {
    let profile = profile();
    assert!(profile.selection().contains(APPS_PCR));
    assert!(!profile.stated().contains(APPS_PCR));
    assert!(profile.wants_logs());
    let without = Profile::new(fields()).unwrap();
    assert_ne!(profile.hash(), without.hash());
    let pending = Logs {
        pending: true,
        ..Logs::default()
    };
    let enrolled = appraise(&evidence_of(&AppLog::default()), &profile, &pending);
    assert_eq!(enrolled.state(), AttestationState::Stale);
    assert_eq!(enrolled.runs(), None);
}
