//! What an operator can do about an enrolment that failed.

use rustls::{AlertDescription, CertificateError, Error};

use super::NotEnrolled;
use crate::root::RootError;
use crate::tpm::TpmError;

/// One line of advice; none where the error says all.
pub fn hint(error: &NotEnrolled) -> Option<&'static str> {
    match error {
        NotEnrolled::Connect(failed) => failed.tls_error().and_then(tls_hint),
        NotEnrolled::Refused { code } => refusal_hint(code),
        NotEnrolled::Root(RootError::Tpm(error)) => tpm_hint(error),
        _ => None,
    }
}

fn tls_hint(error: &Error) -> Option<&'static str> {
    match error {
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => {
            Some("the cloud's certificate is not valid at this machine's time: is the clock right?")
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => Some(
            "whoever answers is not the cloud that made this token: wrong address, or a proxy that breaks tls",
        ),
        Error::InvalidCertificate(_) => {
            Some("whoever answers does not prove to be a cloud of this trust domain")
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            Some("the other end speaks no tls 1.3")
        }
        _ => None,
    }
}

fn refusal_hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "token_refused" => "the token is unknown to this cloud, or it was mistyped: copy it whole",
        "token_expired" | "token_revoked" | "token_used" => "make a new one: edgeward token create",
        "token_ek_mismatch" => {
            "the token is for another machine's tpm: edgeward-agent check shows this one's"
        }
        "node_name_missing" => "say which name with --name",
        "node_name_refused" => "the token does not allow this name",
        "node_name_taken" => {
            "the name belongs to another machine: edgeward node remove frees it; if it is this one with a new tpm: edgeward node replace-tpm"
        }
        "recover_refused" => {
            "the cloud has no node of this name with this tpm: it was removed, or the tpm was replaced (edgeward node replace-tpm)"
        }
        "recover_software" => "without a tpm a node comes back with a token: edgeward token create",
        "node_attached" => {
            "a session of this node is open still: stop the agent, and try again shortly"
        }
        "tier_lower" => {
            "this tpm is a lesser one than the name had: edgeward node replace-tpm NAME --tier TIER"
        }
        "ek_already_enrolled" => {
            "this machine is a node already, under another name: edgeward node remove"
        }
        "node_quarantined" => "an operator quarantined this node: edgeward node release",
        "ek_chain_untrusted" | "ek_not_listed" => {
            "the cloud does not know this tpm's maker: add the maker's root, or list the ek (edgeward-agent check)"
        }
        "tier_software" => {
            "the cloud wants a tpm: name tier software in a group of the policy, or use one"
        }
        "unavailable" => "the cloud has a fault: try again shortly",
        _ if code.starts_with("ek_") => {
            "the cloud does not accept this tpm's ek: its log says why; the maker's root may be missing or another"
        }
        _ => return None,
    })
}

fn tpm_hint(error: &TpmError) -> Option<&'static str> {
    match error {
        TpmError::Unreachable { .. } => {
            Some("is there a tpm 2.0, is its device readable (group tss), and is [tpm] tcti right?")
        }
        TpmError::HandleTaken { .. } => {
            Some("choose another [tpm] first_handle, or free it with tpm2_evictcontrol")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_a_wrong_token_and_a_missing_tpm_are_told_apart() {
        let refused = |code: &str| NotEnrolled::Refused {
            code: code.to_owned(),
        };
        assert!(hint(&refused("token_refused")).is_some_and(|hint| hint.contains("copy it whole")));
        assert!(hint(&refused("something_new")).is_none());
        assert!(
            tls_hint(&Error::InvalidCertificate(CertificateError::Expired))
                .is_some_and(|hint| hint.contains("clock"))
        );
        let unreachable = TpmError::Unreachable {
            place: "device:/dev/tpmrm0".into(),
            detail: String::new(),
        };
        assert!(
            hint(&NotEnrolled::Root(unreachable.into())).is_some_and(|hint| hint.contains("tss"))
        );
    }
}
