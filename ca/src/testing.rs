//! A whole cloud in this process, and machines with software TPMs that talk to it over TLS. For tests.

use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::{Clock, Kind, SoftwareKey, SpiffeId, SystemClock, Timestamp, TrustDomain};

mod agent;
mod attempt;
mod cloud;
mod machine;
mod publishing;

pub(crate) use agent::Agent;
pub(crate) use attempt::Attempt;
pub(crate) use cloud::Cloud;
pub(crate) use machine::Machine;

/// The secret of every token made here.
pub(crate) const SECRET: &[u8] = b"a secret of thirty-two bytes....";

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::new("plant.example").unwrap()
}

pub(crate) fn node(name: &str) -> SpiffeId {
    SpiffeId::new(&domain(), Kind::Node, name).unwrap()
}

pub(crate) fn copy_of(key: &SoftwareKey) -> Arc<SoftwareKey> {
    Arc::new(SoftwareKey::from_pkcs8(key.pkcs8().clone()).unwrap())
}

/// Waits until something comes true, five seconds at most.
pub(crate) async fn eventually<F: Future<Output = bool>>(mut check: impl FnMut() -> F) {
    for _ in 0..500 {
        if check().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came true");
}

pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}
