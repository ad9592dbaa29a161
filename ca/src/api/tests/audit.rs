//! Pages with limits in bytes, single events, counts.

use super::*;

const EVENTS: &str = "/api/v1/audit/events";

async fn record(bench: &Bench, kind: EventKind, details: usize) {
    let mut event = Event::new(SystemClock.now(), Actor::Cloud, kind);
    for number in 0..details {
        event = event.detail(&format!("d{number}"), "x".repeat(390));
    }
    bench.api.audit.record(event).await.unwrap();
}

#[tokio::test]
async fn senseless_questions_for_one_event_or_for_counts_are_refused_and_no_reads() {
    let bench = Bench::new().await;
    let who = bench.operator(Role::Auditor).await;
    for (path, status, code) in [
        ("events/x", StatusCode::BAD_REQUEST, "index_malformed"),
        ("events/-1", StatusCode::BAD_REQUEST, "index_malformed"),
        ("events/99999999", StatusCode::NOT_FOUND, "not_found"),
        (
            "events?max_bytes=1023",
            StatusCode::BAD_REQUEST,
            "query_max_bytes",
        ),
        ("events?records=yes", StatusCode::BAD_REQUEST, "query_flag"),
        ("stats?by=detail", StatusCode::BAD_REQUEST, "query_field"),
        ("stats?bucket=1h", StatusCode::BAD_REQUEST, "query_buckets"),
        (
            "stats?cursor=AAAA",
            StatusCode::BAD_REQUEST,
            "query_unknown_parameter",
        ),
    ] {
        let (found, answer) = bench.get(&who, &format!("/api/v1/audit/{path}")).await;
        assert_eq!(
            (found, answer["code"].as_str()),
            (status, Some(code)),
            "{path}"
        );
    }
    assert!(bench.recorded(EventKind::AuditRead).await.is_empty());
}

#[tokio::test]
async fn an_event_that_is_longer_than_the_page_comes_cut_and_paging_goes_on_behind_it() {
    let bench = Bench::new().await;
    let who = bench.operator(Role::Auditor).await;
    for details in [1, 10, 1] {
        record(&bench, EventKind::DenyListRaised, details).await;
    }
    let base = format!("{EVENTS}?type=denylist.raised&max_bytes=2000&records=true");
    let (mut path, mut items) = (base.clone(), Vec::new());
    for _ in 0..10 {
        let (status, page) = bench.get(&who, &path).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        items.extend(page["items"].as_array().unwrap().clone());
        if page["more"] == false {
            break;
        }
        path = format!("{base}&cursor={}", page["cursor"].as_str().unwrap());
    }
    let cut: Vec<bool> = items
        .iter()
        .map(|item| item["truncated"].is_string())
        .collect();
    assert_eq!(cut, [false, true, false]);
    assert!(items[0]["record"].is_string() && items[1]["record"].is_null());
    assert_eq!(items[1]["detail"], json!({}));
    let (status, whole) = bench
        .get(&who, items[1]["truncated"].as_str().unwrap())
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(whole["detail"].as_object().unwrap().len(), 10);
    let record = whole["record"].as_str().unwrap();
    let sealed = edgeward_audit::SealedRecord::parse(record.as_bytes()).unwrap();
    assert_eq!(sealed.hash().to_string(), whole["hash"].as_str().unwrap());
    // That one event was read is an event that names it.
    let reads = bench.recorded(EventKind::AuditRead).await;
    let subject = reads.last().unwrap().subject.clone().unwrap().to_string();
    assert_eq!(subject, format!("audit:{}", whole["index"]));
}

#[tokio::test]
async fn counts_are_given_by_field_and_time_and_the_question_is_an_event() {
    let bench = Bench::new().await;
    let who = bench.operator(Role::Auditor).await;
    for _ in 0..3 {
        record(&bench, EventKind::DenyListRaised, 0).await;
    }
    record(&bench, EventKind::CutOrdered, 0).await;
    let (status, stats) = bench
        .get(
            &who,
            "/api/v1/audit/stats?by=type&top=1&type=denylist.raised",
        )
        .await;
    assert_eq!(status, StatusCode::OK, "{stats}");
    assert_eq!((&stats["total"], &stats["others"]), (&json!(3), &json!(0)));
    assert_eq!(
        stats["values"],
        json!([{"value": "denylist.raised", "count": 3}])
    );
    let (_, stats) = bench
        .get(
            &who,
            "/api/v1/audit/stats?by=family&from=2020-01-01T00:00:00Z&to=2120-01-01T00:00:00Z&bucket=400d",
        )
        .await;
    let buckets = stats["buckets"].as_array().unwrap();
    let sum: u64 = buckets
        .iter()
        .map(|bucket| bucket["values"]["denylist"].as_u64().unwrap_or(0))
        .sum();
    assert_eq!(sum, 3, "{stats}");
    let reads = bench.recorded(EventKind::AuditRead).await;
    assert_eq!(reads.len(), 2);
    let filter = reads[0].detail.get("filter").unwrap();
    assert_eq!(filter, "by=type&top=1&type=denylist.raised");
}
