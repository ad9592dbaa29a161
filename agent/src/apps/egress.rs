//! What applications may send: each only to what its policy gives it of all that this node may reach.
//!
//! Sockets below the group of all applications are dropped unless their own group was let in. The table is left
//! standing when the agent ends: whoever was let in stays so, and nobody else gets in.

pub mod table;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use edgeward_apps::name::AppName;
use edgeward_policy::Slice;
use tokio::sync::Mutex;

use super::hierarchy::{NoPlace, Place};
use crate::enforce::DeviceName;
use crate::enforce::leases::{self, NftFailed, run_nft};
use crate::view::NodeView;
use table::{Ground, Way};

/// A handle; cheap to clone.
#[derive(Clone)]
pub struct Egress {
    setting: Arc<Setting>,
    let_in: Arc<parking_lot::Mutex<LetIn>>,
    /// Which [`LetIn::change`] the kernel has; held while it is told.
    held: Arc<Mutex<u64>>,
}

/// Who may send.
struct LetIn {
    groups: BTreeMap<AppName, PathBuf>,
    /// Rises with each change of them.
    change: u64,
}

/// The kernel's table is not known yet: it may be that of an agent before this one.
impl Default for LetIn {
    fn default() -> Self {
        Self {
            groups: BTreeMap::new(),
            change: 1,
        }
    }
}

struct Setting {
    view: NodeView,
    tunnel: DeviceName,
    table: String,
    /// Folder of the group of all applications.
    parent: PathBuf,
    names: Option<SocketAddr>,
}

/// The kernel does not hold what it should.
#[derive(Debug, thiserror::Error)]
pub enum NoEgress {
    #[error(transparent)]
    Place(#[from] NoPlace),
    #[error("control group of an application is not directly below that of all: {}", .0.display())]
    NotBelow(PathBuf),
    #[error(transparent)]
    Nft(#[from] NftFailed),
}

impl Egress {
    pub fn new(
        view: NodeView,
        tunnel: DeviceName,
        parent: PathBuf,
        names: Option<SocketAddr>,
    ) -> Self {
        Self {
            setting: Arc::new(Setting {
                table: format!("{}_apps", leases::table(&tunnel)),
                view,
                tunnel,
                parent,
                names,
            }),
            let_in: Arc::default(),
            held: Arc::default(),
        }
    }

    /// Lets an application send what its policy gives it. Its group must be there, and nothing in it yet.
    pub async fn admit(&self, app: &AppName, group: PathBuf) -> Result<(), NoEgress> {
        if group.parent() != Some(self.setting.parent.as_path()) {
            return Err(NoEgress::NotBelow(group));
        }
        self.change(|groups| groups.insert(app.clone(), group));
        let put = self.put().await;
        if put.is_err() {
            self.change(|groups| groups.remove(app));
        }
        put
    }

    /// From the return on nothing of it leaves, connections that are open included. Those who are withdrawn at the same
    /// time are withdrawn together; where the kernel did not follow before, it is told again.
    pub async fn withdraw(&self, app: &AppName) -> Result<(), NoEgress> {
        self.change(|groups| groups.remove(app));
        self.put().await
    }

    /// What the policy gives may have changed.
    pub async fn renew(&self) -> Result<(), NoEgress> {
        {
            let mut let_in = self.let_in.lock();
            if let_in.groups.is_empty() {
                return Ok(());
            }
            let_in.change += 1;
        }
        self.put().await
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<AppName, PathBuf>) -> Option<PathBuf>) {
        let mut let_in = self.let_in.lock();
        let before = let_in.groups.len();
        let replaced = change(&mut let_in.groups);
        if replaced.is_some() || let_in.groups.len() != before {
            let_in.change += 1;
        }
    }

    /// Whatever was changed before is in the kernel when this returns.
    async fn put(&self) -> Result<(), NoEgress> {
        let mut held = self.held.lock().await;
        let (groups, change) = {
            let let_in = self.let_in.lock();
            (let_in.groups.clone(), let_in.change)
        };
        if *held < change {
            self.setting.put(&groups).await?;
            *held = change;
        }
        Ok(())
    }
}

impl Setting {
    async fn put(&self, groups: &BTreeMap<AppName, PathBuf>) -> Result<(), NoEgress> {
        let held = self.view.slice.borrow().clone();
        let slice = held.as_ref().map(|held| &held.slice);
        run_nft(&self.text(groups, slice)?).await?;
        Ok(())
    }

    fn text(
        &self,
        groups: &BTreeMap<AppName, PathBuf>,
        slice: Option<&Slice>,
    ) -> Result<String, NoEgress> {
        let mut ways = BTreeMap::new();
        for (app, group) in groups {
            // A group that is gone has no sockets, and no rule could name it.
            let Ok(group) = Place::of(group) else {
                continue;
            };
            let goals = slice.map(|slice| table::goals(slice, app));
            let goals = goals.unwrap_or_default();
            ways.insert(app.clone(), Way { group, goals });
        }
        let ground = Ground {
            table: &self.table,
            tunnel: &self.tunnel,
            parent: &Place::of(&self.parent)?,
            names: self.names,
            serves: slice.map(table::serves).unwrap_or_default(),
        };
        Ok(table::make(&ground, &ways))
    }
}
