use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio_stream::StreamExt;
use tonic::Code;

use super::*;

const PIECE: usize = 250_000;
const FEW: Bounds = Bounds {
    bytes_per_second: 100_000,
    answers: 4,
    answers_to_one: 2,
    callers: 2,
    patience: Duration::from_secs(10),
};

const LARGE: usize = 2_500_000;

fn large() -> Vec<u8> {
    (0..LARGE).map(|at| (at / 1_000) as u8).collect()
}

/// Has every chunk and every manifest that begins with a 1 and the file `here`.
#[derive(Clone)]
struct Shelf {
    begun: Instant,
    looks: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl Stock for Shelf {
    fn caller(&self, asks: &Extensions) -> Result<String, Status> {
        let known = asks.get::<&'static str>();
        known
            .map(|name| (*name).to_owned())
            .ok_or_else(|| Status::permission_denied("forbidden"))
    }

    fn now(&self) -> BootTime {
        BootTime::from_duration(self.begun.elapsed())
    }

    async fn metadata(&self, name: String) -> Result<Option<Vec<u8>>, Status> {
        Ok((name == "here").then(|| vec![7; 600_000]))
    }

    async fn manifest(&self, sha256: [u8; 32]) -> Result<Option<Vec<u8>>, Status> {
        Ok((sha256[0] == 1).then(large))
    }

    async fn chunk(&self, sha256: [u8; 32]) -> Result<Option<Vec<u8>>, Status> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        Ok((sha256[0] == 1).then(|| vec![1; PIECE]))
    }
}

fn serving(bounds: Bounds) -> Serving<Shelf> {
    let shelf = Shelf {
        begun: Instant::now(),
        looks: Arc::default(),
    };
    Serving::new(shelf, bounds)
}

fn of<T>(caller: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(caller);
    request
}

fn file(name: &str) -> v1::AppsMetadataRequest {
    v1::AppsMetadataRequest {
        name: name.to_owned(),
    }
}

fn chunks(count: usize, first: u8) -> v1::AppsChunksRequest {
    v1::AppsChunksRequest {
        sha256: vec![vec![first; 32]; count],
    }
}

async fn all<T>(mut answer: Answer<T>) -> Result<Vec<T>, Status> {
    let mut all = Vec::new();
    while let Some(message) = answer.next().await {
        all.push(message?);
    }
    Ok(all)
}

fn code<T>(result: Result<T, Status>) -> Code {
    result.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test]
async fn whoever_is_not_known_or_asks_for_what_nobody_may_ask_gets_nothing() {
    let serving = serving(FEW);
    let refused = serving.metadata(Request::new(file("here"))).await;
    assert_eq!(code(refused), Code::PermissionDenied);
    let long = "x".repeat(MAX_FILE_NAME_BYTES + 1);
    let refused = serving.metadata(of("a", file(&long))).await;
    assert_eq!(code(refused), Code::InvalidArgument);
    let many = chunks(MAX_CHUNKS_AT_ONCE + 1, 1);
    assert_eq!(
        code(serving.chunks(of("a", many)).await),
        Code::InvalidArgument
    );
    let short = v1::AppsManifestRequest {
        sha256: vec![1; 31],
        offset: 0,
    };
    assert_eq!(
        code(serving.manifest(of("a", short)).await),
        Code::InvalidArgument
    );
    // A refusal keeps no place.
    for _ in 0..5 {
        assert_eq!(
            code(serving.metadata(of("a", file("absent"))).await),
            Code::NotFound
        );
    }
}

#[tokio::test]
async fn what_the_budget_does_not_give_at_once_comes_at_its_rate() {
    let serving = serving(FEW);
    let begun = Instant::now();
    let answer = serving.chunks(of("a", chunks(5, 1))).await.unwrap();
    assert_eq!(all(answer.into_inner()).await.unwrap().len(), 5);
    // A quarter more than it gives at once.
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(2_500), "{took:?}");
    // Somebody else has lost nothing by that.
    let begun = Instant::now();
    let answer = serving.metadata(of("b", file("here"))).await.unwrap();
    let bytes: usize = all(answer.into_inner())
        .await
        .unwrap()
        .iter()
        .map(|piece| piece.bytes.len())
        .sum();
    assert_eq!(bytes, 600_000);
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn asking_for_what_is_not_there_costs_too() {
    let serving = serving(Bounds {
        bytes_per_second: 1_024,
        ..FEW
    });
    let begun = Instant::now();
    for _ in 0..11 {
        assert_eq!(
            code(serving.metadata(of("a", file("absent"))).await),
            Code::NotFound
        );
    }
    // Ten were paid for at once.
    assert!(begun.elapsed() >= Duration::from_millis(900));
}

#[tokio::test]
async fn looking_for_content_that_nobody_has_ends_with_the_budget() {
    let serving = serving(Bounds {
        bytes_per_second: 2_048,
        patience: Duration::from_millis(100),
        ..FEW
    });
    let answer = serving.chunks(of("a", chunks(256, 9))).await.unwrap();
    let given = all(answer.into_inner()).await;
    assert_eq!(code(given), Code::ResourceExhausted);
    let most = 20_480 / LOOK_COST + 5;
    assert!(serving.stock.looks.load(Ordering::Relaxed) <= most);
}

#[tokio::test]
async fn one_caller_leaves_room_for_others_and_one_that_reads_nothing_is_left() {
    let serving = serving(Bounds {
        patience: Duration::from_millis(300),
        bytes_per_second: 10_000_000,
        ..FEW
    });
    let mut unread = Vec::new();
    for _ in 0..FEW.answers_to_one {
        unread.push(serving.chunks(of("a", chunks(3, 1))).await.unwrap());
    }
    let refused = serving.metadata(of("a", file("here"))).await;
    assert_eq!(code(refused), Code::ResourceExhausted);
    let other = serving.metadata(of("b", file("here"))).await.unwrap();
    all(other.into_inner()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(900)).await;
    let answer = serving.metadata(of("a", file("here"))).await.unwrap();
    all(answer.into_inner()).await.unwrap();
    drop(unread);
}

#[tokio::test]
async fn a_caller_that_used_something_is_not_forgotten_for_another() {
    let serving = serving(Bounds {
        bytes_per_second: 600_000,
        ..FEW
    });
    for caller in ["a", "b"] {
        let answer = serving.metadata(of(caller, file("here"))).await.unwrap();
        all(answer.into_inner()).await.unwrap();
    }
    let refused = serving.metadata(of("c", file("here"))).await;
    assert_eq!(code(refused), Code::ResourceExhausted);
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let answer = serving.metadata(of("c", file("here"))).await.unwrap();
    all(answer.into_inner()).await.unwrap();
    assert!(serving.callers.lock().len() <= FEW.callers);
}

/// One turn for all: whoever waits for its budget, or does not take what it asked for, keeps it from nobody.
#[tokio::test]
async fn whoever_is_slow_keeps_no_turn_from_others() {
    let serving = serving(Bounds {
        answers: 1,
        callers: 3,
        ..FEW
    });
    let waits = serving.chunks(of("a", chunks(6, 1))).await.unwrap();
    let waits = tokio::spawn(all(waits.into_inner()));
    let unread = serving.chunks(of("c", chunks(3, 1))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let other = serving.metadata(of("b", file("here"))).await.unwrap();
    all(other.into_inner()).await.unwrap();
    assert!(!waits.is_finished(), "its budget gives a part at once");
    assert_eq!(all(unread.into_inner()).await.unwrap().len(), 3);
    assert_eq!(waits.await.unwrap().unwrap().len(), 6);
}

/// What is larger than what is kept of it at a time comes whole, from anywhere on.
#[tokio::test]
async fn a_large_manifest_comes_whole_and_from_where_it_was_torn() {
    let serving = serving(Bounds {
        bytes_per_second: 10_000_000,
        ..FEW
    });
    for offset in [0, 1, LARGE - 1, LARGE, LARGE + 1] {
        let wanted = v1::AppsManifestRequest {
            sha256: vec![1; 32],
            offset: offset as u64,
        };
        let answer = serving.manifest(of("a", wanted)).await.unwrap();
        let pieces = all(answer.into_inner()).await.unwrap();
        let given = pieces.into_iter().flat_map(|piece| piece.bytes);
        let rest = large().split_off(offset.min(LARGE));
        assert!(given.eq(rest), "from {offset} on");
    }
}
