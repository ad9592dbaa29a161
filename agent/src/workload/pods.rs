//! What this machine itself can say about a pod: its namespace, and with the cluster's keys its service account.
//!
//! The namespace is in the name of the folder that the kubelet makes for the pod's logs,
//! `<namespace>_<name>_<uid>`, which only root can write. The service account stands nowhere but in the token that the
//! kubelet puts into the pod, and anybody who may make pods can put a file of that name there: it counts only if one of
//! the configured keys signed it (`kubectl get --raw /openid/v1/jwks`), for this pod.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;

use super::selectors::PodFacts;

/// Most folders looked at, and most volumes of one pod.
const MAX_FOLDERS: usize = 4_096;
const MAX_VOLUMES: usize = 64;
/// Largest token and largest file of keys, in bytes.
const MAX_TOKEN_BYTES: usize = 32 * 1024;
const MAX_KEYS_BYTES: usize = 256 * 1024;
/// Most keys.
const MAX_KEYS: usize = 16;

/// Where the kubelet's files are, and whose tokens count.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    logs: PathBuf,
    kubelet: PathBuf,
    keys: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(rename = "kubernetes.io")]
    kubernetes: Bound,
}

#[derive(Deserialize)]
struct Bound {
    namespace: String,
    pod: Named,
    serviceaccount: Named,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    uid: String,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<Key>,
}

/// A public key of a JWK set (RFC 7517, RFC 7518 6).
#[derive(Deserialize)]
struct Key {
    kty: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
}

impl Pods {
    /// `logs` and `kubelet` as the kubelet has them; `keys` is a JWK set.
    pub fn new(logs: PathBuf, kubelet: PathBuf, keys: Option<PathBuf>) -> Self {
        Self {
            logs,
            kubelet,
            keys,
        }
    }

    /// What can be had about a pod. Blocks on files.
    pub(super) fn facts_of(&self, uid: String) -> PodFacts {
        let namespace = self.namespace_of(&uid);
        let service_account = self
            .account_of(&uid)
            // The two must agree, or one of them is not the kubelet's.
            .filter(|(said, _)| Some(said) == namespace.as_ref())
            .map(|(_, account)| account);
        PodFacts {
            uid,
            namespace,
            service_account,
        }
    }

    fn namespace_of(&self, uid: &str) -> Option<String> {
        let folders = std::fs::read_dir(&self.logs).ok()?;
        folders
            .take(MAX_FOLDERS)
            .flatten()
            .find_map(|folder| namespace_in(folder.file_name().to_str()?, uid))
    }

    /// Namespace and name, by the first token of the pod that a key of the cluster signed.
    fn account_of(&self, uid: &str) -> Option<(String, String)> {
        let keys = read_bounded(self.keys.as_deref()?, MAX_KEYS_BYTES)?;
        let keys: Keys = serde_json::from_slice(&keys).ok()?;
        let volumes = self
            .kubelet
            .join("pods")
            .join(uid)
            .join("volumes/kubernetes.io~projected");
        let volumes = std::fs::read_dir(volumes).ok()?;
        volumes.take(MAX_VOLUMES).flatten().find_map(|volume| {
            let token = read_bounded(&volume.path().join("token"), MAX_TOKEN_BYTES)?;
            account_in(std::str::from_utf8(&token).ok()?.trim(), &keys, uid)
        })
    }
}

/// The namespace in `<namespace>_<name>_<uid>`; neither of the first two holds `_`.
fn namespace_in(folder: &str, uid: &str) -> Option<String> {
    let (rest, found) = folder.rsplit_once('_')?;
    let (namespace, name) = rest.split_once('_')?;
    (found == uid && !namespace.is_empty() && !name.is_empty() && !name.contains('_'))
        .then(|| namespace.to_owned())
}

fn account_in(token: &str, keys: &Keys, uid: &str) -> Option<(String, String)> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, payload) = signed.split_once('.')?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
    let header: Header = serde_json::from_slice(&decode(header)?).ok()?;
    let signature = decode(signature)?;
    let good = keys
        .keys
        .iter()
        .take(MAX_KEYS)
        .any(|key| verifies(key, &header.alg, signed.as_bytes(), &signature).is_some());
    if !good {
        return None;
    }
    let claims: Claims = serde_json::from_slice(&decode(payload)?).ok()?;
    // Its end is not looked at: while the pod lives the kubelet renews it, and the pod is named in it.
    let bound = claims.kubernetes;
    (bound.pod.uid == uid).then_some((bound.namespace, bound.serviceaccount.name))
}

fn verifies(key: &Key, algorithm: &str, signed: &[u8], signature: &[u8]) -> Option<()> {
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
    match (algorithm, key.kty.as_str()) {
        ("RS256", "RSA") => {
            let (n, e) = (decode(&key.n)?, decode(&key.e)?);
            RsaPublicKeyComponents { n, e }
                .verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature)
                .ok()
        }
        ("ES256", "EC") => {
            let point = [vec![4], decode(&key.x)?, decode(&key.y)?].concat();
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                .verify(signed, signature)
                .ok()
        }
        _ => None,
    }
}

fn read_bounded(path: &Path, limit: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).ok()?.checked_add(1)?;
    File::open(path)
        .ok()?
        .take(most)
        .read_to_end(&mut bytes)
        .ok()?;
    (bytes.len() <= limit).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use edgeward_identity::{PublicKey, Signer, SoftwareKey, jws};
    use serde_json::json;

    use super::*;

    const UID: &str = "6b2b2f6e-0d1c-4c7e-9a53-0f6f8a1f2b3c";
    const OTHER: &str = "00000000-0d1c-4c7e-9a53-0f6f8a1f2b3c";

    fn token(key: &SoftwareKey, namespace: &str, uid: &str) -> String {
        let claims = json!({ "kubernetes.io": {
            "namespace": namespace,
            "pod": { "name": "p", "uid": uid },
            "serviceaccount": { "name": "collector", "uid": "u" },
        }});
        jws::sign(key, &json!({}), claims.to_string().as_bytes()).unwrap()
    }

    fn jwks(key: &PublicKey) -> String {
        let (x, y) = key.coordinates();
        let encode = |half: &[u8]| URL_SAFE_NO_PAD.encode(half);
        json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) }] })
            .to_string()
    }

    /// A kubelet's files with one pod in namespace `line`, whose token is this.
    fn kubelet(token: &str, keys: Option<&str>) -> (tempfile::TempDir, Pods) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        std::fs::create_dir_all(path.join(format!("logs/line_collector-0_{UID}"))).unwrap();
        let volume =
            format!("kubelet/pods/{UID}/volumes/kubernetes.io~projected/kube-api-access-x");
        std::fs::create_dir_all(path.join(&volume)).unwrap();
        std::fs::write(path.join(&volume).join("token"), token).unwrap();
        let keys = keys.map(|keys| {
            std::fs::write(path.join("keys.json"), keys).unwrap();
            path.join("keys.json")
        });
        let pods = Pods::new(path.join("logs"), path.join("kubelet"), keys);
        (folder, pods)
    }

    fn account(token: &str, keys: Option<&str>) -> Option<String> {
        let (_folder, pods) = kubelet(token, keys);
        pods.facts_of(UID.to_owned()).service_account
    }

    #[test]
    fn a_service_account_counts_only_with_a_key_of_the_cluster_for_this_pod() {
        let (cluster, stranger) = (
            SoftwareKey::generate().unwrap(),
            SoftwareKey::generate().unwrap(),
        );
        let keys = jwks(cluster.public_key());
        let good = token(&cluster, "line", UID);
        assert_eq!(account(&good, Some(&keys)).as_deref(), Some("collector"));
        assert_eq!(account(&good, None), None);
        assert_eq!(account(&token(&stranger, "line", UID), Some(&keys)), None);
        assert_eq!(account(&token(&cluster, "line", OTHER), Some(&keys)), None);
        assert_eq!(account(&token(&cluster, "prod", UID), Some(&keys)), None);
        for broken in ["", "a.b.c", "..", &"a".repeat(MAX_TOKEN_BYTES + 1)] {
            assert_eq!(account(broken, Some(&keys)), None);
        }
    }

    #[test]
    fn the_namespace_is_that_of_the_pods_log_folder() {
        let (_folder, pods) = kubelet("", None);
        let facts = pods.facts_of(UID.to_owned());
        assert_eq!(facts.namespace.as_deref(), Some("line"));
        assert_eq!(pods.facts_of(OTHER.to_owned()).namespace, None);
        for folder in ["line_p", "_p_u", "line__u", "line_p_q_u", "u", "line_p_v"] {
            assert_eq!(namespace_in(folder, "u"), None, "{folder}");
        }
    }
}
