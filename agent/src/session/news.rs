//! When the cloud is told anew what this node says of itself.
//!
//! What takes away or lets in is told at once; what people look at is gathered, the longer where the link is paid by the
//! byte.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::apps::report::AppsReport;
use crate::enforce::Progress;

/// Least time between two tellings for what only people look at, which may change many times a second.
const GATHER: Duration = Duration::from_millis(250);
/// The same on a metered link, from the first change on.
const GATHER_METERED: Duration = Duration::from_secs(60);

/// Everything of this node that the cloud is told when it changes.
pub(super) struct Sources {
    pub(super) progress: watch::Receiver<Progress>,
    pub(super) endpoints: watch::Receiver<Vec<String>>,
    pub(super) apps: watch::Receiver<Arc<AppsReport>>,
    /// Number of the newest record of what runs that the TPM holds: evidence is to be asked for.
    pub(super) measured: watch::Receiver<u64>,
}

/// What the cloud does not know yet. Nothing is lost where waiting for it is given up.
pub(super) struct News {
    sources: Sources,
    told_cut: u64,
    pace: Pace,
}

/// When it is told. Told the time.
#[derive(Debug)]
struct Pace {
    metered: bool,
    told: Instant,
    due: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Changed {
    /// What runs is measured; a cut took effect; the node moved.
    Matters,
    /// Who is bound.
    Binds,
    Apps,
}

impl News {
    /// All that there is at this moment is told with the Hello.
    pub(super) fn new(mut sources: Sources, metered: bool) -> Self {
        sources.endpoints.mark_unchanged();
        sources.apps.mark_unchanged();
        sources.measured.mark_unchanged();
        let told_cut = sources.progress.borrow_and_update().cut_number;
        Self {
            sources,
            told_cut,
            pace: Pace {
                metered,
                told: Instant::now(),
                due: None,
            },
        }
    }

    /// Returns when the cloud is to be told.
    pub(super) async fn due(&mut self) {
        loop {
            let due = self.pace.due;
            let what = tokio::select! {
                biased;
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.pace.tell(Instant::now());
                    return;
                }
                Ok(()) = self.sources.measured.changed() => Changed::Matters,
                Ok(()) = self.sources.endpoints.changed() => Changed::Matters,
                Ok(()) = self.sources.progress.changed() => self.progress(),
                Ok(()) = self.sources.apps.changed() => Changed::Apps,
                else => std::future::pending().await,
            };
            self.pace.note(what, Instant::now());
        }
    }

    fn progress(&mut self) -> Changed {
        let cut = self.sources.progress.borrow_and_update().cut_number;
        match std::mem::replace(&mut self.told_cut, cut) == cut {
            true => Changed::Binds,
            false => Changed::Matters,
        }
    }
}

impl Pace {
    fn note(&mut self, what: Changed, now: Instant) {
        let at = match (what, self.metered) {
            (Changed::Matters, _) | (Changed::Binds, false) => now,
            (Changed::Apps, false) => now.max(self.told + GATHER),
            (Changed::Binds | Changed::Apps, true) => now + GATHER_METERED,
        };
        // What is due earlier stays so.
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Everything is told at once.
    fn tell(&mut self, now: Instant) {
        self.due = None;
        self.told = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After so many milliseconds of a session.
    struct Watch(Instant);

    impl Watch {
        fn at(&self, millis: u64) -> Instant {
            self.0 + Duration::from_millis(millis)
        }

        fn pace(&self, metered: bool) -> Pace {
            Pace {
                metered,
                told: self.0,
                due: None,
            }
        }
    }

    #[test]
    fn what_matters_is_told_at_once_on_every_link_whatever_waits() {
        for metered in [false, true] {
            let watch = Watch(Instant::now());
            let mut pace = watch.pace(metered);
            pace.note(Changed::Apps, watch.at(10));
            assert!(pace.due > Some(watch.at(10)));
            pace.note(Changed::Matters, watch.at(20));
            assert_eq!(pace.due, Some(watch.at(20)));
            pace.note(Changed::Apps, watch.at(30));
            assert_eq!(pace.due, Some(watch.at(20)), "nor does it wait for more");
            pace.tell(watch.at(40));
            assert_eq!(pace.due, None);
        }
    }

    #[test]
    fn what_changes_all_the_time_is_gathered_and_not_put_off() {
        for (metered, gather) in [(false, GATHER), (true, GATHER_METERED)] {
            let watch = Watch(Instant::now());
            let mut pace = watch.pace(metered);
            let mut told = 0;
            let tenth = u64::try_from(gather.as_millis() / 10).unwrap();
            for step in 0..40 {
                let now = watch.at(step * tenth);
                pace.note(Changed::Apps, now);
                if pace.due.is_some_and(|due| due <= now) {
                    pace.tell(now);
                    told += 1;
                }
            }
            assert_eq!(told, 3, "metered: {metered}");
        }
    }

    #[test]
    fn the_first_change_after_a_pause_is_told_at_once_where_a_telling_costs_nothing() {
        let watch = Watch(Instant::now());
        let mut pace = watch.pace(false);
        pace.note(Changed::Apps, watch.at(1_000));
        assert_eq!(pace.due, Some(watch.at(1_000)));
        let mut pace = watch.pace(true);
        for what in [Changed::Apps, Changed::Binds] {
            pace.note(what, watch.at(1_000));
            assert_eq!(pace.due, Some(watch.at(1_000) + GATHER_METERED));
        }
    }

    #[tokio::test]
    async fn every_source_is_heard_and_what_the_hello_told_is_not_told_again() {
        let progress = watch::Sender::new(Progress::default());
        let endpoints = watch::Sender::new(Vec::new());
        let apps = watch::Sender::new(Arc::new(AppsReport::default()));
        let measured = watch::Sender::new(0);
        let sources = Sources {
            progress: progress.subscribe(),
            endpoints: endpoints.subscribe(),
            apps: apps.subscribe(),
            measured: measured.subscribe(),
        };
        endpoints.send_replace(vec!["192.0.2.1:51820".to_owned()]);
        measured.send_replace(4);
        let mut news = News::new(sources, false);
        let quiet = tokio::time::timeout(Duration::from_millis(50), news.due());
        assert!(quiet.await.is_err());
        let changes: [&dyn Fn(); 4] = [
            &|| measured.send_modify(|number| *number += 1),
            &|| endpoints.send_modify(Vec::clear),
            &|| progress.send_modify(|progress| progress.cut_number += 1),
            &|| apps.send_modify(|apps| Arc::make_mut(apps).director += 1),
        ];
        for change in changes {
            change();
            let told = tokio::time::timeout(Duration::from_secs(20), news.due());
            told.await.unwrap();
        }
    }
}
