//! Which site an event belongs to.

use edgeward_audit::event::EventKind::{NodeQuarantined, WorkloadIssued};

use super::blocks::place_nodes;
use super::*;

fn cloud() -> SpiffeId {
    SpiffeId::new(
        &TrustDomain::new("plant.example").unwrap(),
        Kind::Cloud,
        "c",
    )
    .unwrap()
}

/// Stores what a cloud recorded, and gives the sites that have keys then.
async fn sites_of(store: &Store, boot: u8, event: Event) -> Vec<String> {
    let mut chain = Chain::new(cloud(), BootId::from_bytes([boot; 16]));
    let opened = BootOpened {
        previous: None,
        reset_count: None,
        restart_count: None,
    };
    let (time, salt) = (Timestamp::from_millis(T0), Salt::from_bytes([7; 16]));
    let start = Event::new(time, Actor::Cloud, EventKind::JournalOpened);
    let start = chain.seal_opening(opened, start, salt).unwrap();
    chain.advance(&start).unwrap();
    let record = chain.seal(event, salt).unwrap();
    let mut tx = store.begin("test").await.unwrap();
    tx.append_records(&[start, record], time).await.unwrap();
    tx.commit().await.unwrap();
    let list = store.site_keys().list();
    list.iter().map(|key| key.site.to_string()).collect()
}

store_tests! {
    async fn what_the_cloud_recorded_belongs_to_whom_it_is_about_then_to_who_acted_then_to_itself(store) {
        place_nodes(&store).await;
        let now = Timestamp::from_millis(T0);
        let workload = SpiffeId::new(&TrustDomain::new("plant.example").unwrap(), Kind::Workload, "w/x").unwrap();
        let about = Event::new(now, node(1), NodeQuarantined).subject(node(0));
        assert_eq!(sites_of(&store, 1, about).await, [":cloud", "alpha"]);
        let acted = Event::new(now, node(1), WorkloadIssued).subject(workload);
        assert_eq!(sites_of(&store, 2, acted).await, [":cloud", "alpha", "beta"]);
        let unknown = Event::new(now, node(3), WorkloadIssued);
        assert_eq!(sites_of(&store, 3, unknown).await, [":cloud", "alpha", "beta", "default"]);
        let own = Event::new(now, Actor::Cloud, EventKind::AuditPruned);
        assert_eq!(sites_of(&store, 4, own).await, [":cloud", "alpha", "beta", "default"]);
    }
}
