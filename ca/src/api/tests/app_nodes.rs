//! What is told of applications on nodes, and how old it is.

use edgeward_wire::v1;

use super::evidence::fallen;
use super::*;
use crate::apps::AppsSaid;

async fn told(bench: &Bench, li: &Someone) -> serde_json::Value {
    let (status, answer) = bench.get(li, "/api/v1/nodes").await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer["items"][0].clone()
}

/// What was known of it died with the cloud before this one.
#[tokio::test]
async fn a_node_that_this_cloud_has_not_heard_of_is_not_said_to_have_nothing() {
    let bench = Bench::new().await;
    let li = bench.operator(Role::Operator).await;
    fallen(&bench).await;
    let node = told(&bench, &li).await;
    assert_eq!(node["apps"][0]["app"], "acme/collector");
    assert_eq!(node["apps"][0]["version"], "2.1");
    assert_eq!(node["apps"][0]["state"], "unheard");
    assert_eq!(node.get("apps_said"), None);
    assert_eq!(node.get("app_control"), None);

    // An agent that is there and says nothing knows no applications.
    bench.control.connected.lock().push("gw-3".to_owned());
    assert_eq!(told(&bench, &li).await.get("apps"), None);

    let state = v1::AppsState {
        app_control: "launcher".to_owned(),
        apps: vec![v1::AppState {
            app: "acme/collector".to_owned(),
            version: "2.0".to_owned(),
            state: "waiting".to_owned(),
            ..v1::AppState::default()
        }],
        ..v1::AppsState::default()
    };
    let said = AppsSaid::of(state, SystemClock.now()).unwrap();
    let said = [("gw-3".to_owned(), Arc::new(said))].into();
    *bench.control.said.lock() = said;
    // Also when it is away again, and then it is as old as it says.
    bench.control.connected.lock().clear();
    let node = told(&bench, &li).await;
    assert_eq!(node["apps"][0]["version"], "2.0");
    assert_eq!(node["apps"][0]["state"], "waiting");
    assert!(node["apps_said"].is_string(), "{node}");
}
