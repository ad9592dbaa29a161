//! What forbids a release, whatever is wanted: the newest word of the director, and the policy.

use std::sync::Arc;

use edgeward_apps::digest::Digest;
use edgeward_apps::manifest::Manifest;
use edgeward_apps::{Director, NotAdmitted};
use tokio::sync::watch;

use crate::apps::floors::Ledger;
use crate::view::{HeldSlice, NodeView};

/// What was said last.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    pub(super) director: Option<Arc<Director>>,
    pub(super) slice: Option<Arc<HeldSlice>>,
}

/// Where it is heard, and where it is stored.
#[derive(Clone, Debug)]
pub struct Said {
    pub director: watch::Receiver<Option<Arc<Director>>>,
    pub slice: watch::Receiver<Option<Arc<HeldSlice>>>,
    pub ledger: Ledger,
}

impl Words {
    /// Why a release may not run: a stable code.
    pub(super) fn refuse(&self, manifest: &Manifest, digest: Digest) -> Option<&'static str> {
        let denied = |director: &Arc<Director>| director.orders().denies(manifest, digest);
        let judged = |held: &Arc<HeldSlice>| held.slice.apps.judge(manifest, digest).map(drop);
        let refused = [
            self.director.as_ref().map(denied),
            self.slice.as_ref().map(judged),
        ];
        let mut refused = refused.into_iter().flatten().filter_map(Result::err);
        refused.next().map(|why: NotAdmitted| why.code())
    }

    /// Whether the director names this very release, of which nothing else is known here.
    pub(super) fn denies(&self, digest: &Digest) -> bool {
        let director = self.director.as_ref();
        director.is_some_and(|director| director.orders().denied.contains(digest))
    }
}

impl Said {
    pub fn of(view: &NodeView) -> Self {
        Self {
            director: view.director.clone(),
            slice: view.slice.clone(),
            ledger: view.ledger.clone(),
        }
    }

    pub(super) fn now(&mut self) -> Words {
        Words {
            director: self.director.borrow_and_update().clone(),
            slice: self.slice.borrow_and_update().clone(),
        }
    }

    /// The next; waits for ever once nobody says anything any more.
    pub(super) async fn next(&mut self) -> Words {
        tokio::select! {
            Ok(()) = self.director.changed() => {}
            Ok(()) = self.slice.changed() => {}
            else => std::future::pending().await,
        }
        self.now()
    }
}
