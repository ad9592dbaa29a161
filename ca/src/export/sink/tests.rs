use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use edgeward_audit::Digest;
use edgeward_audit::event::{Actor, Event, EventKind};
use edgeward_audit::record::BootId;
use edgeward_identity::{SpiffeId, Timestamp};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::*;
use crate::config::exports::Begin;
use crate::dial::Endpoint;

fn export(to: Target) -> Export {
    Export {
        name: "siem".to_owned(),
        format: Format::Json,
        to,
        kinds: None,
        from: Begin::Start,
        facility: 13,
        batch: 100,
        timeout: Duration::from_secs(1),
    }
}

/// Gives one event of each index.
async fn give(sink: &mut Sink, export: &Export, indices: &[u64]) -> Result<Given, NotGiven> {
    let node: SpiffeId = "spiffe://plant.example/node/a".parse().unwrap();
    let event = Event::new(
        Timestamp::from_secs(1),
        Actor::Cloud,
        EventKind::CloudStarted,
    );
    let events: Vec<Exported<'_>> = indices
        .iter()
        .map(|index| Exported {
            index: *index,
            node: &node,
            boot: BootId::from_bytes([1; 16]),
            seq: *index,
            hash: Digest::ZERO,
            received: Timestamp::from_secs(2),
            claimed: false,
            event: &event,
        })
        .collect();
    sink.give(export, &events).await
}

/// Indices of the lines of a file.
fn indices(path: &Path) -> Vec<u64> {
    std::fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["index"].as_u64().unwrap()
        })
        .collect()
}

fn file(path: &Path, rotate_bytes: u64) -> (Export, Sink) {
    let export = export(Target::File {
        path: path.to_owned(),
        rotate_bytes,
        keep: 2,
    });
    let sink = Sink::new(&export, "cloud");
    (export, sink)
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("later/audit.jsonl");
    let (export, mut sink) = file(&path, 1_000_000);
    let refused = give(&mut sink, &export, &[1]).await.unwrap_err();
    assert!(matches!(refused, NotGiven::Down { .. }), "{refused:?}");
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    assert_eq!(give(&mut sink, &export, &[1]).await, Ok(Given::Kept));
    assert_eq!(indices(&path), [1]);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn what_a_crash_left_of_a_line_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let (export, mut sink) = file(&path, 1_000_000);
    give(&mut sink, &export, &[1, 2]).await.unwrap();
    let whole = std::fs::read(&path).unwrap();
    for cut in 0..=whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let mut sink = Sink::new(&export, "cloud");
        give(&mut sink, &export, &[7]).await.unwrap();
        let found = indices(&path);
        assert_eq!(found.last(), Some(&7));
        assert!([1, 2].starts_with(&found[..found.len() - 1]), "{found:?}");
    }
    std::fs::write(&path, vec![b'x'; 200_000]).unwrap();
    let mut sink = Sink::new(&export, "cloud");
    give(&mut sink, &export, &[8]).await.unwrap();
    assert_eq!(indices(&path), [8]);
}

#[tokio::test]
async fn a_full_file_is_followed_by_another_and_only_so_many_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let (export, mut sink) = file(&path, 10);
    for index in 1..=4 {
        give(&mut sink, &export, &[index]).await.unwrap();
    }
    assert_eq!(indices(&path), [4]);
    assert_eq!(indices(&folder.path().join("audit.jsonl.1")), [3]);
    assert_eq!(indices(&folder.path().join("audit.jsonl.2")), [2]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    // Moved away by somebody else: the next line is in a new file of the name.
    std::fs::rename(&path, folder.path().join("taken")).unwrap();
    give(&mut sink, &export, &[5]).await.unwrap();
    assert_eq!(indices(&path), [5]);
}

async fn stream() -> (TcpListener, Export, Sink) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let export = export(Target::Stream(Endpoint {
        host: "127.0.0.1".to_owned(),
        port: listener.local_addr().unwrap().port(),
        tls: None,
    }));
    let sink = Sink::new(&export, "cloud");
    (listener, export, sink)
}

#[tokio::test]
async fn what_a_receiver_took_before_it_broke_off_is_not_confirmed() {
    let (listener, export, mut sink) = stream().await;
    assert_eq!(give(&mut sink, &export, &[1]).await, Ok(Given::OnItsWay));
    let (mut theirs, _) = listener.accept().await.unwrap();
    let mut bytes = [0; 64];
    assert!(theirs.read(&mut bytes).await.unwrap() > 0);
    assert_eq!(sink.confirmed(), Ok(None), "too early");
    drop(theirs);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(matches!(sink.confirmed(), Err(NotGiven::Down { .. })));
    assert_eq!(sink.close().await, None);
}

#[tokio::test]
async fn what_a_standing_connection_carried_is_confirmed_in_time_or_by_an_orderly_end() {
    let (listener, export, mut sink) = stream().await;
    give(&mut sink, &export, &[1, 2]).await.unwrap();
    let (mut theirs, _) = listener.accept().await.unwrap();
    let reading = tokio::spawn(async move {
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).await.unwrap();
        String::from_utf8(all).unwrap()
    });
    tokio::time::sleep(Duration::from_millis(1700)).await;
    assert_eq!(sink.confirmed(), Ok(Some(2)));
    assert!(sink.is_idle());
    give(&mut sink, &export, &[3]).await.unwrap();
    assert_eq!(sink.confirmed(), Ok(None));
    assert_eq!(sink.close().await, Some(3));
    let text = reading.await.unwrap();
    let (length, rest) = text.split_once(' ').unwrap();
    let message = rest.get(..length.parse().unwrap()).unwrap();
    assert!(
        message.starts_with("<110>1 1970-01-01T00:00:01.000Z a.plant.example edgeward "),
        "{message}"
    );
    assert!(message.contains("\"index\":1,"), "{message}");
    assert!(message.ends_with('}'), "{message}");
}

#[tokio::test]
async fn nobody_is_there() {
    let (listener, export, mut sink) = stream().await;
    drop(listener);
    assert!(matches!(
        give(&mut sink, &export, &[1]).await,
        Err(NotGiven::Down { .. })
    ));
}
