//! The claims of an EAR, as they are written (draft-ietf-rats-ear-04; trustworthiness claims: draft-ietf-rats-ar4si), with our
//! own beside. Binary values are base64url without padding (RFC 4648, 5).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use edgeward_identity::{AttestationState, PublicKey, SpiffeId, SpkiHash, Tier, Timestamp};
use serde::{Deserialize, Serialize};

use super::{AttestationResult, ResultRefused, TpmResult};
use crate::app_log::{Runs, is_runs};
use crate::appraise::{Appraisal, Mode, ProfileRef};
use crate::digest::Digest;
use crate::tpm::{PcrBank, PcrSelection};
use crate::verify::{AttestationKey, VerifiedEvidence};

/// `eat_profile` of every EAR of this draft.
const EAR_PROFILE: &str = "tag:ietf.org,2026:rats/ear#04";
const DEVELOPER: &str = "edgeward";
const BUILD: &str = env!("CARGO_PKG_VERSION");
/// Most codes of monitoring profiles read.
const MAX_CODES: usize = 16;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Claims {
    eat_profile: String,
    iat: u64,
    exp: u64,
    sub: SpiffeId,
    #[serde(rename = "ear_verifier_id")]
    verifier: VerifierId,
    submods: Submods,
    #[serde(rename = "edgeward.node")]
    node: NodeClaims,
    #[serde(
        rename = "edgeward.tpm",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    tpm: Option<TpmClaims>,
    /// Absent where nothing proves what runs.
    #[serde(
        rename = "edgeward.runs",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    runs: Option<Runs>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifierId {
    developer: String,
    build: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Submods {
    node: NodeAppraisal,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeAppraisal {
    #[serde(rename = "ear_status")]
    status: Status,
    /// Absent where nothing is claimed.
    #[serde(
        rename = "ear_trustworthiness_vector",
        default,
        skip_serializing_if = "TrustVector::is_empty"
    )]
    vector: TrustVector,
    /// `mode:hash:name` of the profile, if there is one.
    #[serde(
        rename = "ear_appraisal_policy_ids",
        default,
        skip_serializing_if = "Vec::is_empty"
    )]
    policies: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    None,
    Affirming,
    Warning,
}

/// Trustworthiness claims (AR4SI, 2.3): 2 and 3 affirm; what was not appraised is not claimed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct TrustVector {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance_identity: Option<i8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    configuration: Option<i8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    executables: Option<i8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hardware: Option<i8>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeClaims {
    number: u64,
    /// In milliseconds; `iat` is the same in seconds.
    time: u64,
    state: AttestationState,
    tier: Tier,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// SHA-256 of the SPKI of the leaf that it counts beside.
    svid: String,
    /// Uncompressed P-256 point.
    boot: String,
    deny: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    would_fail: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TpmClaims {
    /// `TPMT_PUBLIC`: its name follows from it.
    ak: String,
    bank: PcrBank,
    pcrs: Vec<u8>,
    digest: String,
    reset: u32,
    restart: u32,
}

impl TrustVector {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn new(evidence: &VerifiedEvidence, appraisal: &Appraisal) -> Self {
        if evidence.tpm().is_none() {
            return Self::default();
        }
        let compared = appraisal.compared();
        // A profile that only watches vouches for nothing where it does not match.
        let held = appraisal.matched();
        Self {
            // The EK is rooted or listed, and the quote is of the AK beside it.
            instance_identity: Some(2),
            configuration: (held && compared.configuration).then_some(2),
            executables: match (held && compared.boot, compared.runtime) {
                (true, true) => Some(2),
                (true, false) => Some(3),
                (false, _) => None,
            },
            // Of the TPM's maker it is known that it made this one.
            hardware: (evidence.tier() == Tier::Hardware).then_some(2),
        }
    }
}

impl Claims {
    pub(super) fn of(result: &AttestationResult, number: u64, expires: Timestamp) -> Self {
        Self {
            eat_profile: EAR_PROFILE.to_owned(),
            iat: result.issued.secs(),
            exp: expires.secs(),
            sub: result.spiffe_id.clone(),
            verifier: VerifierId {
                developer: DEVELOPER.to_owned(),
                build: BUILD.to_owned(),
            },
            submods: Submods {
                node: NodeAppraisal {
                    status: status_of(result),
                    vector: result.vector,
                    policies: result.profile.iter().map(policy_id).collect(),
                },
            },
            node: NodeClaims {
                number,
                time: result.issued.millis(),
                state: result.state,
                tier: result.tier,
                code: result.code.clone(),
                svid: encode(result.svid_spki.as_bytes()),
                boot: encode(result.boot_key.point()),
                deny: result.deny_number,
                would_fail: result.would_fail.clone(),
            },
            tpm: result.tpm.as_ref().map(|tpm| TpmClaims {
                ak: encode(tpm.ak.public_bytes()),
                bank: tpm.pcr_selection.bank(),
                pcrs: tpm.pcr_selection.indexes().collect(),
                digest: encode(tpm.pcr_digest.as_bytes()),
                reset: tpm.reset_count,
                restart: tpm.restart_count,
            }),
            runs: result.runs.clone(),
        }
    }

    /// Reads a payload that nobody checked.
    pub(super) fn of_base64(payload: &[u8]) -> Option<Self> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }

    pub(super) fn number(&self) -> u64 {
        self.node.number
    }

    pub(super) fn time(&self) -> Timestamp {
        Timestamp::from_millis(self.node.time)
    }

    pub(super) fn expires(&self) -> Timestamp {
        Timestamp::from_millis(self.exp.saturating_mul(1000))
    }

    /// What it says, if it does not contradict itself.
    pub(super) fn into_result(self) -> Result<AttestationResult, ResultRefused> {
        let bad = ResultRefused::Inconsistent;
        let issued = self.time();
        if self.eat_profile != EAR_PROFILE {
            return Err(bad("another profile of eat"));
        }
        if issued.secs() != self.iat {
            return Err(bad("two times of issue"));
        }
        if self.node.would_fail.len() > MAX_CODES {
            return Err(bad("more codes than any appraisal gives"));
        }
        let svid = array(&self.node.svid).ok_or(bad("svid is not a sha-256"))?;
        let boot = decode(&self.node.boot).ok_or(bad("boot key"))?;
        let profile = match self.submods.node.policies.as_slice() {
            [] => None,
            [id] => Some(profile_of(id)?),
            _ => return Err(bad("more than one policy")),
        };
        let result = AttestationResult {
            spiffe_id: self.sub,
            svid_spki: SpkiHash::from_bytes(svid),
            boot_key: PublicKey::from_point(&boot).map_err(|_| bad("boot key"))?,
            tier: self.node.tier,
            state: self.node.state,
            code: self.node.code,
            profile,
            would_fail: self.node.would_fail,
            tpm: self.tpm.as_ref().map(tpm_of).transpose()?,
            vector: self.submods.node.vector,
            runs: self.runs,
            issued,
            deny_number: self.node.deny,
        };
        if result.tpm.is_some() == (result.tier == Tier::Software) {
            return Err(bad("tier and tpm"));
        }
        if let Some(runs) = &result.runs
            && (result.tpm.is_none() || result.profile.is_none() || !is_runs(runs))
        {
            return Err(bad("runs"));
        }
        let vouches = result.state != AttestationState::None;
        if vouches && (result.tpm.is_none() || result.profile.is_none()) {
            return Err(bad("state that nothing was compared for"));
        }
        if !matches!(
            result.state,
            AttestationState::Trusted | AttestationState::Stale | AttestationState::None
        ) || (result.state == AttestationState::Stale) != result.code.is_some()
        {
            return Err(bad("state and code"));
        }
        if status_of(&result) != self.submods.node.status {
            return Err(bad("state and ear status"));
        }
        Ok(result)
    }
}

fn status_of(result: &AttestationResult) -> Status {
    match result.state {
        AttestationState::Trusted if result.would_fail.is_empty() => Status::Affirming,
        AttestationState::None => Status::None,
        _ => Status::Warning,
    }
}

fn policy_id(profile: &ProfileRef) -> String {
    let mode = match profile.mode {
        Mode::Enforce => "enforce",
        Mode::Monitor => "monitor",
    };
    format!(
        "{mode}:{}:{}",
        encode(profile.hash.as_bytes()),
        profile.name
    )
}

fn profile_of(id: &str) -> Result<ProfileRef, ResultRefused> {
    let bad = ResultRefused::Inconsistent("policy id");
    let mut parts = id.splitn(3, ':');
    let (Some(mode), Some(hash), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(bad);
    };
    Ok(ProfileRef {
        mode: match mode {
            "enforce" => Mode::Enforce,
            "monitor" => Mode::Monitor,
            _ => return Err(bad),
        },
        hash: Digest::from_bytes(array(hash).ok_or(bad)?),
        name: name.to_owned(),
    })
}

fn tpm_of(claims: &TpmClaims) -> Result<TpmResult, ResultRefused> {
    let bad = ResultRefused::Inconsistent;
    let ak = decode(&claims.ak).ok_or(bad("ak"))?;
    Ok(TpmResult {
        ak: AttestationKey::from_public(&ak).map_err(|_| bad("ak"))?,
        pcr_selection: PcrSelection::new(claims.bank, claims.pcrs.iter().copied())
            .map_err(|_| bad("pcrs"))?,
        pcr_digest: Digest::from_bytes(array(&claims.digest).ok_or(bad("pcr digest"))?),
        reset_count: claims.reset,
        restart_count: claims.restart,
    })
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn array<const N: usize>(text: &str) -> Option<[u8; N]> {
    decode(text)?.try_into().ok()
}
