//! Between the local socket and the one writer of the node's state.

use tokio::sync::{mpsc, oneshot};

use super::{NotOpened, OpenGlass};

/// Most orders that wait.
const MAX_WAITING: usize = 4;

/// Something to be done with the glass.
#[derive(Debug)]
pub enum Order {
    Open {
        sealed: Vec<u8>,
        code: edgeward_identity::Secret<String>,
        approvals: Vec<Vec<u8>>,
    },
    /// One, or all that is open.
    Close { number: Option<u64> },
}

/// An order and where its answer goes.
#[derive(Debug)]
pub struct Ordered {
    pub order: Order,
    pub done: oneshot::Sender<Result<Vec<OpenGlass>, NotOpened>>,
}

/// Takes orders. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Desk(mpsc::Sender<Ordered>);

/// Where the orders arrive.
#[derive(Debug)]
pub struct GlassOrders(mpsc::Receiver<Ordered>);

pub fn orders() -> (Desk, GlassOrders) {
    let (desk, orders) = mpsc::channel(MAX_WAITING);
    (Desk(desk), GlassOrders(orders))
}

impl Desk {
    /// Returns what is open afterwards.
    pub async fn order(&self, order: Order) -> Result<Vec<OpenGlass>, NotOpened> {
        let (done, answer) = oneshot::channel();
        self.0
            .try_send(Ordered { order, done })
            .map_err(|_| NotOpened::NotNow)?;
        answer.await.unwrap_or(Err(NotOpened::NotNow))
    }
}

impl GlassOrders {
    /// The next order; waits for ever once nobody can give one.
    pub async fn next(&mut self) -> Ordered {
        match self.0.recv().await {
            Some(ordered) => ordered,
            None => std::future::pending().await,
        }
    }
}
