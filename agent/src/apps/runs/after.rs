//! What is done for applications beside the loop that runs them: in order for each of them, and for none of them in the
//! way of another.

use std::collections::BTreeMap;

use edgeward_apps::name::AppName;
use tokio::task::JoinHandle;

/// The last work that was begun for each application. As many as there are applications.
#[derive(Debug, Default)]
pub(super) struct After(BTreeMap<AppName, JoinHandle<()>>);

impl After {
    /// Begins now. What follows it follows everything before it, too.
    pub(super) fn beside(&mut self, app: AppName, work: impl Future<Output = ()> + Send + 'static) {
        let before = self.take(&app);
        let all = async move {
            tokio::join!(work, before);
        };
        self.0.insert(app, tokio::spawn(all));
    }

    /// Begins now, and is told how to wait for all that was begun before.
    pub(super) fn then<W>(
        &mut self,
        app: AppName,
        work: impl FnOnce(std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) -> W,
    ) where
        W: Future<Output = ()> + Send + 'static,
    {
        let before = self.take(&app);
        self.0.insert(app, tokio::spawn(work(Box::pin(before))));
    }

    /// The end of all that was begun for it, which whatever begins now need not wait for.
    pub(super) fn take(&mut self, app: &AppName) -> impl Future<Output = ()> + Send + use<> {
        let before = self.0.remove(app);
        async move {
            if let Some(before) = before {
                // Work that panicked is over, too.
                let _over = before.await;
            }
        }
    }

    pub(super) fn forget_what_is_done(&mut self) {
        self.0.retain(|_, work| !work.is_finished());
    }
}
