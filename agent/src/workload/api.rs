//! The SPIFFE Workload API. Every message of a stream is everything the caller may have at that moment.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::Arc;

use edgeward_identity::SpiffeId;
use edgeward_identity::jwt::{MAX_AUDIENCE_BYTES, MAX_JWT_BYTES, check_audiences};
use edgeward_wire::spiffe::spiffe_workload_api_server::SpiffeWorkloadApi;
use edgeward_wire::spiffe::{
    JwtBundlesRequest, JwtBundlesResponse, Jwtsvid, JwtsvidRequest, JwtsvidResponse,
    ValidateJwtsvidRequest, ValidateJwtsvidResponse, X509BundlesRequest, X509BundlesResponse,
    X509svid, X509svidRequest, X509svidResponse,
};
use futures::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::authority::NotIssued;
use super::caller::Caller;
use super::claims::to_struct;
use super::desk::{Denied, Desk};
use super::stream::{self, Built, Places};

/// What every request must carry, so that no browser or proxy can be made to ask (Workload API, section 3).
const HEADER: &str = "workload.spiffe.io";

/// The service.
#[derive(Clone)]
pub(super) struct Api {
    desk: Arc<Desk>,
    places: Places,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Api {
    pub(super) fn new(desk: Arc<Desk>, places: Places) -> Self {
        Self { desk, places }
    }

    /// A stream of what `build` makes, as often as something it depends on has changed.
    fn stream<T, F, B>(&self, caller: Arc<Caller>, build: F) -> Result<Response<Answers<T>>, Status>
    where
        T: Clone + PartialEq + Send + 'static,
        F: Fn(Arc<Desk>, Arc<Caller>) -> B + Send + 'static,
        B: Future<Output = Result<Built<T>, Status>> + Send,
    {
        let place = self
            .places
            .take()
            .ok_or_else(|| Status::resource_exhausted("workload_streams"))?;
        let receiver = stream::begin(self.desk.clone(), caller, place, build);
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for Api {
    type FetchX509SVIDStream = Answers<X509svidResponse>;
    type FetchX509BundlesStream = Answers<X509BundlesResponse>;
    type FetchJWTBundlesStream = Answers<JwtBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        let caller = caller_of(&request)?;
        // One record for each certificate that this stream hands out.
        let handed = Arc::new(parking_lot::Mutex::new(BTreeSet::<String>::new()));
        self.stream(caller, move |desk, caller| {
            let handed = handed.clone();
            async move { x509_svids(&desk, &caller, &handed).await }
        })
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        let caller = caller_of(&request)?;
        self.stream(caller, |desk, caller| async move {
            desk.identify(&caller).await.map_err(refusal)?;
            let bundles = HashMap::from([(desk.domain(), x509_bundle(&desk))]);
            Ok(Built::lasting(X509BundlesResponse {
                crl: Vec::new(),
                bundles,
            }))
        })
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        check_audiences(request.audience.iter().map(String::as_str))
            .map_err(|_| Status::invalid_argument("jwt_audience"))?;
        let mut ids = self.desk.identify(&caller).await.map_err(refusal)?;
        if !request.spiffe_id.is_empty() {
            ids.retain(|id| id.to_string() == request.spiffe_id);
            if ids.is_empty() {
                return Err(refusal(self.desk.denied(&caller, Denied::OtherIdentity)));
            }
        }
        let mut svids = Vec::new();
        let mut failed = None;
        for id in ids {
            match self.desk.svids.jwt(&id, &request.audience).await {
                Ok(svid) => svids.push(Jwtsvid {
                    spiffe_id: id.to_string(),
                    svid,
                    hint: String::new(),
                }),
                Err(why) => failed = Some(why),
            }
        }
        match (svids.is_empty(), failed) {
            (true, Some(why)) => Err(not_issued(&why)),
            _ => Ok(Response::new(JwtsvidResponse { svids })),
        }
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        let caller = caller_of(&request)?;
        self.stream(caller, |desk, caller| async move {
            desk.identify(&caller).await.map_err(refusal)?;
            let bundles = HashMap::from([(desk.domain(), desk.jwt_bundle().to_jwks())]);
            Ok(Built::lasting(JwtBundlesResponse { bundles }))
        })
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        if !(1..=MAX_AUDIENCE_BYTES).contains(&request.audience.len()) {
            return Err(Status::invalid_argument("jwt_audience"));
        }
        if request.svid.len() > MAX_JWT_BYTES {
            return Err(Status::invalid_argument("jwt_malformed"));
        }
        self.desk.identify(&caller).await.map_err(refusal)?;
        let now = self.desk.view.clock.now();
        let bundle = self.desk.jwt_bundle();
        let valid =
            edgeward_identity::jwt::validate(&request.svid, &request.audience, &bundle, now)
                .map_err(|why| Status::invalid_argument(why.code()))?;
        Ok(Response::new(ValidateJwtsvidResponse {
            spiffe_id: valid.id().to_string(),
            claims: Some(to_struct(valid.claims())),
        }))
    }
}

async fn x509_svids(
    desk: &Arc<Desk>,
    caller: &Arc<Caller>,
    handed: &parking_lot::Mutex<BTreeSet<String>>,
) -> Result<Built<X509svidResponse>, Status> {
    let ids: Vec<SpiffeId> = desk.identify(caller).await.map_err(refusal)?;
    let bundle = x509_bundle(desk);
    let (mut svids, mut failed, mut again) = (Vec::new(), None, None);
    for id in ids {
        let had = desk.svids.x509(&id).await;
        again = Some(again.map_or(had.again_in, |again: std::time::Duration| {
            again.min(had.again_in)
        }));
        match had.svid {
            Ok(held) => {
                if handed.lock().insert(held.serial.clone()) {
                    desk.served(caller, &held);
                }
                svids.push(X509svid {
                    spiffe_id: id.to_string(),
                    x509_svid: held.chain.clone(),
                    x509_svid_key: held.key.expose().clone(),
                    bundle: bundle.clone(),
                    hint: String::new(),
                });
            }
            Err(why) => failed = Some(why),
        }
    }
    match (svids.is_empty(), failed) {
        (true, Some(why)) => Err(not_issued(&why)),
        _ => Ok(Built {
            message: X509svidResponse {
                svids,
                crl: Vec::new(),
                federated_bundles: HashMap::new(),
            },
            again_in: again,
        }),
    }
}

/// Every root that this node holds, DER one after the other.
fn x509_bundle(desk: &Desk) -> Vec<u8> {
    let trust = desk.view.trust.load();
    let roots = trust.bundle.roots().iter();
    roots.flat_map(|root| root.iter().copied()).collect()
}

/// Who asks; only what carries the header is a request of this API.
fn caller_of<T>(request: &Request<T>) -> Result<Arc<Caller>, Status> {
    let asked = request.metadata().get(HEADER);
    if asked.is_none_or(|value| value.as_bytes() != b"true") {
        return Err(Status::invalid_argument("header_missing"));
    }
    let caller = request.extensions().get::<Arc<Caller>>();
    caller
        .cloned()
        .ok_or_else(|| Status::permission_denied("caller_unknown"))
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err")]
fn refusal(why: Denied) -> Status {
    Status::permission_denied(why.code())
}

/// The process may have the identity, but there is nothing to give: it should ask again.
fn not_issued(why: &NotIssued) -> Status {
    Status::unavailable(why.code())
}
