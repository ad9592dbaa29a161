//! Says alerts elsewhere: one task for each sink, which takes the words of its queue one after the other. At least once:
//! a word leaves the queue when the sink has taken it, and carries the same id each time.

use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::Timestamp;
use tokio_util::sync::CancellationToken;

use super::book::{Alert, State};
use super::desk::Desk;
use super::rule::Severity;
use super::say;
use crate::api::views::AlertTestView;
use crate::config::alerts::{Sink, Target};
use crate::dial::DialError;
use crate::store::StoreError;
use crate::store::alerts::Notice;

mod syslog;
mod webhook;

/// How long a sink may take for one word, its connection included.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often a queue is looked at where nothing wakes its task.
const LOOK: Duration = Duration::from_secs(5);
/// The first pause after a failure; each next one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// A word that nobody took for so long is given up; the alert itself is kept.
pub(super) const GIVE_UP: Duration = Duration::from_secs(86_400);

/// Why a sink did not take a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// It may later.
    Now(String),
    /// It refuses these very bytes.
    Ever(String),
}

impl From<DialError> for NotTaken {
    fn from(error: DialError) -> Self {
        Self::Now(error.to_string())
    }
}

impl NotTaken {
    fn why(&self) -> &str {
        match self {
            Self::Now(why) | Self::Ever(why) => why,
        }
    }
}

impl Desk {
    /// Runs until `stop`.
    pub async fn run_sinks(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        let mut tasks = tokio::task::JoinSet::new();
        for sink in self.config().sinks.clone() {
            tasks.spawn(self.clone().run_sink(sink, stop.clone()));
        }
        // A task that ends, ends the cloud: without sinks this one waits, too.
        stop.cancelled().await;
        while tasks.join_next().await.is_some() {}
        Ok(())
    }

    async fn run_sink(self: Arc<Self>, sink: Sink, stop: CancellationToken) {
        loop {
            let pause = match self.say_next(&sink).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::error!(sink = %sink.name, %error, "alerts: words cannot be read or kept");
                    Some(LOOK)
                }
            };
            let Some(pause) = pause else { continue };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.said.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Says the oldest word that waits. How long to wait then; none: not at all.
    pub(super) async fn say_next(&self, sink: &Sink) -> Result<Option<Duration>, StoreError> {
        if !self.has_duty().await? {
            return Ok(Some(LOOK));
        }
        let Some(notice) = self.store().next_notice(&sink.name).await? else {
            return Ok(Some(LOOK));
        };
        let now = self.now();
        if now < notice.next {
            return Ok(Some(notice.next.since(now).min(LOOK)));
        }
        let said = say_to(sink, notice.number, &notice.body, now).await;
        self.note(sink, &notice, said).await?;
        Ok(None)
    }

    async fn note(
        &self,
        sink: &Sink,
        notice: &Notice,
        said: Result<(), NotTaken>,
    ) -> Result<(), StoreError> {
        let now = self.now();
        let mut tx = self.store().begin("alerts.said").await?;
        let outcome = match said {
            Ok(()) => {
                tx.end_notice(notice.number).await?;
                "taken"
            }
            Err(not_taken) => {
                let next = next_try(&not_taken, notice, now);
                let why = not_taken.why();
                tracing::warn!(sink = %sink.name, alert = notice.alert, attempts = notice.attempts + 1,
                    why, given_up = next.is_none(), "alert could not be said");
                tx.fail_notice(notice.number, next, why).await?;
                if next.is_some() { "failed" } else { "given_up" }
            }
        };
        tx.commit().await?;
        metrics::counter!("edgeward_audit_alert_notices_total", "sink" => sink.name.clone(), "outcome" => outcome)
            .increment(1);
        Ok(())
    }

    /// Says a test to one sink, or to all.
    pub async fn try_sinks(&self, only: Option<&str>) -> Vec<AlertTestView> {
        let now = self.now();
        let body = say::saying(self.keeper(), &test_alert(now), "alert.test", now);
        let mut tried = Vec::new();
        let sinks = self.config().sinks.iter();
        for sink in sinks.filter(|sink| only.is_none_or(|only| only == sink.name)) {
            let said = say_to(sink, now.millis(), &body, now).await;
            tried.push(AlertTestView {
                sink: sink.name.clone(),
                taken: said.is_ok(),
                error: said
                    .err()
                    .map_or_else(String::new, |not| not.why().to_owned()),
            });
        }
        tried
    }
}

/// When it is tried again; none: never.
fn next_try(not_taken: &NotTaken, notice: &Notice, now: Timestamp) -> Option<Timestamp> {
    if matches!(not_taken, NotTaken::Ever(_)) || now.since(notice.made) >= GIVE_UP {
        return None;
    }
    let pause = FIRST_PAUSE
        .saturating_mul(1 << notice.attempts.min(16))
        .min(LONGEST_PAUSE);
    Some(now.plus(pause))
}

async fn say_to(sink: &Sink, id: u64, body: &str, now: Timestamp) -> Result<(), NotTaken> {
    let saying = async {
        match &sink.to {
            Target::Webhook {
                server,
                path,
                secret,
            } => webhook::post(server, path, secret, (id, body), now).await,
            Target::Syslog { server, facility } => {
                syslog::write(server, *facility, (id, body), now).await
            }
        }
    };
    tokio::time::timeout(DEADLINE, saying)
        .await
        .unwrap_or_else(|_| Err(NotTaken::Now("no answer in time".to_owned())))
}

fn test_alert(now: Timestamp) -> Alert {
    Alert {
        number: 0,
        rule: "test".to_owned(),
        key: String::new(),
        severity: Severity::Notice,
        summary: "An operator tries whether alerts arrive here".to_owned(),
        advice: "Nothing is to be done.".to_owned(),
        state: State::Open,
        opened: now,
        last: now,
        hits: 0,
        count: 0,
        first_leaf: None,
        last_leaf: None,
        what: String::new(),
        said: Some(now),
        quiet: Duration::ZERO,
        holds: false,
        acknowledged: None,
        ended: None,
        act: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_tried_ever_more_rarely_and_given_up_after_a_day() {
        const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
        let notice = |attempts| Notice {
            number: 1,
            sink: "s".to_owned(),
            alert: 1,
            made: NOW,
            attempts,
            next: NOW,
            error: String::new(),
            body: String::new(),
        };
        let down = NotTaken::Now("down".to_owned());
        let pause = |attempts| {
            next_try(&down, &notice(attempts), NOW).map(|next| next.since(NOW).as_secs())
        };
        assert_eq!(pause(0), Some(1));
        assert_eq!(pause(3), Some(8));
        assert_eq!(pause(u32::MAX), Some(600));
        assert_eq!(next_try(&down, &notice(1), NOW.plus(GIVE_UP)), None);
        let refused = NotTaken::Ever("413".to_owned());
        assert_eq!(next_try(&refused, &notice(0), NOW), None);
    }
}
