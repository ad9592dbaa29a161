use edgeward_identity::Purpose;

use super::*;
use crate::api::results::ResultKeys;

#[tokio::test]
async fn whoever_was_shown_a_result_gets_the_keys_to_check_it_and_no_others() {
    let bench = Bench::new().await;
    let nobody = bench.someone(Class::Anonymous).await;
    let (status, answer) = bench.get(&nobody, "/api/v1/results/keys").await;
    assert_eq!(status, StatusCode::OK);
    let keys: ResultKeys = serde_json::from_value(answer).unwrap();
    let now = SystemClock.now();
    let set = bench.api.keys.key_set(now).unwrap();
    let listed: Vec<_> = keys.keys.iter().map(|key| key.key().unwrap()).collect();
    assert_eq!(listed, set.keys_for(Purpose::Results, now));
    assert_eq!(listed.len(), 1);
    assert!(!set.keys_for(Purpose::Control, now).contains(&listed[0]));
}

#[tokio::test]
async fn there_is_no_result_of_a_node_that_there_is_not() {
    let bench = Bench::new().await;
    let reader = bench.someone(Class::Operator(Role::Auditor)).await;
    let (status, answer) = bench.get(&reader, "/api/v1/nodes/gw-9/result").await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (StatusCode::NOT_FOUND, Some("not_found"))
    );
}
