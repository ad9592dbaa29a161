use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::testing::{TEST_NOW, TurnedClock};
use edgeward_identity::{AttestationState, Tier};
use edgeward_policy::l7::Patterns;
use edgeward_policy::{ActionId, L7};
use edgeward_wire::ext_authz::attribute_context::{HttpRequest, Peer, Request};
use edgeward_wire::ext_authz::authorization_client::AuthorizationClient;
use edgeward_wire::ext_authz::check_response::HttpResponse;
use edgeward_wire::ext_authz::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use edgeward_wire::ext_authz::{AttributeContext, CheckRequest, CheckResponse};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use super::*;
use crate::enforce::decide::{Decider, Picture};
use crate::enforce::posture::{Guard, Posture, Source};
use crate::enforce::testing::{id, parts, rules, slice};
use crate::gateway::party::Counter;

/// A node whose interface `line3/modbus` is one of HTTP: `b` may read, and nobody may write.
struct World {
    decider: Arc<Decider>,
    posture: Arc<Posture>,
    socket: PathBuf,
    _folder: tempfile::TempDir,
    _ends: tokio_util::sync::DropGuard,
}

fn web() -> L7 {
    let action = |action: &str, pattern: &str| Patterns {
        action: action.to_owned(),
        any_of: vec![pattern.parse().unwrap()],
    };
    L7::Http(vec![
        action("read", "GET /status/**"),
        action("write", "POST /config/**"),
    ])
}

impl World {
    fn new(l7: Option<L7>, users: Vec<u32>) -> Self {
        let mut slice = slice();
        slice.interfaces[0].l7 = l7;
        slice.interfaces[0].rows[0].actions = vec![ActionId(0)];
        let mut parts = parts();
        parts.rules = Some(rules(slice));
        let decider = Arc::new(Decider::new(Picture::new(parts)));
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("ext_authz.sock");
        let posture = Arc::<Posture>::default();
        let until_then = Duration::from_secs(4000);
        let clock = TurnedClock::at(TEST_NOW.minus(until_then));
        clock.turn(until_then);
        let desk = Desk {
            decider: Arc::clone(&decider),
            clock: Arc::clone(&clock) as _,
            counter: Counter {
                posture: Arc::clone(&posture),
                clock,
                guard: Guard::ExtAuthz,
            },
        };
        let config = ExtAuthzConfig {
            socket: socket.clone(),
            users,
        };
        let token = CancellationToken::new();
        tokio::spawn(begin(desk, config).unwrap().run(token.clone()));
        Self {
            decider,
            posture,
            socket,
            _folder: folder,
            _ends: token.drop_guard(),
        }
    }

    async fn client(&self) -> AuthorizationClient<Channel> {
        let path = self.socket.clone();
        let connect = tower::service_fn(move |_: http::Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://local").timeout(Duration::from_secs(5));
        AuthorizationClient::new(endpoint.connect_with_connector_lazy(connect))
    }

    async fn ask(&self, request: CheckRequest) -> CheckResponse {
        let mut client = self.client().await;
        client.check(request).await.unwrap().into_inner()
    }

    async fn may(&self, request: CheckRequest) -> Result<(), String> {
        let answer = self.ask(request).await;
        let status = answer.status.unwrap();
        match (status.code, answer.http_response.unwrap()) {
            (0, HttpResponse::OkResponse(_)) => Ok(()),
            (7, HttpResponse::DeniedResponse(denied)) => {
                assert_eq!(denied.status.unwrap().code, 403);
                Err(status.message)
            }
            other => panic!("neither yes nor no: {other:?}"),
        }
    }
}

fn asks(principal: &str, interface: &str, http: Option<(&str, &str)>) -> CheckRequest {
    let names = [("service", "line3"), ("interface", interface)];
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(Peer {
                principal: principal.to_owned(),
                ..Peer::default()
            }),
            request: Some(Request {
                http: http.map(|(method, path)| HttpRequest {
                    method: method.to_owned(),
                    path: path.to_owned(),
                }),
            }),
            context_extensions: names
                .map(|(key, name)| (key.to_owned(), name.to_owned()))
                .into(),
        }),
    }
}

fn own_user() -> Vec<u32> {
    vec![nix::unistd::geteuid().as_raw()]
}

const B: &str = "spiffe://plant.example/node/b";

#[tokio::test]
async fn whoever_is_not_known_to_this_node_is_denied() {
    let world = World::new(Some(web()), own_user());
    let get = Some(("GET", "/status/a"));
    for (principal, reason) in [
        ("", "principal"),
        ("CN=b", "principal"),
        ("spiffe://plant.example/cloud/ca", "principal-kind"),
        ("spiffe://plant.example/node/c", "not-bound"),
        ("spiffe://other.example/node/b", "not-bound"),
        ("spiffe://plant.example/operator/eve", "unknown-subject"),
    ] {
        let denied = world.may(asks(principal, "modbus", get)).await;
        assert_eq!(denied, Err(reason.to_owned()), "{principal}");
    }
}

#[tokio::test]
async fn what_is_not_allowed_or_not_named_is_denied() {
    let world = World::new(Some(web()), own_user());
    for (interface, http, reason) in [
        ("modbus", Some(("POST", "/config/a")), "no-rule"),
        ("modbus", Some(("GET", "/config/a")), "no-action"),
        (
            "modbus",
            Some(("GET", "/status/../config/a")),
            "path-dot-segment",
        ),
        ("modbus", None, "no-action"),
        ("other", Some(("GET", "/status/a")), "unknown-interface"),
        ("", Some(("GET", "/status/a")), "interface"),
    ] {
        let denied = world.may(asks(B, interface, http)).await;
        assert_eq!(denied, Err(reason.to_owned()), "{interface} {http:?}");
    }
}

#[tokio::test]
async fn a_question_of_http_about_another_protocol_is_denied() {
    let fits_all = Patterns {
        action: "read".to_owned(),
        any_of: vec!["fc:1-127".parse().unwrap()],
    };
    let world = World::new(Some(L7::Modbus(vec![fits_all])), own_user());
    for http in [None, Some(("GET", "/status/a"))] {
        assert_eq!(
            world.may(asks(B, "modbus", http)).await,
            Err("no-action".to_owned())
        );
    }
}

#[tokio::test]
async fn who_may_is_let_through_under_a_name_that_is_not_the_clients_own() {
    let world = World::new(Some(web()), own_user());
    let answer = world
        .ask(asks(B, "modbus", Some(("GET", "/status/a?b=c"))))
        .await;
    assert_eq!(answer.status.unwrap().code, 0);
    let Some(HttpResponse::OkResponse(ok)) = answer.http_response else {
        panic!("not let through");
    };
    let [identity] = &ok.headers[..] else {
        panic!("{:?}", ok.headers);
    };
    let header = identity.header.as_ref().unwrap();
    assert_eq!(
        (header.key.as_str(), header.value.as_str()),
        ("x-edgeward-spiffe-id", B)
    );
    assert_eq!(
        identity.append_action(),
        HeaderAppendAction::OverwriteIfExistsOrAdd
    );
    assert!(
        ok.headers_to_remove
            .iter()
            .any(|name| name == "x-http-method-override")
    );
}

#[tokio::test]
async fn an_interface_without_actions_is_asked_about_as_a_whole() {
    let world = World::new(None, own_user());
    for http in [None, Some(("DELETE", "/anything"))] {
        assert_eq!(world.may(asks(B, "modbus", http)).await, Ok(()));
    }
}

#[tokio::test]
async fn a_right_that_is_lost_is_lost_at_the_next_question() {
    let world = World::new(Some(web()), own_user());
    let read = || asks(B, "modbus", Some(("GET", "/status/a")));
    assert_eq!(world.may(read()).await, Ok(()));
    let mut parts = world.decider.picture().parts().clone();
    parts.bound.clear();
    world.decider.replace(Arc::new(Picture::new(parts)));
    assert_eq!(world.may(read()).await, Err("not-bound".to_owned()));
}

#[tokio::test]
async fn answers_are_counted_for_the_records() {
    let world = World::new(Some(web()), own_user());
    for path in ["/status/a", "/status/b"] {
        world
            .may(asks(B, "modbus", Some(("GET", path))))
            .await
            .unwrap();
    }
    world
        .may(asks(B, "modbus", Some(("POST", "/config/a"))))
        .await
        .unwrap_err();
    let rows = world.posture.rows();
    let sums: HashMap<_, _> = rows
        .iter()
        .map(|(row, sum)| ((row.allow, row.action.as_deref()), sum.count))
        .collect();
    let expected = [((true, Some("read")), 2), ((false, Some("write")), 1)];
    assert_eq!(sums, HashMap::from(expected));
    for (row, _) in &rows {
        assert_eq!(row.guard, Guard::ExtAuthz);
        assert_eq!(row.from, Source::Known(id("b")));
        assert_eq!(row.to, id("a"));
        assert_eq!(row.interface.as_deref(), Some("line3/modbus"));
        assert_eq!(row.state, Some(AttestationState::Trusted));
        assert_eq!(row.tier, Some(Tier::Hardware));
    }
}

#[tokio::test]
async fn a_question_that_is_unclear_or_about_nothing_known_is_a_denial_in_the_records_too() {
    let world = World::new(Some(web()), own_user());
    let get = Some(("GET", "/status/a"));
    for request in [asks("", "modbus", get), asks(B, "other", get)] {
        world.may(request).await.unwrap_err();
    }
    let rows = world.posture.rows();
    let mut rows: Vec<_> = rows
        .iter()
        .map(|(row, sum)| {
            let request = row.request.as_deref();
            (&*row.reason, request, &row.from, row.allow, sum.count)
        })
        .collect();
    rows.sort_by_key(|row| row.0);
    let nobody = Source::Stranger(None);
    let b = Source::Known(id("b"));
    let expected = [
        ("malformed", Some("principal"), &nobody, false, 1),
        ("unknown-interface", None, &b, false, 1),
    ];
    assert_eq!(rows, expected);
}

#[tokio::test]
async fn a_user_who_is_not_named_gets_no_answer() {
    let other = own_user()[0].wrapping_add(1);
    let world = World::new(Some(web()), vec![other]);
    let mut client = world.client().await;
    let refused = client
        .check(asks(B, "modbus", Some(("GET", "/status/a"))))
        .await;
    assert!(refused.is_err());
    assert!(world.posture.rows().is_empty());
}

#[tokio::test]
async fn a_question_that_is_too_long_is_not_read() {
    let world = World::new(Some(web()), own_user());
    let long = format!("/status/{}", "a".repeat(socket::MAX_QUESTION_BYTES));
    let mut client = world.client().await;
    let refused = client.check(asks(B, "modbus", Some(("GET", &long)))).await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::OutOfRange);
}

#[tokio::test]
async fn a_socket_that_is_in_use_is_not_taken_over() {
    let world = World::new(Some(web()), own_user());
    assert!(Socket::bind(&world.socket).is_err());
}
