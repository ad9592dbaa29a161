use std::time::Duration;

use super::*;
use edgeward_audit::EventKind;
use edgeward_audit::event::Actor;
use edgeward_identity::SystemClock;

fn node() -> SpiffeId {
    "spiffe://plant.example/node/a".parse().unwrap()
}

fn opened(path: &Path) -> (JournalHandle, Boot) {
    let boot = Boot::new("kernel", None).unwrap();
    open(path, &node(), boot, Arc::new(SystemClock)).unwrap()
}

fn event(kind: EventKind) -> Event {
    Event::new(SystemClock.now(), Actor::Identity(node()), kind)
}

#[tokio::test]
async fn what_was_recorded_can_be_sent() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, boot) = opened(&folder.path().join("journal"));
    journal.record(event(EventKind::BindOpened)).await.unwrap();
    journal.record_after(event(EventKind::BindClosed));
    journal.flush().await;
    let pending = journal.pending(None).await.unwrap().unwrap();
    assert_eq!((pending.boot, pending.first_seq), (boot.id(), 0));
    // The record that opens the boot, its key's first turn, and two of ours.
    assert_eq!(pending.records.len(), 4);
    let next = pending.next();
    assert_eq!(journal.pending(Some(next)).await, Ok(None));
}

#[tokio::test]
async fn a_grant_is_refused_while_a_full_queue_still_takes_what_takes_away() {
    let (commands, _kept) = sync_channel(QUEUE_LIMIT);
    let (_sender, written) = watch::channel(0);
    let journal = JournalHandle {
        commands,
        waiting: Arc::new(AtomicUsize::new(GRANT_QUEUE_LIMIT)),
        written: written.clone(),
        musts: written,
        marked: Marked::default(),
        sent: Arc::default(),
        log_size: Arc::default(),
        not_shown: Arc::default(),
    };
    assert!(journal.record(event(EventKind::BindOpened)).await.is_err());
    journal.record_after(event(EventKind::BindClosed));
    assert_eq!(
        journal.waiting.load(Ordering::Relaxed),
        GRANT_QUEUE_LIMIT + 1
    );
}

#[tokio::test]
async fn a_damaged_journal_is_put_aside_and_the_boot_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let boot = Boot::new("kernel", None).unwrap();
    let id = boot.id();
    let (journal, boot) = open(&path, &node(), boot, Arc::new(SystemClock)).unwrap();
    journal.record(event(EventKind::BindOpened)).await.unwrap();
    drop(journal);
    let segment = std::fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            path.metadata().unwrap().len() > 100
                && path.extension().is_none_or(|kind| kind != "reserve")
        })
        .unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[70] ^= 0xff;
    std::fs::write(&segment, bytes).unwrap();
    // The thread that held the lock ends on its own time.
    for _ in 0..100 {
        if FileStore::open(&path).is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    match open(&path, &node(), boot, Arc::new(SystemClock)) {
        Ok((_, anew)) => {
            let aside = folder.path().join(format!("journal.damaged-{id}"));
            assert!(aside.exists() == (anew.id() != id));
        }
        Err(error) => panic!("{error}"),
    }
}

/// The text of all sources below `folder`, tests apart.
fn sources(folder: &Path, out: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" {
            sources(&path, out);
        } else if name.ends_with(".rs") && name != "tests.rs" && name != "testing.rs" {
            let text = std::fs::read_to_string(&path).unwrap();
            let (code, _) = text.split_once("#[cfg(test)]\nmod ").unwrap_or((&text, ""));
            out.push_str(code);
        }
    }
}

#[test]
fn an_agent_records_only_what_is_a_nodes_to_say() {
    let mut text = String::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut text,
    );
    let mut found = 0;
    for kind in EventKind::ALL {
        let name = format!("EventKind::{kind:?}");
        let used = text.split(name.as_str()).skip(1).any(|rest| {
            let next = rest.chars().next().unwrap_or(' ');
            !next.is_alphanumeric()
        });
        if used {
            found += 1;
            assert!(
                kind.keepers().include(edgeward_identity::Kind::Node),
                "{kind}"
            );
        }
    }
    assert!(found > 30, "{found}");
}
