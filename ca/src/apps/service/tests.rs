use std::collections::BTreeMap;
use std::time::Duration;

use edgeward_apps::testing::{Content, Published, noise};
use edgeward_wire::limits::{MAX_APPS_MESSAGE_BYTES, MAX_APPS_PIECE_BYTES, MAX_CHUNKS_AT_ONCE};
use edgeward_wire::v1;
use edgeward_wire::v1::apps_client::AppsClient;
use tonic::Code;
use tonic::transport::Channel;

use super::*;
use crate::testing::{Cloud, Machine};

/// A cloud with a release of several chunks and a long manifest, and an enrolled node.
struct Ground {
    cloud: Cloud,
    machine: Machine,
    offline: Published,
}

impl Ground {
    async fn new(more: &str) -> Self {
        let mut machine = Machine::new();
        let cloud = Cloud::start_with(&[&machine], more).await;
        cloud.profile_of(&machine);
        let token = cloud.token(|_| {}).await;
        cloud.enrol(&mut machine, &token, "a").await.unwrap();
        let offline = published(&cloud).await;
        Self {
            cloud,
            machine,
            offline,
        }
    }

    async fn client(&self) -> AppsClient<Channel> {
        let (channel, _) = self.cloud.connect(Some(&self.machine.svid())).await;
        AppsClient::new(channel).max_decoding_message_size(MAX_APPS_MESSAGE_BYTES)
    }

    fn manifest(&self) -> (&Digest, &Vec<u8>) {
        self.offline.manifests.first_key_value().unwrap()
    }
}

async fn published(cloud: &Cloud) -> Published {
    let mut offline = cloud.publisher();
    let program = noise(900_000, 3);
    let names: Vec<String> = (0..3000).map(|number| format!("share/{number}")).collect();
    let mut tree = vec![("bin/x", Content::Program(&program))];
    tree.extend(
        names
            .iter()
            .map(|name| (name.as_str(), Content::Data(b"small"))),
    );
    offline.release("acme/x", "1.0", &tree);
    cloud.publish(&offline).await;
    offline
}

async fn metadata(client: &mut AppsClient<Channel>, name: &str) -> Result<Vec<u8>, Status> {
    let request = v1::AppsMetadataRequest {
        name: name.to_owned(),
    };
    let mut pieces = client.metadata(request).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.message().await? {
        assert!(piece.bytes.len() <= MAX_APPS_PIECE_BYTES);
        bytes.extend(piece.bytes);
    }
    Ok(bytes)
}

async fn manifest(
    client: &mut AppsClient<Channel>,
    sha256: Vec<u8>,
    offset: u64,
) -> Result<Vec<u8>, Status> {
    let request = v1::AppsManifestRequest { sha256, offset };
    let mut pieces = client.manifest(request).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.message().await? {
        bytes.extend(piece.bytes);
    }
    Ok(bytes)
}

fn said<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String) {
    let status = result.unwrap_err();
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn whoever_is_no_node_of_the_fleet_gets_nothing() {
    let ground = Ground::new("").await;
    let (channel, _) = ground.cloud.connect(None).await;
    let mut stranger = AppsClient::new(channel);
    let refused = metadata(&mut stranger, "timestamp.json").await;
    assert_eq!(said(refused).0, Code::Unauthenticated);
    let mut client = ground.client().await;
    metadata(&mut client, "timestamp.json").await.unwrap();
    let cut = |member: &mut crate::hub::Member| member.keys.clear();
    ground.cloud.hub.update_member("a", cut);
    let refused = metadata(&mut client, "timestamp.json").await;
    let expected = (Code::PermissionDenied, "node_status".to_owned());
    assert_eq!(said(refused), expected);
}

#[tokio::test]
async fn what_is_not_here_or_malformed_is_refused_with_a_code() {
    let ground = Ground::new("").await;
    let mut client = ground.client().await;
    for absent in ["2.root.json", "", "../keys/root.key", "keyset"] {
        let refused = said(metadata(&mut client, absent).await);
        assert_eq!(
            refused,
            (Code::NotFound, "apps_absent".to_owned()),
            "{absent}"
        );
    }
    let long = said(metadata(&mut client, &"a".repeat(129)).await);
    assert_eq!(long.0, Code::InvalidArgument);
    let absent = said(manifest(&mut client, vec![1; 32], 0).await);
    assert_eq!(absent, (Code::NotFound, "apps_absent".to_owned()));
    let short = said(manifest(&mut client, vec![1; 31], 0).await);
    assert_eq!(short, (Code::InvalidArgument, "apps_malformed".to_owned()));
    let many = v1::AppsChunksRequest {
        sha256: vec![vec![1; 32]; MAX_CHUNKS_AT_ONCE + 1],
    };
    assert_eq!(said(client.chunks(many).await).0, Code::InvalidArgument);
}

#[tokio::test]
async fn a_node_gets_metadata_manifests_from_where_it_stopped_and_the_chunks_that_are_here() {
    let ground = Ground::new("").await;
    let mut client = ground.client().await;
    for role in ground.cloud.hub.apps.releases().roles.values() {
        let bytes = metadata(&mut client, &role.name).await.unwrap();
        assert_eq!(Digest::of(&bytes), role.sha256, "{}", role.name);
    }
    let (digest, bytes) = ground.manifest();
    assert!(bytes.len() > MAX_APPS_PIECE_BYTES);
    let sha256 = digest.as_bytes().to_vec();
    assert_eq!(
        manifest(&mut client, sha256.clone(), 0).await.unwrap(),
        *bytes
    );
    let rest = manifest(&mut client, sha256.clone(), 1000).await.unwrap();
    assert_eq!(rest, bytes[1000..]);
    let behind = manifest(&mut client, sha256, u64::MAX).await.unwrap();
    assert!(behind.is_empty());
    let mut wanted: Vec<Vec<u8>> = ground
        .offline
        .chunks
        .keys()
        .map(|digest| digest.as_bytes().to_vec())
        .collect();
    wanted.insert(1, vec![9; 32]);
    let request = v1::AppsChunksRequest { sha256: wanted };
    let mut chunks = client.chunks(request).await.unwrap().into_inner();
    let mut got = BTreeMap::new();
    while let Some(chunk) = chunks.message().await.unwrap() {
        let digest = Digest::from_bytes(chunk.sha256.try_into().unwrap());
        got.insert(digest, chunk.content);
    }
    assert_eq!(got, ground.offline.chunks);
}

#[tokio::test]
async fn a_node_that_does_not_read_what_it_asks_for_gets_no_more() {
    let ground = Ground::new("").await;
    let mut client = ground.client().await;
    let biggest = ground
        .offline
        .chunks
        .iter()
        .max_by_key(|(_, bytes)| bytes.len());
    let sha256 = vec![biggest.unwrap().0.as_bytes().to_vec(); MAX_CHUNKS_AT_ONCE];
    let mut unread = Vec::new();
    for _ in 0..MAX_ANSWERS_TO_ONE {
        let request = v1::AppsChunksRequest {
            sha256: sha256.clone(),
        };
        unread.push(client.chunks(request).await.unwrap());
    }
    let refused = said(metadata(&mut client, "timestamp.json").await);
    let expected = (Code::ResourceExhausted, "apps_budget".to_owned());
    assert_eq!(refused, expected);
    drop(unread);
    crate::testing::eventually(|| {
        let mut client = client.clone();
        async move { metadata(&mut client, "timestamp.json").await.is_ok() }
    })
    .await;
}

#[tokio::test]
async fn a_node_gets_what_its_budget_gives() {
    let ground = Ground::new("[apps]\nbytes_per_second = 200000\n").await;
    let mut client = ground.client().await;
    let (digest, bytes) = ground.manifest();
    // Ten seconds' worth at once.
    let at_once = 2_000_000 / bytes.len();
    let began = std::time::Instant::now();
    for _ in 0..at_once {
        let sha256 = digest.as_bytes().to_vec();
        manifest(&mut client, sha256, 0).await.unwrap();
    }
    let sha256 = digest.as_bytes().to_vec();
    manifest(&mut client, sha256, 0).await.unwrap();
    let least =
        Duration::from_secs_f64((bytes.len() * (at_once + 1) - 2_000_000) as f64 / 200_000.0);
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());
}
