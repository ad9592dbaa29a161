use async_trait::async_trait;
use edgeward_audit::Verdict;
use edgeward_guard::digest::Digest;
use edgeward_identity::testing::{TEST_NOW, TurnedClock};

use super::*;
use crate::enforce::RecordRefused;

/// What was recorded.
#[derive(Default)]
pub(in crate::apps) struct Notes(pub(in crate::apps) Mutex<Vec<Event>>);

#[async_trait]
impl Recorder for Notes {
    async fn record(&self, event: Event) -> Result<(), RecordRefused> {
        self.record_after(event);
        Ok(())
    }

    fn record_after(&self, event: Event) {
        self.0.lock().push(event);
    }
}

/// What was measured.
#[derive(Default)]
pub(in crate::apps) struct Measured(pub(in crate::apps) Mutex<Vec<String>>);

#[async_trait]
impl Noticed for Measured {
    async fn level(&self, word: &'static str) {
        self.0.lock().push(format!("level {word}"));
    }

    async fn denied(&self, digest: &str) {
        self.0.lock().push(format!("denied {digest}"));
    }
}

pub(in crate::apps) fn teller() -> (Arc<Teller>, Arc<Notes>) {
    let notes = Arc::new(Notes::default());
    let teller = Teller {
        node: "spiffe://plant.example/node/edge-1".parse().unwrap(),
        clock: TurnedClock::at(TEST_NOW),
        recorder: notes.clone(),
    };
    (Arc::new(teller), notes)
}

pub(in crate::apps) fn saw(digest: Option<u32>, path: &str) -> Saw {
    let bytes = |number: u32| {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        Digest::new(bytes)
    };
    Saw {
        action: Action::WouldDeny,
        asked: Asked::Exec,
        reason: Reason::NotListed,
        digest: digest.map(bytes),
        path: path.to_owned(),
        pid: 4711,
        program: "/bin/sh".to_owned(),
    }
}

fn detail(event: &Event, key: &str) -> Option<String> {
    let json = serde_json::to_value(event).unwrap();
    json["detail"][key].as_str().map(ToOwned::to_owned)
}

#[tokio::test]
async fn one_file_under_many_names_is_one_row_and_many_files_are_counted_beyond_the_limit() {
    let (teller, notes) = teller();
    let records = Records::new(teller, Arc::new(Measured::default()));
    for number in 0..5000 {
        records.saw(&saw(Some(7), &format!("/volume/{number}")));
    }
    records.write().await;
    let written = std::mem::take(&mut *notes.0.lock());
    assert_eq!(written.len(), 1);
    assert_eq!(detail(&written[0], "count").as_deref(), Some("5000"));
    assert_eq!(detail(&written[0], "path").as_deref(), Some("/volume/0"));

    for number in 0..MAX_ROWS + 10 {
        records.saw(&saw(Some(u32::try_from(number).unwrap()), "/volume/x"));
    }
    records.lost(90);
    records.write().await;
    let written = std::mem::take(&mut *notes.0.lock());
    assert_eq!(written.len(), MAX_ROWS + 1);
    assert_eq!(
        detail(written.last().unwrap(), "count").as_deref(),
        Some("100")
    );
    records.write().await;
    assert!(notes.0.lock().is_empty());
}

#[tokio::test]
async fn what_was_denied_and_what_would_have_been_are_told_apart() {
    let (teller, notes) = teller();
    let measured = Arc::new(Measured::default());
    let records = Records::new(teller, measured.clone());
    let mut denied = saw(Some(1), "/volume/x");
    records.saw(&denied);
    denied.action = Action::Denied;
    denied.asked = Asked::Open;
    records.saw(&denied);
    denied.digest = None;
    denied.reason = Reason::TooSlow;
    records.saw(&denied);
    records.write().await;
    assert_eq!(
        measured.0.lock().len(),
        1,
        "only what was denied and has a digest"
    );
    let written = notes.0.lock();
    let of = |kind| written.iter().filter(move |event| event.kind == kind);
    let would = of(EventKind::AppWouldDeny).next().unwrap();
    assert_eq!(would.verdict, Verdict::None);
    assert_eq!(detail(would, "asked").as_deref(), Some("exec"));
    assert_eq!(detail(would, "digest").map(|digest| digest.len()), Some(64));
    assert_eq!(of(EventKind::AppDenied).count(), 2);
    for event in of(EventKind::AppDenied) {
        assert_eq!(event.verdict, Verdict::Deny);
        assert_eq!(detail(event, "asked").as_deref(), Some("open"));
    }
    let codes: Vec<_> = of(EventKind::AppDenied)
        .filter_map(|event| event.code.as_ref().map(ToString::to_string))
        .collect();
    assert_eq!(codes, ["not-listed", "too-slow"]);
}
