use edgeward_apps::image::RoleFloor;

use super::*;

/// A writer that stores or refuses, and what it was told.
fn writer(stores: bool) -> (Ledger, tokio::task::JoinHandle<Vec<(Taken, bool)>>) {
    let (ledger, mut orders) = ledger();
    let task = tokio::spawn(async move {
        let mut told = Vec::new();
        while let Some(order) = orders.0.recv().await {
            match order {
                AppsOrder::Keep { taken, epoch, done } => {
                    told.push((*taken, epoch));
                    let _ = done.send(stores);
                }
                AppsOrder::Word { done, .. } | AppsOrder::Settle { done } => {
                    let _ = done.send(stores);
                }
            }
        }
        told
    });
    (ledger, task)
}

fn app(name: &str) -> AppName {
    name.parse().unwrap()
}

fn orders(version: &str, targets: u64) -> Orders {
    let floor = RoleFloor {
        version: targets,
        authority: Digest::of(b"keys"),
    };
    Orders {
        floors: ImageFloors {
            root: 3,
            roles: BTreeMap::from([("targets".to_owned(), floor)]),
        },
        highest: BTreeMap::from([(app("acme/x"), version.parse().unwrap())]),
        ..Orders::default()
    }
}

#[tokio::test]
async fn what_cannot_be_stored_is_not_changed() {
    let (ledger, _task) = writer(false);
    let floors = Floors::new(ledger, Taken::default());
    let refused = floors.change(true, |taken| taken.image.root = 7).await;
    assert_eq!(refused, Err(NotKept));
    assert_eq!(floors.now().await, Taken::default());
    let (gone, orders) = super::ledger();
    drop(orders);
    let floors = Floors::new(gone, Taken::default());
    let refused = floors.change(false, |taken| taken.joined = true).await;
    assert_eq!(refused, Err(NotKept), "nobody writes");
}

#[tokio::test]
async fn what_changes_is_stored_once_and_what_does_not_is_not() {
    let (ledger, task) = writer(true);
    let floors = Floors::new(ledger, Taken::default());
    floors.change(true, |_| {}).await.unwrap();
    floors
        .change(true, |taken| taken.image.root = 7)
        .await
        .unwrap();
    floors
        .change(false, |taken| taken.image.root = 7)
        .await
        .unwrap();
    assert_eq!(floors.now().await.image.root, 7);
    drop(floors);
    let told = task.await.unwrap();
    let told: Vec<_> = told
        .iter()
        .map(|(taken, epoch)| (taken.image.root, *epoch))
        .collect();
    assert_eq!(told, [(7, true)]);
}

#[test]
fn a_node_without_a_state_hears_how_high_it_was_and_one_with_a_state_does_not_listen() {
    let anew = Taken::default().joined_with(&orders("2.4", 9));
    assert_eq!(anew.image.root, 3);
    assert_eq!(anew.apps.apps[&app("acme/x")].highest.to_string(), "2.4");
    // Whoever stole the director's key must not raise floors above what was signed.
    let later = anew.clone().joined_with(&orders("999", u64::MAX));
    assert_eq!(later, anew);
    let before = AppsState {
        director: Blob(vec![1]),
        taken: anew.clone(),
    };
    let back = before.of_before();
    assert!(!back.taken.joined);
    let back = back.taken.joined_with(&orders("2.5", 1));
    assert_eq!(back.apps.apps[&app("acme/x")].highest.to_string(), "2.5");
    assert_eq!(
        back.image.roles["targets"].version, 9,
        "what the older state knows holds, too"
    );
}

#[test]
fn a_state_of_before_applications_reads_as_none() {
    let state: AppsState = serde_json::from_str(r#"{"director":""}"#).unwrap();
    assert_eq!(state, AppsState::default());
    assert!(serde_json::from_str::<AppsState>(r#"{"director":"","more":1}"#).is_err());
}
