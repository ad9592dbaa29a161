//! The cloud itself: its start, its policy, its operators' acts, and what it has written down.

use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::tls::{
    Credentials, EVIDENCE_EXPORTER_LABEL, PeerVerifier, PinnedVerifier, anonymous_client, client,
};
use edgeward_identity::{Clock, Kind, Svid, SystemClock};
use edgeward_policy::{CompiledPolicy, Labels, SourceFile};
use edgeward_runtime::readiness::Readiness;
use edgeward_runtime::shutdown::Tasks;
use edgeward_wire::limits::ALPN_H2;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use sqlx::Row;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Channel, Endpoint};

use super::{Machine, SECRET, domain};
use crate::api::Control;
use crate::config::Config;
use crate::cut::NodeControl;
use crate::hub::Hub;
use crate::store::tokens::TokenRow;

pub(crate) struct Cloud {
    pub(crate) hub: Arc<Hub>,
    pub(crate) config: Arc<Config>,
    stop: CancellationToken,
    _ends: DropGuard,
    running: tokio::task::JoinHandle<()>,
    folder: tempfile::TempDir,
}

impl Cloud {
    /// A cloud that lists the EKs of these machines.
    pub(crate) async fn start(machines: &[&Machine]) -> Self {
        Self::start_with(machines, "").await
    }

    /// As [`Cloud::start`], with more lines of configuration.
    pub(crate) async fn start_with(machines: &[&Machine], more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listed: Vec<String> = machines
            .iter()
            .map(|machine| machine.tpm.ek_public().digest().to_string())
            .collect();
        let roots = folder.path().join("data/ek-roots");
        std::fs::create_dir_all(&roots).unwrap();
        std::fs::write(roots.join("listed.txt"), listed.join("\n")).unwrap();
        let text = format!(
            "trust_domain = \"plant.example\"\nlisten = \"127.0.0.1:1\"\ndata_dir = {:?}\n{more}",
            folder.path().join("data")
        );
        std::fs::write(folder.path().join("edgeward.toml"), text).unwrap();
        Self::open(folder).await
    }

    async fn open(folder: tempfile::TempDir) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let path = folder.path().join("edgeward.toml");
        let mut config = Config::load_with(&path, std::iter::empty()).unwrap();
        config.listen = listener.local_addr().unwrap();
        config.stun = Some("127.0.0.1:0".parse().unwrap());
        let config = Arc::new(config);
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new(stop.clone());
        let hub = crate::run::start(
            config.clone(),
            listener,
            Arc::new(SystemClock),
            &Readiness::new(),
            &mut tasks,
        )
        .await
        .unwrap();
        let running = tokio::spawn(async move { tasks.run().await.unwrap() });
        Self {
            hub,
            config,
            _ends: stop.clone().drop_guard(),
            stop,
            running,
            folder,
        }
    }

    /// Ends it well and starts it again on what it left.
    pub(crate) async fn restart(self) -> Self {
        self.stop.cancel();
        self.running.await.unwrap();
        drop(self.hub);
        Self::open(self.folder).await
    }

    pub(crate) fn control(&self) -> NodeControl {
        NodeControl::new(self.hub.clone())
    }

    /// A token for one use, changed as wanted; its id is `t1` unless changed.
    pub(crate) async fn token(&self, change: impl FnOnce(&mut TokenRow)) -> String {
        use ring::digest::{SHA256, digest};
        let now = SystemClock.now();
        let mut token = TokenRow {
            id: "t1".to_owned(),
            secret_hash: hex::encode(digest(&SHA256, SECRET)),
            created: now,
            created_by: "cloud".to_owned(),
            expires: now.plus(Duration::from_secs(7200)),
            uses: 1,
            used: 0,
            labels: Labels::from([("role".to_owned(), "gateway".to_owned())]),
            name: None,
            ek: None,
            approval: false,
            revoked: None,
            revoked_by: None,
        };
        change(&mut token);
        let mut tx = self.hub.store.begin("test").await.unwrap();
        tx.insert_token(&token).await.unwrap();
        tx.commit().await.unwrap();
        token.id
    }

    /// Puts a policy in force whose one profile for gateways is what this machine measures now.
    pub(crate) fn profile_of(&self, machine: &Machine) {
        let value = hex::encode(machine.tpm.pcrs[7]);
        self.policy(
            1,
            &format!(
                "tier = [\"listed\"]\npcr_bank = \"sha256\"\npcr = {{ 7 = [\"sha256:{value}\"] }}\n"
            ),
        );
    }

    /// Puts a policy in force with one profile for gateways, and everybody among them reaching everybody's `ssh`.
    pub(crate) fn policy(&self, number: u64, profile: &str) {
        self.policy_with(number, profile, &[]);
    }

    /// The same with files beside it.
    pub(crate) fn policy_with(&self, number: u64, profile: &str, beside: &[SourceFile]) {
        let subjects = match profile.contains("software") {
            true => "tier = [\"software\"]\nstate = [\"none\"]\n",
            false => "",
        };
        let text = format!(
            "schema = \"edgeward-policy/1\"\nowner = \"test\"\nscope = \"any\"\n[profile.gateway]\n{profile}\n\
             [group.gateways]\nmatch = {{ role = [\"gateway\"] }}\nprofile = \"gateway\"\n\
             [service.shell]\non = \"gateways\"\n[service.shell.interface.ssh]\nnet = \"mesh\"\nl4 = \"tcp/22\"\n\
             [[rule]]\nid = \"all\"\neffect = \"allow\"\nfrom = [\"group:gateways\"]\nto = [\"shell/ssh\"]\ndo = [\"connect\"]\n{subjects}"
        );
        let mut files = vec![SourceFile::new("test.toml".to_owned(), text)];
        files.extend_from_slice(beside);
        let policy = CompiledPolicy::compile(&files, number)
            .unwrap_or_else(|report| panic!("{:?}", report.diagnostics));
        self.hub.set_policy(Arc::new(policy));
    }

    /// Asks a node for evidence at once.
    pub(crate) fn hasten(&self, name: &str) {
        self.hub.hasten_those(|known| known == name);
    }

    /// Type and record of every event so far, oldest first.
    pub(crate) async fn events(&self) -> Vec<(String, String)> {
        self.hub.audit.flush().await;
        let all = self.hub.store.all_events().await;
        all.into_iter()
            .map(|stored| (stored.event.kind.name().to_owned(), stored.record))
            .collect()
    }

    /// Whether an event of this type with this code was recorded.
    pub(crate) async fn recorded(&self, kind: &str, code: &str) -> bool {
        let code = format!("\"code\":\"{code}\"");
        self.events()
            .await
            .iter()
            .any(|(found, record)| found == kind && record.contains(&code))
    }

    /// Everything that an attempt could change, to be compared before and after.
    pub(crate) async fn state(&self) -> Vec<String> {
        let mut state = Vec::new();
        for sql in [
            "SELECT id || ' ' || used AS row FROM tokens ORDER BY id",
            "SELECT token || ' ' || root AS row FROM token_uses ORDER BY token, root",
            "SELECT name || ' ' || status || ' ' || root AS row FROM nodes ORDER BY name",
            "SELECT serial || ' ' || acknowledged AS row FROM svids ORDER BY serial",
            "SELECT node || ' ' || state || ' ' || changed AS row FROM attestations ORDER BY node",
            "SELECT key_hash || ' ' || reason AS row FROM denied ORDER BY key_hash",
            "SELECT serial || ' ' || approved AS row FROM recoveries ORDER BY serial",
            "SELECT node || ' ' || approved AS row FROM recovery_waits ORDER BY node",
            "SELECT name || ' ' || value AS row FROM facts ORDER BY name",
        ] {
            let rows = sqlx::query(sql)
                .fetch_all(&mut *self.hub.store.read().await.unwrap())
                .await
                .unwrap();
            state.extend(rows.iter().map(|row| row.get::<String, _>("row")));
        }
        state
    }

    pub(crate) async fn connect(&self, svid: Option<&Svid>) -> (Channel, [u8; 32]) {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let config = match svid {
            None => anonymous_client(
                PinnedVerifier::new(self.hub.keys.root_pin(), domain(), clock),
                &[ALPN_H2],
            ),
            Some(svid) => client(
                Credentials::new(svid),
                PeerVerifier::mandatory(self.hub.trust.clone(), clock, &[Kind::Cloud]),
                &[ALPN_H2],
            ),
        };
        let exporter = Arc::new(Mutex::new([0; 32]));
        let (connector, taken) = (TlsConnector::from(Arc::new(config)), exporter.clone());
        let address = self.config.listen;
        let channel = Endpoint::from_static("http://cloud")
            .connect_with_connector(tower::service_fn(move |_| {
                let (connector, taken) = (connector.clone(), taken.clone());
                async move {
                    let stream = TcpStream::connect(address).await?;
                    let name = ServerName::try_from("cloud").unwrap();
                    let stream = connector.connect(name, stream).await?;
                    *taken.lock() = stream
                        .get_ref()
                        .1
                        .export_keying_material([0; 32], EVIDENCE_EXPORTER_LABEL, None)
                        .unwrap();
                    Ok::<_, std::io::Error>(TokioIo::new(stream))
                }
            }))
            .await
            .unwrap();
        let exporter = *exporter.lock();
        (channel, exporter)
    }
}

/// Operators' acts, without naming the trait everywhere.
impl Cloud {
    pub(crate) async fn quarantine(&self, name: &str) {
        let by = edgeward_audit::Actor::Cloud;
        self.control().quarantine(name, &by, "test").await.unwrap();
    }

    pub(crate) async fn release(&self, name: &str) {
        let by = edgeward_audit::Actor::Cloud;
        self.control().release(name, &by).await.unwrap();
    }

    pub(crate) async fn remove(&self, name: &str) {
        let by = edgeward_audit::Actor::Cloud;
        self.control().remove(name, &by, "test").await.unwrap();
    }

    pub(crate) async fn approve(&self, name: &str) {
        let by = edgeward_audit::Actor::Cloud;
        self.control().approve(name, &by).await.unwrap();
    }
}
