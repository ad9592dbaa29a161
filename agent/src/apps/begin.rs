//! Applications on this node, begun together: what they may, what runs them, what decides.

use std::path::PathBuf;
use std::sync::Arc;

use edgeward_runtime::shutdown::Tasks;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::desk::orders;
use super::egress::Egress;
use super::enforcing::{Enforcing, enforce};
use super::floors::Taken;
use super::guard::GuardState;
use super::launch::Places;
use super::machinery::Machinery;
use super::measure::Measure;
use super::records::Teller;
use super::rights::AppRights;
use super::runs::Said;
use super::start::Applications;
use crate::config::{AppsConfig, Config};
use crate::enforce::Recorder;
use crate::names::Mode;
use crate::view::NodeView;
use crate::workload::selectors::Launched;

/// What the rest of the agent has that applications need.
pub struct Begin<'a> {
    pub view: NodeView,
    pub recorder: Arc<dyn Recorder>,
    pub measure: Measure,
    /// What the Workload API knows applications by.
    pub launched: watch::Sender<Arc<Vec<Launched>>>,
    /// As stored.
    pub taken: Taken,
    pub places: Surroundings,
    pub tasks: &'a mut Tasks,
    pub token: &'a CancellationToken,
}

/// Where the rest of the agent is on this machine.
pub struct Surroundings {
    state_dir: PathBuf,
    workload: PathBuf,
    device: crate::enforce::DeviceName,
    /// The name server of this node, which applications may ask.
    names: Option<std::net::SocketAddr>,
}

impl Surroundings {
    pub fn of(config: &Config) -> Self {
        Self {
            state_dir: config.state_dir.clone(),
            workload: config.workload.socket.clone(),
            device: config.enforce.device.clone(),
            names: (config.names.mode != Mode::Off).then_some(config.names.listen),
        }
    }
}

/// Begins all of it; returns how applications are controlled, for evidence.
pub fn begin(config: AppsConfig, begin: Begin<'_>) -> watch::Receiver<GuardState> {
    let Begin {
        view,
        recorder,
        measure,
        launched,
        taken,
        places,
        tasks,
        token,
    } = begin;
    let egress = Egress::new(
        view.clone(),
        places.device,
        config.cgroup.clone(),
        places.names,
    );
    let rights = AppRights::new(view.clone(), measure.clone(), egress, launched);
    let rights = Arc::new(rights);
    tasks.spawn("apps-rights", rights.clone().run(token.clone()));
    let teller = Teller {
        node: view.node.clone(),
        clock: view.clock.clone(),
        recorder: recorder.clone(),
    };
    let said = Said::of(&view);
    let own = Places {
        cgroup: config.cgroup.clone(),
        state: config.state.clone(),
        workload: Some(places.workload),
    };
    let noticed = Arc::new(measure.clone());
    let socket = &config.guard_socket;
    let enforcing: Enforcing = enforce(socket, (own, said), teller, rights, noticed, tasks, token);
    let guard = enforcing.guard.state();
    let (asks, arriving) = orders();
    let _first = view.app_orders.set(asks);
    let applications = Applications {
        view,
        recorder,
        config,
        state_dir: places.state_dir,
        operations: Arc::new(Machinery::new(enforcing, measure)),
        orders: arriving,
        taken,
    };
    tasks.spawn("apps", applications.run(token.clone()));
    guard
}
