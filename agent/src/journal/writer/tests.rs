use edgeward_identity::SystemClock;

use super::*;
use crate::boot::Boot;
use crate::journal::journal_boot;

fn writer(folder: &std::path::Path) -> Writer {
    let boot = Boot::new("kernel", None).unwrap();
    let (written, musts) = (watch::channel(0).0, watch::channel(0).0);
    Writer {
        journal: None,
        path: folder.join("journal"),
        node: "spiffe://plant.example/node/a".parse().unwrap(),
        boot: journal_boot(&boot),
        keys: KeyRing::of(&boot),
        clock: Arc::new(SystemClock),
        written,
        musts,
        marked: Marked::default(),
        sent: Arc::default(),
        log: LogSeen::open(folder),
        not_shown: Arc::default(),
        untold: Vec::new(),
        tried_to_tell: BootTime::default(),
    }
}

#[test]
fn a_contradiction_that_could_not_be_written_is_told_when_it_can_and_then_never_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer(folder.path());
    let contradict = |writer: &mut Writer| {
        let event = writer.contradiction(LOST_COVERED, "it was proven".to_owned());
        writer.tell_once(LOST_COVERED, event);
    };
    // No disk for a journal.
    std::fs::write(&writer.path, "").unwrap();
    for _ in 0..3 {
        contradict(&mut writer);
        assert_eq!(writer.untold.len(), 1);
    }
    assert!(!writer.log.has_told(LOST_COVERED));
    std::fs::remove_file(&writer.path).unwrap();
    writer.tell();
    let end = |writer: &Writer| writer.journal.as_ref().unwrap().chain().next_seq();
    let told = end(&writer);
    assert!(writer.untold.is_empty() && told.is_some());
    writer.tell();
    contradict(&mut writer);
    assert_eq!(end(&writer), told);
    assert!(LogSeen::open(folder.path()).has_told(LOST_COVERED));
}
