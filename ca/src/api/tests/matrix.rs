//! Every route as every caller, against the running router; and the document against the table.

use std::collections::BTreeSet;

use axum::routing::post;

use super::*;
use crate::access::ROUTES;

/// Codes of the guard's refusals.
const REFUSALS: [&str; 2] = ["unauthenticated", "forbidden"];

fn example_of(path: &str) -> String {
    path.replace("{name}", "nobody")
        .replace("{id}", "nothing")
        .replace("{number}", "9")
}

#[tokio::test]
async fn every_route_admits_exactly_the_callers_of_its_row() {
    let bench = Bench::new().await;
    let mut refused = 0;
    for class in Class::ALL {
        let who = bench.someone(class).await;
        for route in ROUTES.iter().filter(|route| !route.is_grpc()) {
            let method: Method = route.method.parse().unwrap();
            let body = (method == Method::POST).then(|| json!({}));
            let (status, answer) = bench
                .call(&who, method, &example_of(route.path), body)
                .await;
            let code = answer["code"].as_str().unwrap_or("");
            let what = format!(
                "{class:?} {} {}: {status} {answer}",
                route.method, route.path
            );
            if route.admits(class) {
                assert!(!REFUSALS.contains(&code), "{what}");
                assert_ne!(code, "no_such_route", "{what}");
                assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{what}");
                assert!(!status.is_server_error(), "{what}");
            } else {
                refused += 1;
                let expected = match class {
                    Class::Anonymous => (StatusCode::UNAUTHORIZED, "unauthenticated"),
                    _ => (StatusCode::FORBIDDEN, "forbidden"),
                };
                assert_eq!((status, code), expected, "{what}");
            }
        }
    }
    let recorded: usize = bench
        .recorded(EventKind::ApiRefused)
        .await
        .iter()
        .map(|event| {
            event
                .detail
                .get("count")
                .map_or(1, |count| count.parse().unwrap())
        })
        .sum();
    assert_eq!(recorded, refused, "every denial is an event");
}

#[tokio::test]
async fn every_grpc_method_admits_exactly_the_callers_of_its_row() {
    let bench = Bench::new().await;
    // The patterns under which tonic serves.
    let router = Router::new()
        .route(
            "/edgeward.v1.Enrolment/{*method}",
            post(|| async { "reached" }),
        )
        .route(
            "/edgeward.v1.Session/{*method}",
            post(|| async { "reached" }),
        )
        .route("/edgeward.v1.Apps/{*method}", post(|| async { "reached" }))
        .route("/edgeward.v1.Relay/{*method}", post(|| async { "reached" }))
        .route(
            "/edgeward.v1.Workloads/{*method}",
            post(|| async { "reached" }),
        );
    let grpc = bench.api.guard().protect(router);
    let mut callers = Vec::new();
    for class in Class::ALL {
        callers.push((class, bench.someone(class).await));
    }
    let bench = Bench {
        router: grpc,
        ..bench
    };
    for (class, who) in callers {
        for route in ROUTES.iter().filter(|route| route.is_grpc()) {
            let request = Request::post(route.path)
                .header(header::CONTENT_TYPE, "application/grpc")
                .body(Body::empty())
                .unwrap();
            let response = bench.send(&who, request).await;
            let refused = response.headers().contains_key("grpc-status");
            assert_eq!(refused, !route.admits(class), "{class:?} {}", route.path);
        }
        let request = Request::post("/edgeward.v1.Session/Unheard")
            .header(header::CONTENT_TYPE, "application/grpc")
            .body(Body::empty())
            .unwrap();
        let response = bench.send(&who, request).await;
        assert_eq!(response.headers()["grpc-status"], "7", "{class:?}");
    }
}

#[tokio::test]
async fn the_document_the_table_and_the_router_name_the_same_routes() {
    let bench = Bench::new().await;
    let nobody = bench.someone(Class::Anonymous).await;
    let (status, document) = bench.get(&nobody, "/api/openapi.json").await;
    assert_eq!(status, StatusCode::OK);
    let mut documented: BTreeSet<(String, String)> = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            assert!(
                operation["responses"]["default"]["content"]["application/problem+json"]
                    .is_object(),
                "{method} {path} does not document its errors"
            );
            assert!(operation["summary"].is_string(), "{method} {path}");
            documented.insert((method.to_uppercase(), path.clone()));
        }
    }
    // The document does not describe itself.
    documented.insert(("GET".to_owned(), "/api/openapi.json".to_owned()));
    let table: BTreeSet<(String, String)> = ROUTES
        .iter()
        .filter(|route| !route.is_grpc())
        .map(|route| (route.method.to_owned(), route.path.to_owned()))
        .collect();
    assert_eq!(documented, table);
}

#[tokio::test]
async fn a_request_whose_caller_was_not_established_is_refused() {
    let bench = Bench::new().await;
    let request = Request::get("/api/v1/status").body(Body::empty()).unwrap();
    let (status, answer) = read(bench.router.clone().oneshot(request).await.unwrap()).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer["code"], "caller_unknown");
}

#[tokio::test]
async fn a_route_that_is_served_but_not_in_the_table_is_closed() {
    let bench = Bench::new().await;
    let router = Router::new().route("/api/v1/forgotten", axum::routing::get(|| async { "open" }));
    let admin = bench.operator(Role::Admin).await;
    let bench = Bench {
        router: bench.api.guard().protect(router),
        ..bench
    };
    let (status, answer) = bench.get(&admin, "/api/v1/forgotten").await;
    assert_eq!(
        (status, answer["code"].as_str()),
        (StatusCode::FORBIDDEN, Some("route_closed"))
    );
}

#[tokio::test]
async fn unknown_paths_and_methods_get_problem_documents() {
    let bench = Bench::new().await;
    let admin = bench.operator(Role::Admin).await;
    for (method, path, status, code) in [
        (
            Method::GET,
            "/api/v1/nothing",
            StatusCode::NOT_FOUND,
            "no_such_route",
        ),
        (Method::GET, "/", StatusCode::NOT_FOUND, "no_such_route"),
        (
            Method::PUT,
            "/api/v1/nodes",
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
        ),
        (
            Method::OPTIONS,
            "/api/v1/nodes",
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
        ),
    ] {
        let (found, answer) = bench.call(&admin, method, path, None).await;
        assert_eq!(
            (found, answer["code"].as_str()),
            (status, Some(code)),
            "{path}"
        );
        assert_eq!(answer["type"], format!("urn:edgeward:problem:{code}"));
    }
}
