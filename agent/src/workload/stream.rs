//! A stream that says something again whenever it has changed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::caller::Caller;
use super::desk::Desk;

/// Most streams at once, of all processes together.
pub(super) const MAX_STREAMS: usize = 2_048;
/// Longest time without looking again: a process that became another program loses what it had.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How often it is seen to that the process is still there.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// How long a caller who may have something is kept waiting for it before it is told why there is nothing.
const PATIENCE: Duration = Duration::from_secs(5);
/// Shortest time between two looks that only the clock asks for.
const PAUSE: Duration = Duration::from_millis(200);

/// Places for streams.
#[derive(Clone)]
pub(super) struct Places(Arc<Semaphore>);

/// A message, and when it may have become another one.
pub(super) struct Built<T> {
    pub(super) message: T,
    pub(super) again_in: Option<Duration>,
}

impl<T> Built<T> {
    /// Changes only when what the node holds does.
    pub(super) fn lasting(message: T) -> Self {
        Self {
            message,
            again_in: None,
        }
    }
}

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_STREAMS)))
    }
}

impl Places {
    pub(super) fn take(&self) -> Option<OwnedSemaphorePermit> {
        self.0.clone().try_acquire_owned().ok()
    }
}

/// Begins a stream. It ends with the process, with the connection, or with the first thing that cannot be built.
pub(super) fn begin<T, F, B>(
    desk: Arc<Desk>,
    caller: Arc<Caller>,
    place: OwnedSemaphorePermit,
    build: F,
) -> mpsc::Receiver<Result<T, Status>>
where
    T: Clone + PartialEq + Send + 'static,
    F: Fn(Arc<Desk>, Arc<Caller>) -> B + Send + 'static,
    B: Future<Output = Result<Built<T>, Status>> + Send,
{
    let (out, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let ends = out.clone();
        tokio::select! {
            () = ends.closed() => {}
            () = ended(&caller) => {}
            () = tell(desk, &caller, &out, build) => {}
        }
        drop(place);
    });
    receiver
}

async fn tell<T, F, B>(
    desk: Arc<Desk>,
    caller: &Arc<Caller>,
    out: &mpsc::Sender<Result<T, Status>>,
    build: F,
) where
    T: Clone + PartialEq,
    F: Fn(Arc<Desk>, Arc<Caller>) -> B,
    B: Future<Output = Result<Built<T>, Status>>,
{
    let mut slice = desk.view.slice.clone();
    let mut trust = desk.view.trust_changed.clone();
    let mut keys = desk.view.keys.clone();
    let mut svids = desk.svids.changed();
    let mut cloud = desk.view.cloud.clone();
    let mut launched = desk.launched();
    let mut said: Option<T> = None;
    let begun = Instant::now();
    loop {
        // Marked before it is built: what changes meanwhile is built again.
        slice.mark_unchanged();
        trust.mark_unchanged();
        keys.mark_unchanged();
        svids.mark_unchanged();
        launched.mark_unchanged();
        let built = match build(desk.clone(), caller.clone()).await {
            Ok(built) => built,
            // Nothing yet: a node that is on its way up is trusted in a moment.
            Err(status)
                if status.code() == Code::Unavailable
                    && said.is_none()
                    && begun.elapsed() < PATIENCE =>
            {
                tokio::select! {
                    changed = cloud.changed() => match changed {
                        Ok(()) => desk.svids.hurry(),
                        Err(_) => return,
                    },
                    () = tokio::time::sleep(PATIENCE / 10) => {}
                }
                continue;
            }
            Err(status) => {
                let _ = out.send(Err(status)).await;
                return;
            }
        };
        if said.as_ref() != Some(&built.message) {
            if out.send(Ok(built.message.clone())).await.is_err() {
                return;
            }
            said = Some(built.message);
        }
        let wait = built
            .again_in
            .unwrap_or(LOOK_EVERY)
            .clamp(PAUSE, LOOK_EVERY);
        let held = tokio::select! {
            changed = slice.changed() => changed.is_ok(),
            changed = trust.changed() => changed.is_ok(),
            changed = keys.changed() => changed.is_ok(),
            changed = svids.changed() => changed.is_ok(),
            // An application loses its identity before it is ended.
            changed = launched.changed() => changed.is_ok(),
            changed = cloud.changed() => {
                // Another session: what was refused before may be granted now.
                desk.svids.hurry();
                changed.is_ok()
            }
            () = tokio::time::sleep(wait) => true,
        };
        if !held {
            return;
        }
    }
}

/// Waits for the end of the process: what it left its connection to is not what connected.
async fn ended(caller: &Caller) {
    loop {
        tokio::time::sleep(CHECK_EVERY).await;
        if caller.check_same().is_err() {
            return;
        }
    }
}
