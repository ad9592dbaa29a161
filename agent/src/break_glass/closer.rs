//! Ends what is open, on the boot clock, whatever the session does.

use std::sync::Arc;
use std::time::Duration;

use edgeward_audit::event::Event;
use edgeward_audit::{Actor, EventKind};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::OpenGlass;
use crate::enforce::Recorder;
use crate::view::NodeView;

/// Longest sleep: a machine that was suspended is looked at soon after.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The task that closes.
pub struct Closer {
    pub view: NodeView,
    pub opened: watch::Sender<Arc<Vec<OpenGlass>>>,
    pub recorder: Arc<dyn Recorder>,
}

impl Closer {
    pub async fn run(self, token: CancellationToken) -> anyhow::Result<()> {
        let mut opened = self.opened.subscribe();
        loop {
            let next = opened
                .borrow_and_update()
                .iter()
                .map(|open| open.until)
                .min();
            let wait = next.map(|until| until.since(self.view.clock.boottime()).min(LOOK_EVERY));
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                changed = opened.changed() => if changed.is_err() { return Ok(()) },
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => self.close_ended(),
            }
        }
    }

    fn close_ended(&self) {
        let now = self.view.clock.boottime();
        let mut ended = Vec::new();
        self.opened.send_if_modified(|opened| {
            let (over, open): (Vec<_>, Vec<_>) =
                opened.iter().cloned().partition(|one| one.until <= now);
            if over.is_empty() {
                return false;
            }
            *opened = Arc::new(open);
            ended = over;
            true
        });
        for one in ended {
            tracing::warn!(name = %one.name, number = one.number, "break-glass: closed, its time is over");
            let node = Actor::Identity(self.view.node.clone());
            let event = Event::new(self.view.clock.now(), node, EventKind::GlassClosed)
                .subject(format!("break-glass:{}", one.name).as_str())
                .code("ended")
                .detail("number", one.number);
            self.recorder.record_after(event);
        }
    }
}
