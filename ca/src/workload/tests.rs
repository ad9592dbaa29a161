use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::jwt::{JwtBundle, validate};
use edgeward_identity::{AttestationState, Purpose, Signer, SoftwareKey, SpiffeId, Svid, SvidLeaf};
use edgeward_policy::{CompiledPolicy, SourceFile};
use edgeward_wire::v1;
use edgeward_wire::v1::session_client::SessionClient;
use edgeward_wire::v1::workloads_client::WorkloadsClient;
use edgeward_wire::workload::possession;
use rustls_pki_types::CertificateDer;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::BURST;
use crate::testing::{Cloud, Machine, domain, eventually, now};

const COLLECTOR: &str = "spiffe://plant.example/workload/collector";

/// A cloud with one enrolled machine `a`, which the policy lets have workload `collector`.
async fn one() -> (Cloud, Machine, WorkloadsClient<Channel>) {
    let mut machine = Machine::new();
    let cloud = Cloud::start(&[&machine]).await;
    register(&cloud, &machine, 1, "ttl = \"10m\"");
    cloud.token(|_| ()).await;
    cloud.enrol(&mut machine, "t1", "a").await.unwrap();
    let (channel, _) = cloud.connect(Some(&machine.svid())).await;
    (cloud, machine, WorkloadsClient::new(channel))
}

fn register(cloud: &Cloud, machine: &Machine, number: u64, more: &str) {
    let text = format!(
        "schema = \"edgeward-policy/1\"\nowner = \"test\"\nscope = \"any\"\n\
         [profile.gateway]\ntier = [\"listed\"]\npcr = {{ 7 = [\"sha256:{}\"] }}\n\
         [group.gateways]\nmatch = {{ role = [\"gateway\"] }}\nprofile = \"gateway\"\n\
         [group.others]\nmatch = {{ role = [\"other\"] }}\n\
         [workload.collector]\non = \"gateways\"\nmatch = {{ uid = 990 }}\n{more}\n\
         [workload.elsewhere]\non = \"others\"\nmatch = {{ uid = 991 }}\n",
        hex::encode(machine.tpm.pcrs[7])
    );
    let files = [SourceFile::new("test.toml".to_owned(), text)];
    let policy = CompiledPolicy::compile(&files, number)
        .unwrap_or_else(|report| panic!("{:?}", report.diagnostics));
    cloud.hub.set_policy(Arc::new(policy));
}

fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

fn request(name: &str, key: &SoftwareKey) -> v1::WorkloadX509Request {
    let signed = possession(&id(name), key.public_key());
    v1::WorkloadX509Request {
        spiffe_id: name.to_owned(),
        public_key: key.public_key().point().to_vec(),
        possession: key.sign(&signed).unwrap(),
    }
}

fn for_jwt(name: &str, audience: &[&str]) -> v1::WorkloadJwtRequest {
    v1::WorkloadJwtRequest {
        spiffe_id: name.to_owned(),
        audience: audience.iter().map(|&one| one.to_owned()).collect(),
    }
}

fn refused<T: std::fmt::Debug>(answer: Result<tonic::Response<T>, Status>, code: Code, why: &str) {
    let status = answer.unwrap_err();
    assert_eq!((status.code(), status.message()), (code, why));
}

#[tokio::test]
async fn a_workload_that_the_policy_does_not_name_on_the_node_gets_nothing() {
    let (cloud, _machine, mut client) = one().await;
    let key = SoftwareKey::generate().unwrap();
    for name in ["elsewhere", "unknown", "collector/more"] {
        let name = format!("spiffe://plant.example/workload/{name}");
        let answer = client.issue_x509(request(&name, &key)).await;
        refused(answer, Code::PermissionDenied, "workload_not_registered");
        let answer = client.issue_jwt(for_jwt(&name, &["x"])).await;
        refused(answer, Code::PermissionDenied, "workload_not_registered");
    }
    eventually(|| cloud.recorded("workload.refused", "workload_not_registered")).await;
}

#[tokio::test]
async fn no_identity_but_a_workloads_is_issued() {
    let (_cloud, _machine, mut client) = one().await;
    let key = SoftwareKey::generate().unwrap();
    for name in [
        "spiffe://plant.example/node/a",
        "spiffe://plant.example/node/b",
        "spiffe://plant.example/operator/admin",
        "spiffe://plant.example/cloud/c",
        "spiffe://other.example/workload/collector",
    ] {
        let answer = client.issue_x509(request(name, &key)).await;
        refused(answer, Code::InvalidArgument, "workload_identity");
        let answer = client.issue_jwt(for_jwt(name, &["x"])).await;
        refused(answer, Code::InvalidArgument, "workload_identity");
    }
    let malformed = v1::WorkloadX509Request {
        spiffe_id: "collector".to_owned(),
        ..request(COLLECTOR, &key)
    };
    let answer = client.issue_x509(malformed).await;
    refused(answer, Code::InvalidArgument, "workload_identity");
}

#[tokio::test]
async fn a_key_whose_holder_did_not_sign_for_this_workload_is_refused() {
    let (_cloud, _machine, mut client) = one().await;
    let (key, other) = (
        SoftwareKey::generate().unwrap(),
        SoftwareKey::generate().unwrap(),
    );
    let good = request(COLLECTOR, &key);
    let stolen = v1::WorkloadX509Request {
        public_key: other.public_key().point().to_vec(),
        ..good.clone()
    };
    let elsewhere = v1::WorkloadX509Request {
        possession: request("spiffe://plant.example/workload/elsewhere", &key).possession,
        ..good.clone()
    };
    for bad in [stolen, elsewhere] {
        let answer = client.issue_x509(bad).await;
        refused(answer, Code::InvalidArgument, "workload_possession");
    }
    let short = v1::WorkloadX509Request {
        public_key: vec![4; 64],
        ..good
    };
    let answer = client.issue_x509(short).await;
    refused(answer, Code::InvalidArgument, "workload_key");
}

#[tokio::test]
async fn a_node_that_is_not_trusted_now_gets_nothing_for_its_workloads() {
    let (cloud, _machine, mut client) = one().await;
    let key = SoftwareKey::generate().unwrap();
    for state in [
        AttestationState::Stale,
        AttestationState::Failed,
        AttestationState::None,
        AttestationState::Vouched,
    ] {
        cloud
            .hub
            .update_member("a", |member| member.standing.state = state);
        let answer = client.issue_x509(request(COLLECTOR, &key)).await;
        refused(answer, Code::PermissionDenied, "node_not_trusted");
        let answer = client.issue_jwt(for_jwt(COLLECTOR, &["x"])).await;
        refused(answer, Code::PermissionDenied, "node_not_trusted");
    }
    cloud.hub.update_member("a", |member| {
        member.standing.state = AttestationState::Trusted;
        member.keys.clear();
    });
    let answer = client.issue_x509(request(COLLECTOR, &key)).await;
    refused(answer, Code::PermissionDenied, "svid_unknown");
}

#[tokio::test]
async fn a_node_that_was_quarantined_gets_nothing_for_its_workloads() {
    let (cloud, machine, mut client) = one().await;
    let key = SoftwareKey::generate().unwrap();
    client.issue_x509(request(COLLECTOR, &key)).await.unwrap();
    cloud.quarantine("a").await;
    // The connection ends with the quarantine, and no other opens.
    assert!(client.issue_x509(request(COLLECTOR, &key)).await.is_err());
    let member = cloud.hub.member("a").unwrap();
    assert!(!member.is_active());
    drop(machine);
}

#[tokio::test]
async fn a_node_that_asks_without_end_is_stopped() {
    let (_cloud, _machine, mut client) = one().await;
    let mut stopped = false;
    for _ in 0..BURST * 2 {
        let answer = client
            .issue_jwt(for_jwt("spiffe://plant.example/workload/x", &["x"]))
            .await;
        let status = answer.unwrap_err();
        if status.message() == "workload_rate" {
            assert_eq!(status.code(), Code::ResourceExhausted);
            stopped = true;
            break;
        }
    }
    assert!(stopped);
}

#[tokio::test]
async fn a_token_needs_an_audience() {
    let (_cloud, _machine, mut client) = one().await;
    for audience in [&[][..], &[""], &["a"; 17]] {
        let answer = client.issue_jwt(for_jwt(COLLECTOR, audience)).await;
        refused(answer, Code::InvalidArgument, "workload_audience");
    }
}

#[tokio::test]
async fn a_certificate_says_the_workload_and_lives_as_its_registration_says() {
    let (cloud, machine, mut client) = one().await;
    let key = SoftwareKey::generate().unwrap();
    let issued = client.issue_x509(request(COLLECTOR, &key)).await.unwrap();
    let chain = issued.into_inner().svid_chain;
    let leaf = SvidLeaf::parse(&chain[0]).unwrap();
    assert_eq!(leaf.id, id(COLLECTOR));
    assert_eq!(leaf.key, *key.public_key());
    assert!(leaf.not_after <= now().plus(Duration::from_secs(600)));
    assert!(leaf.not_after > now().plus(Duration::from_secs(540)));
    assert!(leaf.not_after <= machine.svid().leaf().not_after);
    let events = cloud.events().await;
    let (_, record) = events
        .iter()
        .find(|(kind, _)| kind == "workload.issued")
        .expect("recorded before it was given");
    assert!(record.contains(&leaf.serial), "{record}");
    assert!(
        record.contains(COLLECTOR) && record.contains("/node/a"),
        "{record}"
    );
}

#[tokio::test]
async fn a_token_is_good_for_its_audience_and_named_in_the_record() {
    let (cloud, _machine, mut client) = one().await;
    let issued = client
        .issue_jwt(for_jwt(COLLECTOR, &["historian"]))
        .await
        .unwrap();
    let token = issued.into_inner().token;
    let set = cloud.hub.keys.key_set(now()).unwrap();
    let bundle = JwtBundle::new(domain(), set.keys_for(Purpose::Jwt, now()));
    assert!(validate(&token, "other", &bundle, now()).is_err());
    let valid = validate(&token, "historian", &bundle, now()).unwrap();
    assert_eq!(*valid.id(), id(COLLECTOR));
    let lifetime =
        valid.claims()["exp"].as_u64().unwrap() - valid.claims()["iat"].as_u64().unwrap();
    assert_eq!(lifetime, 300);
    let late = now().plus(Duration::from_secs(301));
    assert!(validate(&token, "historian", &bundle, late).is_err());
    let serial = valid.claims()["jti"].as_str().unwrap().to_owned();
    let events = cloud.events().await;
    assert!(
        events
            .iter()
            .any(|(kind, record)| kind == "workload.issued" && record.contains(&serial))
    );
}

#[tokio::test]
async fn a_workload_is_never_taken_for_a_node() {
    let (cloud, _machine, mut client) = one().await;
    let key = SoftwareKey::generate().unwrap();
    let issued = client.issue_x509(request(COLLECTOR, &key)).await.unwrap();
    let chain = issued.into_inner().svid_chain;
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    let svid = Svid::new(chain, Arc::new(key)).unwrap();
    let (channel, _) = cloud.connect(Some(&svid)).await;
    let stream = tokio_stream::iter([v1::NodeMessage::default()]);
    let attached = SessionClient::new(channel.clone()).attach(stream).await;
    assert_eq!(attached.unwrap_err().code(), Code::PermissionDenied);
    let key = SoftwareKey::generate().unwrap();
    let mut client = WorkloadsClient::new(channel);
    let answer = client.issue_x509(request(COLLECTOR, &key)).await;
    refused(answer, Code::PermissionDenied, "forbidden");
}
