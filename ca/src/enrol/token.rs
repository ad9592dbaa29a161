//! Whether a token may be used, by this machine, for this name. Decisions only.

use std::time::Duration;

use edgeward_identity::{Kind, SpiffeId, Timestamp, TrustDomain};
use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

use super::refusal::EnrolRefused;
use crate::store::nodes::RootId;
use crate::store::tokens::{TokenRow, TokenUse};

/// How long a machine that used a token may come again with it.
pub const RETRY_FOR: Duration = Duration::from_secs(3600);

/// Whether the secret is the token's.
pub(super) fn check_secret(token: &TokenRow, secret: &[u8]) -> Result<(), EnrolRefused> {
    let hash = hex::encode(digest(&SHA256, secret));
    match bool::from(hash.as_bytes().ct_eq(token.secret_hash.as_bytes())) {
        true => Ok(()),
        false => Err(EnrolRefused::TokenSecret),
    }
}

/// Whether this machine may use the token now. `used`: its own earlier use. `open`: the node that it became waits for
/// its first certificate.
pub(super) fn check_use(
    token: &TokenRow,
    root: &RootId,
    used: Option<&TokenUse>,
    open: bool,
    now: Timestamp,
) -> Result<(), EnrolRefused> {
    if token.revoked.is_some() {
        return Err(EnrolRefused::TokenRevoked);
    }
    if token.ek.is_some() && token.ek.as_deref() != root.ek() {
        return Err(EnrolRefused::TokenEk);
    }
    match used {
        Some(_) if open => Ok(()),
        Some(_) if now >= token.expires => Err(EnrolRefused::TokenExpired),
        Some(used) if now >= used.used.plus(RETRY_FOR) => Err(EnrolRefused::TokenUsed),
        Some(_) => Ok(()),
        None if now >= token.expires => Err(EnrolRefused::TokenExpired),
        None if token.used >= token.uses => Err(EnrolRefused::TokenUsed),
        None => Ok(()),
    }
}

/// The identity that the token gives to a machine that would like to be called `wanted`.
pub(super) fn choose_name(
    token: &TokenRow,
    wanted: &str,
    trust_domain: &TrustDomain,
) -> Result<SpiffeId, EnrolRefused> {
    let refused = || EnrolRefused::Name(wanted.chars().take(128).collect());
    let exact = token.name.as_ref().and_then(|name| name.exact());
    let name = match (exact, wanted) {
        (Some(exact), "") => exact,
        (None, "") => return Err(EnrolRefused::NameMissing),
        (_, wanted) => wanted,
    };
    if token
        .name
        .as_ref()
        .is_some_and(|pattern| !pattern.matches(name))
    {
        return Err(refused());
    }
    SpiffeId::new(trust_domain, Kind::Node, name).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use edgeward_policy::Labels;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn token() -> TokenRow {
        TokenRow {
            id: "t1".to_owned(),
            secret_hash: hex::encode(digest(&SHA256, b"secret")),
            created: NOW,
            created_by: "cloud".to_owned(),
            expires: NOW.plus(Duration::from_secs(7200)),
            uses: 1,
            used: 0,
            labels: Labels::new(),
            name: None,
            ek: None,
            approval: false,
            revoked: None,
            revoked_by: None,
        }
    }

    fn used() -> TokenUse {
        TokenUse {
            node: "a".to_owned(),
            used: NOW,
        }
    }

    fn code(result: Result<(), EnrolRefused>) -> &'static str {
        result.map_or_else(|refused| refused.code(), |()| "ok")
    }

    #[test]
    fn a_wrong_secret_is_told_like_an_unknown_token() {
        assert_eq!(code(check_secret(&token(), b"guess")), "token_refused");
        assert_eq!(code(check_secret(&token(), b"")), "token_refused");
        assert_eq!(
            EnrolRefused::TokenUnknown(String::new()).code(),
            "token_refused"
        );
        assert_eq!(code(check_secret(&token(), b"secret")), "ok");
    }

    #[test]
    fn every_reason_against_a_token_has_its_own_code() {
        let root = RootId::of_ek("aa");
        let late = NOW.plus(Duration::from_secs(7200));
        let check = |token: &TokenRow, now| code(check_use(token, &root, None, false, now));
        assert_eq!(check(&token(), NOW), "ok");
        assert_eq!(check(&token(), late), "token_expired");
        assert_eq!(check(&TokenRow { used: 1, ..token() }, NOW), "token_used");
        assert_eq!(
            check(
                &TokenRow {
                    revoked: Some(NOW),
                    ..token()
                },
                NOW
            ),
            "token_revoked"
        );
        let bound = TokenRow {
            ek: Some("ab".to_owned()),
            ..token()
        };
        assert_eq!(check(&bound, NOW), "token_ek_mismatch");
        let software = RootId::of_key(&edgeward_identity::SpkiHash::from_bytes([1; 32]));
        assert_eq!(
            code(check_use(&bound, &software, None, false, NOW)),
            "token_ek_mismatch"
        );
    }

    #[test]
    fn the_same_machine_may_come_again_for_an_hour_and_while_the_token_lives() {
        let root = RootId::of_ek("aa");
        let mut spent = TokenRow { used: 1, ..token() };
        let again = |token: &TokenRow, seconds: u64, open: bool| {
            let now = NOW.plus(Duration::from_secs(seconds));
            code(check_use(token, &root, Some(&used()), open, now))
        };
        assert_eq!(again(&spent, 3599, false), "ok");
        assert_eq!(again(&spent, 3600, false), "token_used");
        assert_eq!(again(&spent, 3600, true), "ok");
        assert_eq!(again(&spent, 7200, false), "token_expired");
        spent.expires = NOW.plus(Duration::from_secs(10));
        assert_eq!(again(&spent, 10, false), "token_expired");
        spent.revoked = Some(NOW);
        assert_eq!(again(&spent, 1, true), "token_revoked");
    }

    #[test]
    fn a_token_gives_only_the_names_it_says() {
        let domain = TrustDomain::new("plant.example").unwrap();
        let choose = |pattern: Option<&str>, wanted: &str| {
            let token = TokenRow {
                name: pattern.map(|pattern| pattern.parse().unwrap()),
                ..token()
            };
            choose_name(&token, wanted, &domain).map_or_else(
                |refused| refused.code().to_owned(),
                |id| id.name().to_owned(),
            )
        };
        assert_eq!(choose(None, ""), "node_name_missing");
        assert_eq!(choose(None, "a/b"), "node_name_refused");
        assert_eq!(choose(None, &"a".repeat(64)), "node_name_refused");
        assert_eq!(choose(Some("gw-1"), "gw-2"), "node_name_refused");
        assert_eq!(choose(Some("gw-*"), "sw-2"), "node_name_refused");
        assert_eq!(choose(Some("gw-*"), ""), "node_name_missing");
        assert_eq!(choose(Some("gw-1"), ""), "gw-1");
        assert_eq!(choose(Some("gw-*"), "gw-9"), "gw-9");
        assert_eq!(choose(None, "anything"), "anything");
    }
}
