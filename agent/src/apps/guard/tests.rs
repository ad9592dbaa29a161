//! The connection, with the guard's part played word by word.

use edgeward_audit::EventKind;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixListener;

use super::super::level;
use super::super::records::tests::{Measured, Notes, saw, teller};
use super::*;

struct World {
    guard: Guard,
    heard: mpsc::Receiver<Heard>,
    records: Arc<Records>,
    notes: Arc<Notes>,
    measured: Arc<Measured>,
    socket: PathBuf,
    _folder: tempfile::TempDir,
    _ends: tokio_util::sync::DropGuard,
}

/// The guard's end of one connection.
struct Theirs(BufReader<UnixStream>);

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("guard.sock");
        let (teller, notes) = teller();
        let measured = Arc::new(Measured::default());
        let records = Arc::new(Records::new(teller.clone(), measured.clone()));
        let (guard, link, heard) = guard(&socket, records.clone());
        let token = CancellationToken::new();
        tokio::spawn(link.run(token.clone()));
        tokio::spawn(level::follow(
            guard.state(),
            teller,
            measured.clone(),
            token.clone(),
        ));
        Self {
            guard,
            heard,
            records,
            notes,
            measured,
            socket,
            _folder: folder,
            _ends: token.drop_guard(),
        }
    }

    async fn accept(&self, listener: &UnixListener) -> Theirs {
        let mut theirs = Theirs(BufReader::new(listener.accept().await.unwrap().0));
        theirs
            .tell(&Told::Here {
                level: Level::Fanotify,
                lacks: Vec::new(),
                runs: Vec::new(),
                shut: false,
            })
            .await;
        theirs
    }

    async fn state(&self, wanted: impl FnMut(&GuardState) -> bool) -> GuardState {
        let mut state = self.guard.state();
        let found = tokio::time::timeout(Duration::from_secs(20), state.wait_for(wanted)).await;
        found.unwrap().unwrap().clone()
    }
}

impl Theirs {
    async fn tell(&mut self, told: &Told) {
        self.0.write_all(&line(told).unwrap()).await.unwrap();
    }

    async fn hear(&mut self) -> Order {
        let mut text = String::new();
        self.0.read_line(&mut text).await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    async fn hear_book(&mut self) -> Book {
        match self.hear().await {
            Order::Book(book) => book,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn without_a_guard_there_is_no_level_and_no_book_holds() {
    let world = World::new();
    let refused = world.guard.book(Mode::Enforce, BTreeMap::new()).await;
    assert!(matches!(refused, Err(NotHeld::Away)));
    assert_eq!(level::word(&world.guard.state().borrow()), "");
}

#[tokio::test]
async fn a_book_counts_when_the_guard_says_so_and_is_said_again_to_the_next() {
    let mut world = World::new();
    let listener = UnixListener::bind(&world.socket).unwrap();
    let mut theirs = world.accept(&listener).await;
    assert_eq!(world.heard.recv().await, Some(Heard::Here(Vec::new())));
    let guard = world.guard.clone();
    let files = BTreeMap::from([(Digest::new([7; 32]), "acme/x".to_owned())]);
    let asked = tokio::spawn(async move { guard.book(Mode::Enforce, files).await });
    let book = theirs.hear_book().await;
    assert!(!asked.is_finished());
    theirs.tell(&Told::Holds(book.version())).await;
    assert_eq!(asked.await.unwrap().unwrap(), book.version());

    drop(theirs);
    assert_eq!(world.heard.recv().await, Some(Heard::Away));
    let mut next = world.accept(&listener).await;
    assert_eq!(next.hear_book().await, book);
    let state = world.state(|state| state.level.is_some()).await;
    assert_eq!(state.holds, None, "the next one has not said so");
}

#[tokio::test]
async fn the_level_is_that_of_this_moment_and_every_change_is_recorded() {
    let world = World::new();
    let listener = UnixListener::bind(&world.socket).unwrap();
    let theirs = world.accept(&listener).await;
    let state = world.state(|state| state.level.is_some()).await;
    assert_eq!(level::word(&state), "fanotify");
    drop(theirs);
    world.state(|state| state.level.is_none()).await;
    let changes = || {
        let notes = world.notes.0.lock();
        let changes = notes
            .iter()
            .filter(|event| event.kind == EventKind::AppLevelChanged);
        changes.count()
    };
    while changes() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    while *world.measured.0.lock() != ["level fanotify", "level "] {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_guard_that_only_observes_is_not_said_to_enforce() {
    let world = World::new();
    let listener = UnixListener::bind(&world.socket).unwrap();
    let mut theirs = world.accept(&listener).await;
    world.state(|state| state.level.is_some()).await;
    for (mode, word) in [
        (Mode::Enforce, "fanotify"),
        (Mode::Observe, "launcher"),
        (Mode::Enforce, "fanotify"),
    ] {
        let guard = world.guard.clone();
        let asked = tokio::spawn(async move { guard.book(mode, BTreeMap::new()).await });
        let book = theirs.hear_book().await;
        let before = level::word(&world.guard.state().borrow());
        theirs.tell(&Told::Holds(book.version())).await;
        asked.await.unwrap().unwrap();
        assert_eq!(level::word(&world.guard.state().borrow()), word);
        assert!(
            before == "fanotify" || mode == Mode::Enforce,
            "not before it counts"
        );
    }
}

#[tokio::test]
async fn a_guard_that_is_not_understood_is_none() {
    let world = World::new();
    let listener = UnixListener::bind(&world.socket).unwrap();
    let mut theirs = world.accept(&listener).await;
    world.state(|state| state.level.is_some()).await;
    theirs.0.write_all(b"{\"opens\":1}\n").await.unwrap();
    world.state(|state| state.level.is_none()).await;
}

#[tokio::test]
async fn what_the_guard_saw_and_how_it_does_is_recorded() {
    let world = World::new();
    let listener = UnixListener::bind(&world.socket).unwrap();
    let mut theirs = world.accept(&listener).await;
    theirs.tell(&Told::Saw(saw(Some(1), "/volume/x"))).await;
    theirs.tell(&Told::Lost(3)).await;
    theirs.tell(&Told::Restarted { refused: 2 }).await;
    theirs.tell(&Told::Shut { ended: true }).await;
    world.state(|state| state.shut).await;
    world.records.write().await;
    let kinds: Vec<EventKind> = world
        .notes
        .0
        .lock()
        .iter()
        .map(|event| event.kind)
        .collect();
    for kind in [
        EventKind::AppWouldDeny,
        EventKind::AppDenied,
        EventKind::AppGuardRestarted,
        EventKind::AppGuardShut,
    ] {
        assert!(kinds.contains(&kind), "{kind:?}: {kinds:?}");
    }
}
