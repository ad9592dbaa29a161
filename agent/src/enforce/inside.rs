//! A look inside, for the status socket.

use std::sync::Arc;

use edgeward_identity::SpiffeId;
use edgeward_tunnel::node::PeerId;
use edgeward_tunnel::shell::Tunnel;

use super::control::Control;
use super::decide::Picture;
use super::lan::LanReport;
use super::steer::{self, ExitStatus};
use crate::gateway::{GatewayStatus, Shown};
use crate::reach::shown::{self, ReachStatus};
use crate::status::UpgradeStatus;
use crate::view::NodeView;

/// Reads what enforcement does; changes nothing.
pub struct Inside {
    pub(crate) view: NodeView,
    control: Arc<Control>,
    gateways: Arc<Shown>,
    leaving: Arc<steer::Shown>,
}

impl Inside {
    pub(super) fn new(
        view: NodeView,
        control: Arc<Control>,
        gateways: Arc<Shown>,
        leaving: Arc<steer::Shown>,
    ) -> Self {
        Self {
            view,
            control,
            gateways,
            leaving,
        }
    }

    pub(crate) fn gateways(&self) -> Vec<GatewayStatus> {
        self.gateways.status()
    }

    pub(crate) fn lan(&self) -> LanReport {
        self.control.lan.get(self.view.clock.boottime())
    }

    pub(crate) fn reach(&self) -> ReachStatus {
        shown::status(&self.control.desk.shown(), self.view.clock.boottime())
    }

    /// The exit that the operator named.
    pub(crate) fn exit(&self) -> Option<ExitStatus> {
        self.leaving.get()
    }

    /// What was taken over from the program before this one, and how many of its tunnels no bind has renewed yet.
    pub(crate) fn upgraded(&self) -> Option<UpgradeStatus> {
        let taken = self.control.taken_over.as_ref()?;
        Some(UpgradeStatus {
            from: taken.version.clone(),
            age_secs: self.view.clock.boottime().since(taken.at).as_secs(),
            tunnels: taken.tunnels,
            not_renewed: self.control.books.lock().handed().len(),
        })
    }

    pub(crate) fn picture(&self) -> Arc<Picture> {
        self.control.scene.picture()
    }

    pub(crate) fn tunnel(&self) -> &Tunnel {
        &self.control.tunnel
    }

    pub(crate) fn name_of(&self, number: PeerId) -> Option<SpiffeId> {
        self.control.books.lock().name(number).cloned()
    }
}
