//! Answers one question by what policy says now.

use std::sync::Arc;

use edgeward_identity::Clock;
use edgeward_policy::{L7, L7Request, Reason, l7};
use edgeward_wire::ext_authz::check_response::HttpResponse;
use edgeward_wire::ext_authz::envoy::config::core::v3::{
    HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction,
};
use edgeward_wire::ext_authz::envoy::r#type::v3::{HttpStatus, StatusCode};
use edgeward_wire::ext_authz::google::rpc::Status;
use edgeward_wire::ext_authz::{CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse};

use super::question::{Question, Unclear};
use crate::enforce::decide::{Decider, Named, Ruling};
use crate::gateway::party::{Counter, Party};

/// Codes of gRPC.
const OK: i32 = 0;
const PERMISSION_DENIED: i32 = 7;
/// Who calls, as at the gateway.
const SPIFFE_ID: &str = "x-edgeward-spiffe-id";
/// Fields by which a service may take another method or path than was decided upon: as at the gateway.
const OVERRIDES: [&str; 6] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
];

/// What answers rest on.
#[derive(Clone)]
pub struct Desk {
    pub decider: Arc<Decider>,
    pub clock: Arc<dyn Clock>,
    /// Where answers are counted for the records.
    pub counter: Counter,
}

impl Desk {
    pub fn answer(&self, request: &CheckRequest) -> CheckResponse {
        let (answer, response) = match self.decide(request) {
            Ok((question, ruling)) if ruling.allow => ("allowed", allowed(&question)),
            Ok((_, ruling)) => ("denied", denied(ruling.reason)),
            Err(unclear) => {
                tracing::info!(reason = %unclear, "a proxy's question is not clear: denied");
                let picture = self.decider.picture();
                // Of what it says nothing counts: nobody at no interface.
                let nobody = Party {
                    who: None,
                    source: None,
                    at: None,
                };
                let wrong = unclear.as_str();
                self.counter.malformed(&picture, &nobody, wrong);
                ("unclear", denied(unclear.as_str()))
            }
        };
        metrics::counter!("edgeward_ext_authz_total", "answer" => answer).increment(1);
        response
    }

    fn decide(&self, request: &CheckRequest) -> Result<(Question, Ruling), Unclear> {
        let question = Question::read(request)?;
        let picture = self.decider.picture();
        let now = self.clock.boottime();
        let Some(named) = picture.named(&question.service, &question.interface) else {
            let ruling = Ruling {
                allow: false,
                rule: None,
                reason: Reason::UnknownInterface.as_str(),
                until: now,
            };
            let party = question.party(None);
            self.counter.decided(&picture, &party, None, &ruling);
            return Ok((question, ruling));
        };
        let asked = question.asked(&named);
        let ruling = match &asked {
            Asked::Connection => picture.rule_on_named(&question.who, &named, None, now),
            Asked::Request(request) => {
                picture.rule_on_named(&question.who, &named, Some(request), now)
            }
            Asked::Nothing => Ruling {
                allow: false,
                rule: None,
                reason: Reason::NoAction.as_str(),
                until: now,
            },
        };
        let (party, action) = (question.party(Some(&named)), asked.action(&named));
        self.counter.decided(&picture, &party, action, &ruling);
        Ok((question, ruling))
    }
}

/// What a question comes to at one interface.
enum Asked<'a> {
    /// Nothing is told apart within the interface.
    Connection,
    Request(L7Request<'a>),
    /// The interface tells apart what the question does not say: requests of HTTP of which it names none, or those
    /// of another protocol.
    Nothing,
}

impl Question {
    fn party(&self, named: Option<&Named>) -> Party {
        Party {
            who: Some(self.who.clone()),
            source: Some(self.source),
            at: named.map(|named| (Arc::clone(&named.name), named.spot.clone())),
        }
    }

    fn asked<'a>(&'a self, named: &Named) -> Asked<'a> {
        match (&named.l7, &self.http) {
            (None, _) => Asked::Connection,
            (Some(L7::Http(_)), Some(http)) => Asked::Request(L7Request::Http(l7::http::Request {
                method: &http.method,
                path: http.path.decoded(),
            })),
            (Some(_), _) => Asked::Nothing,
        }
    }
}

impl Asked<'_> {
    /// The name of the first action that it fits.
    fn action(&self, named: &Named) -> Option<Arc<str>> {
        let index = match (self, &named.l7) {
            (Self::Connection, _) => 0,
            (Self::Request(request), Some(l7)) => {
                usize::from(l7.actions_of(request).iter().next()?.0)
            }
            _ => return None,
        };
        named.actions.get(index).cloned()
    }
}

fn allowed(question: &Question) -> CheckResponse {
    let identity = HeaderValueOption {
        header: Some(HeaderValue {
            key: SPIFFE_ID.to_owned(),
            value: question.who.id().to_string(),
        }),
        // What the client itself says there is lost.
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
    };
    CheckResponse {
        status: Some(Status {
            code: OK,
            message: String::new(),
        }),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse {
            headers: vec![identity],
            headers_to_remove: OVERRIDES.map(ToOwned::to_owned).to_vec(),
        })),
    }
}

/// The reason is for the proxy's own log: the client learns no more than that it may not.
fn denied(reason: &str) -> CheckResponse {
    CheckResponse {
        status: Some(Status {
            code: PERMISSION_DENIED,
            message: reason.to_owned(),
        }),
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus {
                code: StatusCode::Forbidden.into(),
            }),
        })),
    }
}
