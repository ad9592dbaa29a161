use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use edgeward_audit::event::{Actor, Event, EventKind};
use edgeward_audit::query::Filter;
use edgeward_audit::record::BootId;
use edgeward_identity::{
    BootTime, Clock, Kind, Signer, SoftwareKey, SpiffeId, SpkiHash, SystemClock, Timestamp,
    TrustDomain, VerifiedPeer,
};
use edgeward_policy::{CompiledPolicy, SliceBreakGlass};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{Api, Control, ControlFault, Parts, Settings};
use crate::access::{Class, Role};
use crate::alerts::desk::Desk;
use crate::api::views::CaView;
use crate::apps::{AppsSaid, Repository};
use crate::audit::AuditLog;
use crate::authorities::Rotate;
use crate::ek::EkTrust;
use crate::hub::director::{AppOrderFault, GoesBack, Revoked, Spread, Whom};
use crate::hub::{Begin, Progress, RolloutFault};
use crate::keys::CloudKeys;
use crate::keys::ledger::NotNow;
use crate::serve::Caller;
use crate::store::director::DeniedRow;
use crate::store::operators::Operator;
use crate::store::policies::PolicyRow;
use crate::store::testing::TestStore;
use edgeward_apps::{AppName, Version};

mod app_nodes;
mod apps;
mod audit;
mod audit_log;
mod evidence;
mod flows;
mod losses;
mod matrix;
mod openings;
mod peers;
mod results;
mod revocations;
mod rollbacks;
mod sites;
mod witness;

use peers::Pki;

/// The API over a fresh store, and one caller of each class.
struct Bench {
    api: Arc<Api>,
    router: Router,
    control: Arc<Recorder>,
    pki: Pki,
    store: TestStore,
    folder: tempfile::TempDir,
}

/// What the routes asked of the rest of the cloud.
#[derive(Default)]
struct Recorder {
    asked: Mutex<Vec<String>>,
    policy: Mutex<Option<Arc<CompiledPolicy>>>,
    glass: Mutex<Option<(SliceBreakGlass, SpkiHash)>>,
    /// What nodes said of their applications.
    said: Mutex<BTreeMap<String, Arc<AppsSaid>>>,
    connected: Mutex<Vec<String>>,
}

/// Somebody who calls.
#[derive(Clone)]
struct Someone {
    peer: Option<Arc<VerifiedPeer>>,
    key: Option<Arc<SoftwareKey>>,
    bearer: Option<String>,
}

#[async_trait]
impl Control for Recorder {
    async fn deny(&self, keys: &[(SpkiHash, Timestamp)], reason: &str) -> Result<(), ControlFault> {
        for (key, _) in keys {
            self.note(format!("deny {key} {reason}"));
        }
        Ok(())
    }

    async fn approve(&self, node: &str, _by: &Actor) -> Result<(), ControlFault> {
        Err(ControlFault::NoSuchNode(node.to_owned()))
    }

    async fn quarantine(&self, node: &str, by: &Actor, why: &str) -> Result<(), ControlFault> {
        self.note(format!("quarantine {node} {by} {why}"));
        Err(ControlFault::NoSuchNode(node.to_owned()))
    }

    async fn release(&self, _node: &str, _by: &Actor) -> Result<(), ControlFault> {
        Err(ControlFault::Status {
            status: "active",
            wanted: "released",
        })
    }

    async fn remove(&self, node: &str, _by: &Actor, _why: &str) -> Result<(), ControlFault> {
        Err(ControlFault::NoSuchNode(node.to_owned()))
    }

    async fn activate(&self, policy: Arc<CompiledPolicy>) -> Result<(), ControlFault> {
        self.note(format!("activate {}", policy.version()));
        Ok(())
    }

    async fn begin_rollout(&self, begin: Begin, by: &Actor) -> Result<(), RolloutFault> {
        self.note(format!("stage {} {by}", begin.policy.version()));
        Ok(())
    }

    async fn rollout(&self) -> Result<Option<Progress>, RolloutFault> {
        Ok(None)
    }

    async fn pause_rollout(&self, _by: &Actor) -> Result<(), RolloutFault> {
        Err(RolloutFault::NotOpen)
    }

    async fn resume_rollout(&self, _by: &Actor) -> Result<(), RolloutFault> {
        Err(RolloutFault::NotOpen)
    }

    async fn abort_rollout(&self, _row: PolicyRow, _by: &Actor) -> Result<(), RolloutFault> {
        Err(RolloutFault::NotOpen)
    }

    async fn revoke_app(&self, row: DeniedRow, by: &Actor) -> Result<(), AppOrderFault> {
        self.note(format!(
            "revoke {} {} {by} {}",
            row.app, row.digest, row.reason
        ));
        Ok(())
    }

    fn spread_of(&self, revoked: &Revoked) -> Spread {
        let named = revoked.releases.iter();
        let named: Vec<String> = named
            .map(|(app, version)| format!("{app}@{version}"))
            .collect();
        self.note(format!("spread {}", named.join(" ")));
        Spread {
            ended: (0..120).map(|number| format!("gw-{number:03}")).collect(),
            told: ["gw-7".to_owned()].into(),
            away: (0..120).map(|number| format!("shop-{number:03}")).collect(),
        }
    }

    async fn order_back(
        &self,
        app: &AppName,
        whom: Whom<'_>,
        by: &Actor,
        reason: &str,
    ) -> Result<Vec<GoesBack>, AppOrderFault> {
        self.note(format!("back {app} {whom:?} {by} {reason}"));
        match whom {
            Whom::Group("none") => Err(AppOrderFault::NoWayBack),
            _ => Ok(vec![GoesBack {
                node: "gw-1".to_owned(),
                app: app.clone(),
                from: "2.1".parse().unwrap(),
                to: "2.0".parse().unwrap(),
            }]),
        }
    }

    async fn director_word(&self, node: &str) -> Result<Option<Vec<u8>>, ControlFault> {
        Ok((node == "gw-1").then(|| vec![1, 2, 3]))
    }

    async fn openings_changed(&self) -> Result<(), ControlFault> {
        self.note("openings".to_owned());
        Ok(())
    }

    async fn break_glass(
        &self,
        node: &SpiffeId,
        name: &str,
    ) -> Result<Option<(SliceBreakGlass, SpkiHash)>, ControlFault> {
        self.note(format!("break-glass {node} {name}"));
        Ok(self.glass.lock().clone())
    }

    async fn authorities(&self) -> Result<CaView, ControlFault> {
        Ok(CaView {
            bundle: 1,
            held_by: 0,
            nodes: 0,
            missing: Vec::new(),
            activates_at: None,
            authorities: Vec::new(),
        })
    }

    async fn rotate(&self, rotate: Rotate, by: &Actor) -> Result<(), ControlFault> {
        self.note(format!("rotate {} {by}", rotate.role.as_str()));
        Err(ControlFault::Authority(NotNow::Nothing))
    }

    async fn rotate_director(&self, by: &Actor) -> Result<(), ControlFault> {
        self.note(format!("rotate director {by}"));
        Err(ControlFault::RootNeeded("put it back".to_owned()))
    }

    async fn taint(&self, key: &str, _by: &Actor) -> Result<(), ControlFault> {
        Err(ControlFault::NoSuchAuthority(key.to_owned()))
    }

    async fn retire(&self, key: &str, force: bool, by: &Actor) -> Result<(), ControlFault> {
        self.note(format!("retire {key} {force} {by}"));
        Err(ControlFault::Relied(vec!["gw-1".to_owned()]))
    }

    fn policy(&self) -> Option<Arc<CompiledPolicy>> {
        self.policy.lock().clone()
    }

    fn apps_of(&self, node: &str) -> Option<Arc<AppsSaid>> {
        self.said.lock().get(node).cloned()
    }

    fn apps_given(&self, node: &str) -> Vec<(AppName, Version)> {
        let collector = ("acme/collector".parse().unwrap(), "2.1".parse().unwrap());
        if node.starts_with("gw-") {
            vec![collector]
        } else {
            Vec::new()
        }
    }

    fn connected(&self) -> Vec<String> {
        self.connected.lock().clone()
    }
}

impl Recorder {
    fn note(&self, what: String) {
        self.asked.lock().push(what);
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }
}

impl Bench {
    async fn new() -> Self {
        Self::witnessing(crate::config::Witness::default()).await
    }

    /// One whose configuration names logs of others.
    async fn witnessing(config: crate::config::Witness) -> Self {
        let store = TestStore::sqlite().await;
        let folder = tempfile::tempdir().unwrap();
        let now = SystemClock.now();
        let keys = CloudKeys::create(folder.path(), &domain(), now, |_| Ok(())).unwrap();
        let keeper = SpiffeId::new(&domain(), Kind::Cloud, "c").unwrap();
        let (audit, writer) =
            AuditLog::open((*store).clone(), keeper, BootId::from_bytes([1; 16]), now)
                .await
                .unwrap();
        tokio::spawn(writer.run(CancellationToken::new()));
        let control = Arc::new(Recorder::default());
        let settings = Settings {
            advertise: vec!["cloud.plant.example:7443".to_owned()],
            token_ttl: std::time::Duration::from_secs(3600),
            token_uses: 1,
            approval: false,
            exports: Vec::new(),
            retention: crate::config::retention::Retention::default(),
        };
        let ek = EkTrust::load(&folder.path().join("ek-roots"), (*store).clone())
            .await
            .unwrap();
        let alerts_config = crate::config::Alerts {
            rules: None,
            defaults: true,
            quarantine: true,
            quarantine_per_hour: None,
            sinks: Vec::new(),
        };
        let (audit, keys) = (Arc::new(audit), Arc::new(keys));
        let apps = Repository::open(crate::apps::Parts {
            store: (*store).clone(),
            audit: audit.clone(),
            clock: Arc::new(SystemClock),
            keys: keys.clone(),
            config: crate::config::Apps {
                folder: folder.path().join("apps"),
                max_bytes: 8_000_000,
                publisher_bytes: 4_000_000,
                timestamp_ttl: std::time::Duration::from_secs(86_400),
                bytes_per_second: 1_000_000,
            },
        })
        .await
        .unwrap();
        let alerts = Desk::new(crate::alerts::desk::Parts {
            store: (*store).clone(),
            audit: audit.clone(),
            clock: Arc::new(SystemClock),
            config: alerts_config.clone(),
            rules: crate::alerts::load(&alerts_config).unwrap(),
        });
        let witness = crate::witness::Witnessing::open(&crate::witness::Parts {
            store: (*store).clone(),
            audit: audit.clone(),
            clock: Arc::new(SystemClock),
            keys: keys.clone(),
            config,
        })
        .await
        .unwrap();
        let api = Api::new(Parts {
            alerts,
            witness,
            store: (*store).clone(),
            audit,
            clock: Arc::new(SystemClock),
            keys,
            control: control.clone(),
            ek,
            apps,
            settings,
        })
        .await
        .unwrap();
        Self {
            router: api.router(),
            api,
            control,
            pki: Pki::new(),
            store,
            folder,
        }
    }

    /// Somebody of this class; operators and API keys are put into the store.
    async fn someone(&self, class: Class) -> Someone {
        let nobody = Someone {
            peer: None,
            key: None,
            bearer: None,
        };
        match class {
            Class::Anonymous => nobody,
            Class::Node => self.pki.someone(Kind::Node, "n"),
            Class::Device => self.pki.someone(Kind::Device, "d"),
            Class::Workload => self.pki.someone(Kind::Workload, "w/x"),
            Class::Cloud => self.pki.someone(Kind::Cloud, "other"),
            Class::Operator(role) => self.operator(role).await,
            Class::ApiKey(role) => {
                let admin = self
                    .operator_named(&format!("maker-of-{role}"), Role::Admin)
                    .await;
                let request = json!({"name": format!("key-{role}"), "role": role});
                let (status, created) = self.post(&admin, "/api/v1/apikeys", request).await;
                assert_eq!(status, StatusCode::CREATED, "{created}");
                Someone {
                    bearer: Some(created["key"].as_str().unwrap().to_owned()),
                    ..nobody
                }
            }
        }
    }

    async fn operator(&self, role: Role) -> Someone {
        self.operator_named(role.as_str(), role).await
    }

    async fn operator_named(&self, name: &str, role: Role) -> Someone {
        let someone = self.pki.someone(Kind::Operator, name);
        let now = SystemClock.now();
        let operator = Operator {
            name: name.to_owned(),
            role,
            key: *someone.key.as_ref().unwrap().public_key(),
            expires: now.plus(std::time::Duration::from_secs(600)),
            added: now,
            added_by: "cloud".to_owned(),
            revoked: None,
            revoked_by: None,
        };
        let mut tx = self.store.begin("test").await.unwrap();
        tx.add_operator(&operator).await.unwrap();
        tx.commit().await.unwrap();
        someone
    }

    async fn send(&self, who: &Someone, request: Request<Body>) -> axum::response::Response {
        let mut request = request;
        request.extensions_mut().insert(who.caller());
        if let Some(bearer) = &who.bearer {
            let value = format!("Bearer {bearer}").parse().unwrap();
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn call(
        &self,
        who: &Someone,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(path);
        let request = match body {
            Some(body) => request
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(body.to_string())),
            None => request.body(Body::empty()),
        };
        read(self.send(who, request.unwrap()).await).await
    }

    async fn get(&self, who: &Someone, path: &str) -> (StatusCode, Value) {
        self.call(who, Method::GET, path, None).await
    }

    async fn post(&self, who: &Someone, path: &str, body: Value) -> (StatusCode, Value) {
        self.call(who, Method::POST, path, Some(body)).await
    }

    async fn delete(&self, who: &Someone, path: &str) -> (StatusCode, Value) {
        self.call(who, Method::DELETE, path, None).await
    }

    /// All events of a kind, after everything queued was written.
    async fn recorded(&self, kind: EventKind) -> Vec<Event> {
        self.api.audit.flush().await;
        let (events, _) = self
            .store
            .events(&Filter::default(), None, 1000)
            .await
            .unwrap();
        events
            .into_iter()
            .map(|stored| stored.event)
            .filter(|event| event.kind == kind)
            .collect()
    }
}

impl Someone {
    fn caller(&self) -> Caller {
        Caller {
            peer: self.peer.clone(),
            exporter: [0; 32],
            remote: SocketAddr::from(([192, 0, 2, 9], 40_000)),
            accepted: BootTime::default(),
            ended: CancellationToken::new(),
        }
    }

    fn sign(&self, message: &[u8]) -> String {
        hex::encode(self.key.as_ref().unwrap().sign(message).unwrap())
    }
}

fn domain() -> TrustDomain {
    TrustDomain::new("plant.example").unwrap()
}

async fn read(response: axum::response::Response) -> (StatusCode, Value) {
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}
