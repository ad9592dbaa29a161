//! What a node remembers of applications, and how it is stored: sealed, under the TPM's epoch.
//!
//! The highest versions that were accepted are worth something only if nobody can take them back: they lie in the
//! sealed state, and an accepted release raises the epoch before it comes into use. Whoever puts an older disk back is
//! found out at the start, and a node without a state hears from the director how high it was before it takes anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use edgeward_apps::director::Orders;
use edgeward_apps::{AppFloors, AppName, Digest, ImageFloors};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::state::Blob;

/// Most changes that wait to be stored.
const MAX_WAITING: usize = 4;

/// As it lies in the state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppsState {
    /// The director's word, as received. The session's to write.
    pub director: Blob,
    #[serde(default)]
    pub taken: Taken,
}

/// What was accepted. The desk's to write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taken {
    /// The newest root of the image repository; empty before the first.
    pub root: Blob,
    pub image: ImageFloors,
    pub apps: AppFloors,
    /// Whether a director's word was heard on how high this node was.
    pub joined: bool,
    /// Manifests of the releases that may be in use, the newest first: nothing else on the volume counts.
    pub admitted: BTreeMap<AppName, Vec<Digest>>,
    /// Under which user each app runs: files that it wrote keep their owner.
    pub uids: BTreeMap<AppName, u32>,
}

/// Something for the one writer of the node's state.
#[derive(Debug)]
pub enum AppsOrder {
    Keep {
        taken: Box<Taken>,
        /// It must not be possible to put back what was before.
        epoch: bool,
        done: oneshot::Sender<bool>,
    },
    /// Whether all that is in force is on disk is answered, once it has been tried.
    Settle { done: oneshot::Sender<bool> },
    /// A director's word that came another way than down the session. Whether it is in force now is answered.
    Word {
        bytes: Vec<u8>,
        done: oneshot::Sender<bool>,
    },
}

/// The way to the one writer of the node's state. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ledger(mpsc::Sender<AppsOrder>);

/// Where orders arrive.
#[derive(Debug)]
pub struct LedgerOrders(mpsc::Receiver<AppsOrder>);

pub fn ledger() -> (Ledger, LedgerOrders) {
    let (orders, arriving) = mpsc::channel(MAX_WAITING);
    (Ledger(orders), LedgerOrders(arriving))
}

/// What was taken, in step with what is stored.
#[derive(Debug)]
pub struct Floors {
    ledger: Ledger,
    taken: Mutex<Taken>,
}

/// The state cannot be stored: nothing may rest on what was to be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what was accepted cannot be stored")]
pub struct NotKept;

impl AppsState {
    /// What a node that came back keeps. Its floors are a lower bound from now on, and the director is asked anew.
    #[must_use]
    pub fn of_before(&self) -> Self {
        let mut state = self.clone();
        state.taken.joined = false;
        state
    }
}

impl Taken {
    /// Joins what the director says this node and the repository had reached; once, for a node that does not know it
    /// better itself. An online key must not be able to raise floors for ever.
    #[must_use]
    pub fn joined_with(mut self, orders: &Orders) -> Self {
        if !self.joined {
            self.image = self.image.joined(&orders.floors);
            self.apps = self.apps.joined(&orders.highest);
            self.joined = true;
        }
        self
    }
}

impl Floors {
    pub fn new(ledger: Ledger, taken: Taken) -> Arc<Self> {
        Arc::new(Self {
            ledger,
            taken: Mutex::new(taken),
        })
    }

    pub async fn now(&self) -> Taken {
        self.taken.lock().await.clone()
    }

    /// Changes what was taken: stored when this returns, or not changed.
    pub async fn change(
        &self,
        epoch: bool,
        change: impl FnOnce(&mut Taken),
    ) -> Result<Taken, NotKept> {
        let mut held = self.taken.lock().await;
        let mut next = held.clone();
        change(&mut next);
        if next == *held {
            return Ok(next);
        }
        match self.ledger.keep(next.clone(), epoch).await {
            true => {
                held.clone_from(&next);
                Ok(next)
            }
            false => Err(NotKept),
        }
    }
}

impl Ledger {
    /// Whether it is stored.
    pub async fn keep(&self, taken: Taken, epoch: bool) -> bool {
        let taken = Box::new(taken);
        let order = |done| AppsOrder::Keep { taken, epoch, done };
        self.ask(order).await
    }

    /// Whether what took something away would outlast a power cut now.
    pub async fn settle(&self) -> bool {
        self.ask(|done| AppsOrder::Settle { done }).await
    }

    /// Whether the word holds and is in force.
    pub async fn word(&self, bytes: Vec<u8>) -> bool {
        self.ask(|done| AppsOrder::Word { bytes, done }).await
    }

    async fn ask(&self, order: impl FnOnce(oneshot::Sender<bool>) -> AppsOrder) -> bool {
        let (done, answer) = oneshot::channel();
        match self.0.send(order(done)).await {
            Ok(()) => answer.await.unwrap_or(false),
            Err(_) => false,
        }
    }
}

impl LedgerOrders {
    /// The next order; waits for ever once nobody can give one.
    pub async fn next(&mut self) -> AppsOrder {
        match self.0.recv().await {
            Some(order) => order,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests;
