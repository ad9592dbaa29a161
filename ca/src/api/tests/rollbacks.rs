//! Going back to earlier policies, and stages that cannot begin.

use super::*;
use crate::api::views::PolicyApply;

const POLICY: &str = "schema = \"edgeward-policy/1\"\nowner = \"web\"\nscope = \"any\"\n[group.servers]\nmatch = { role = [\"server\"] }\n\
    [group.clients]\nmatch = { role = [\"client\"] }\n[service.web]\non = \"servers\"\n[service.web.interface.http]\nnet = \"mesh\"\nl4 = \"tcp/80\"\n\
    [[rule]]\nid = \"read\"\neffect = \"allow\"\nfrom = [\"group:clients\"]\nto = [\"web/http\"]\ndo = [\"connect\"]\n";

fn signature(who: &Someone, number: u64, hash: &str) -> String {
    who.sign(&PolicyApply::message(&domain(), number, hash))
}

/// Applies policies 1 and 2; the hash of the first.
async fn two_policies(bench: &Bench, who: &Someone) -> String {
    let mut first = String::new();
    for (number, text) in [(1, POLICY.to_owned()), (2, format!("# another\n{POLICY}"))] {
        let files = json!([{"path": "a.toml", "text": text}]);
        let (_, report) = bench
            .post(who, "/api/v1/policies/check", json!({"files": files}))
            .await;
        assert_eq!(report["ok"], true, "{report}");
        let hash = report["hash"].as_str().unwrap();
        let request =
            json!({"files": files, "number": number, "signature": signature(who, number, hash)});
        let (status, answer) = bench.post(who, "/api/v1/policies", request).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        if number == 1 {
            hash.clone_into(&mut first);
        }
    }
    first
}

#[tokio::test]
async fn nothing_goes_back_without_the_callers_signature_under_the_next_number() {
    let bench = Bench::new().await;
    let who = bench.operator(Role::Operator).await;
    let other = bench.operator(Role::Admin).await;
    let hash = two_policies(&bench, &who).await;
    let ask = |to: u64, number: u64, signature: String| json!({"to": to, "number": number, "signature": signature});
    for (request, status, code) in [
        (
            ask(1, 3, signature(&other, 3, &hash)),
            StatusCode::BAD_REQUEST,
            "policy_signature",
        ),
        (
            ask(1, 3, signature(&who, 1, &hash)),
            StatusCode::BAD_REQUEST,
            "policy_signature",
        ),
        (
            ask(2, 3, signature(&who, 3, &hash)),
            StatusCode::BAD_REQUEST,
            "policy_signature",
        ),
        (
            ask(1, 1, signature(&who, 1, &hash)),
            StatusCode::CONFLICT,
            "policy_number",
        ),
        (
            ask(9, 3, signature(&who, 3, &hash)),
            StatusCode::NOT_FOUND,
            "not_found",
        ),
    ] {
        let answer = bench.post(&who, "/api/v1/policies/rollback", request).await;
        assert_eq!(
            (answer.0, answer.1["code"].as_str()),
            (status, Some(code)),
            "{}",
            answer.1
        );
    }
    assert_eq!(bench.store.policy_number().await.unwrap(), 2);
    assert_eq!(bench.control.asked(), ["activate 1", "activate 2"]);
}

#[tokio::test]
async fn an_earlier_policy_comes_back_under_a_higher_number_and_history_says_so() {
    let bench = Bench::new().await;
    let who = bench.operator(Role::Operator).await;
    let hash = two_policies(&bench, &who).await;
    let request = json!({"to": 1, "number": 3, "signature": signature(&who, 3, &hash)});
    let (status, answer) = bench.post(&who, "/api/v1/policies/rollback", request).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    assert_eq!(bench.control.asked().last().unwrap(), "activate 3");
    let (_, current) = bench.get(&who, "/api/v1/policies/current").await;
    assert_eq!(
        (
            &current["number"],
            &current["returned_to"],
            &current["hash"]
        ),
        (&json!(3), &json!(1), &json!(hash))
    );
    assert_eq!(current["files"][0]["text"], POLICY);
    let events = bench.recorded(EventKind::PolicyApplied).await;
    assert_eq!(events.last().unwrap().detail.get("returned_to"), Some("1"));
}

#[tokio::test]
async fn a_stage_without_a_plan_or_over_nothing_is_refused_and_nothing_is_stored() {
    let bench = Bench::new().await;
    let who = bench.operator(Role::Operator).await;
    let files = json!([{"path": "a.toml", "text": POLICY}]);
    let (_, report) = bench
        .post(&who, "/api/v1/policies/check", json!({"files": files}))
        .await;
    let signature = signature(&who, 1, report["hash"].as_str().unwrap());
    for (percent, hold, status, code) in [
        (
            json!([10, 50]),
            300,
            StatusCode::BAD_REQUEST,
            "policy_stage_plan",
        ),
        (
            json!([0, 100]),
            300,
            StatusCode::BAD_REQUEST,
            "policy_stage_plan",
        ),
        (
            json!([10, 100]),
            1,
            StatusCode::BAD_REQUEST,
            "policy_stage_plan",
        ),
        (
            json!([10, 100]),
            300,
            StatusCode::CONFLICT,
            "policy_no_base",
        ),
    ] {
        let stage = json!({"percent": percent, "hold_seconds": hold});
        let request = json!({"files": files, "number": 1, "signature": signature, "stage": stage});
        let answer = bench.post(&who, "/api/v1/policies", request).await;
        assert_eq!(
            (answer.0, answer.1["code"].as_str()),
            (status, Some(code)),
            "{}",
            answer.1
        );
    }
    assert_eq!(bench.store.policy_number().await.unwrap(), 0);
    assert!(bench.control.asked().is_empty());
}
