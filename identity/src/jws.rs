//! JSON Web Signatures in compact form with ES256 (RFC 7515, RFC 7518 3.4), and nothing else: no other algorithm is
//! known here, so none can be asked for by whoever made the token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::keys::{BadSignature, PublicKey, SignError, Signer};

/// The one algorithm.
pub const ES256: &str = "ES256";
/// Bytes of an ES256 signature: r and s.
pub const SIGNATURE_BYTES: usize = 64;
/// Largest decoded header, in bytes.
pub const MAX_HEADER_BYTES: usize = 4 * 1024;

/// A parsed, not yet verified token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compact<'t> {
    header: Map<String, Value>,
    payload: Vec<u8>,
    signed: &'t str,
    signature: [u8; SIGNATURE_BYTES],
}

/// The text is not a token of this form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadJws {
    #[error("larger than the limit")]
    TooLarge,
    #[error("not three parts in base64url")]
    Parts,
    #[error("header is not a json object")]
    Header,
    #[error("header names a critical extension")]
    Critical,
    #[error("algorithm is not ES256")]
    Algorithm,
    #[error("signature is not 64 bytes")]
    Signature,
}

/// Makes a token; `header` must be an object and gets its `alg` here.
pub fn sign<H: Serialize>(
    signer: &dyn Signer,
    header: &H,
    payload: &[u8],
) -> Result<String, SignError> {
    let unusable = |what: &str| SignError::KeyStore(what.to_owned());
    let Ok(Value::Object(mut header)) = serde_json::to_value(header) else {
        return Err(unusable("header is not an object"));
    };
    header.insert("alg".to_owned(), ES256.into());
    let header = Value::Object(header).to_string();
    let mut token = URL_SAFE_NO_PAD.encode(header);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(payload, &mut token);
    let der = signer.sign(token.as_bytes())?;
    let signature = fixed_of_der(&der).ok_or_else(|| unusable("signature is malformed"))?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
}

impl<'t> Compact<'t> {
    /// Reads a token of at most `limit` bytes.
    pub fn parse(text: &'t str, limit: usize) -> Result<Self, BadJws> {
        if text.len() > limit {
            return Err(BadJws::TooLarge);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(BadJws::Parts)?;
        let (header, payload) = signed.split_once('.').ok_or(BadJws::Parts)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| BadJws::Parts);
        let header = decode(header)?;
        if header.len() > MAX_HEADER_BYTES {
            return Err(BadJws::TooLarge);
        }
        let header: Map<String, Value> =
            serde_json::from_slice(&header).map_err(|_| BadJws::Header)?;
        // Before the signature is looked at: a token without one says so in its algorithm.
        if header.get("alg").and_then(Value::as_str) != Some(ES256) {
            return Err(BadJws::Algorithm);
        }
        if header.contains_key("crit") {
            return Err(BadJws::Critical);
        }
        let payload = decode(payload)?;
        let signature = decode(signature)?
            .try_into()
            .map_err(|_| BadJws::Signature)?;
        Ok(Self {
            header,
            payload,
            signed,
            signature,
        })
    }

    pub fn header(&self) -> &Map<String, Value> {
        &self.header
    }

    /// A text of the header.
    pub fn header_text(&self, name: &str) -> Option<&str> {
        self.header.get(name).and_then(Value::as_str)
    }

    /// What was signed, if this key signed it.
    pub fn verify(&self, key: &PublicKey) -> Result<&[u8], BadSignature> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.point().as_slice())
            .verify(self.signed.as_bytes(), &self.signature)
            .map_err(|_| BadSignature)?;
        Ok(&self.payload)
    }
}

/// `SEQUENCE { INTEGER r, INTEGER s }` as r and s of 32 bytes each.
fn fixed_of_der(der: &[u8]) -> Option<[u8; SIGNATURE_BYTES]> {
    let (inner, []) = tagged(der, 0x30)? else {
        return None;
    };
    let (r, rest) = tagged(inner, 0x02)?;
    let (s, []) = tagged(rest, 0x02)? else {
        return None;
    };
    let mut fixed = [0; SIGNATURE_BYTES];
    let (high, low) = fixed.split_at_mut(SIGNATURE_BYTES / 2);
    for (number, place) in [(r, high), (s, low)] {
        let digits = number.iter().skip_while(|byte| **byte == 0);
        let digits: Vec<u8> = digits.copied().collect();
        let start = place.len().checked_sub(digits.len())?;
        place.get_mut(start..)?.copy_from_slice(&digits);
    }
    Some(fixed)
}

/// Content of a short DER element, and what follows it.
fn tagged(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (head, rest) = der.split_at_checked(2)?;
    let &[found, length] = head else {
        return None;
    };
    // Two numbers of 33 bytes at most: the long form is not needed.
    (found == tag && length < 0x80).then_some(())?;
    rest.split_at_checked(usize::from(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SoftwareKey;

    const LIMIT: usize = 4096;

    fn token() -> (SoftwareKey, String) {
        let key = SoftwareKey::generate().unwrap();
        let header = serde_json::json!({ "kid": "k", "alg": "none" });
        let token = sign(&key, &header, b"{\"a\":1}").unwrap();
        (key, token)
    }

    fn with_header(token: &str, header: &str) -> String {
        let (_, rest) = token.split_once('.').unwrap();
        format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header))
    }

    #[test]
    fn another_algorithm_or_none_is_refused_before_any_key_is_used() {
        let (_, token) = token();
        for header in [
            "{\"alg\":\"none\"}",
            "{\"alg\":\"NONE\"}",
            "{\"alg\":\"es256\"}",
            "{\"alg\":\"HS256\"}",
            "{\"alg\":\"RS256\"}",
            "{\"alg\":\"ES384\"}",
            "{\"alg\":null}",
            "{\"alg\":[\"ES256\"]}",
            "{}",
        ] {
            let changed = with_header(&token, header);
            assert_eq!(
                Compact::parse(&changed, LIMIT),
                Err(BadJws::Algorithm),
                "{header}"
            );
        }
    }

    #[test]
    fn malformed_tokens_are_refused() {
        let (_, token) = token();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let critical = "{\"alg\":\"ES256\",\"crit\":[\"x\"]}";
        for (text, reason) in [
            (String::new(), BadJws::Parts),
            ("a.b".to_owned(), BadJws::Parts),
            (format!("{token}."), BadJws::Parts),
            (format!("{token}="), BadJws::Parts),
            (format!("{signed}."), BadJws::Signature),
            (format!("{signed}.{signature}AAAA"), BadJws::Signature),
            (with_header(&token, "[]"), BadJws::Header),
            (with_header(&token, "{\"alg\":\"ES256\"} x"), BadJws::Header),
            (with_header(&token, critical), BadJws::Critical),
            ("a".repeat(LIMIT + 1), BadJws::TooLarge),
        ] {
            assert_eq!(Compact::parse(&text, LIMIT), Err(reason), "{text}");
        }
    }

    #[test]
    fn only_the_signing_key_verifies_and_only_what_was_signed() {
        let (key, token) = token();
        let parsed = Compact::parse(&token, LIMIT).unwrap();
        assert_eq!(parsed.header_text("kid"), Some("k"));
        assert_eq!(parsed.verify(key.public_key()).unwrap(), b"{\"a\":1}");
        let other = SoftwareKey::generate().unwrap();
        assert!(parsed.verify(other.public_key()).is_err());
        let payload = URL_SAFE_NO_PAD.encode(b"{\"a\":2}");
        let mut parts: Vec<&str> = token.split('.').collect();
        parts[1] = &payload;
        let changed = parts.join(".");
        let parsed = Compact::parse(&changed, LIMIT).unwrap();
        assert!(parsed.verify(key.public_key()).is_err());
    }

    #[test]
    fn short_numbers_of_a_der_signature_are_padded() {
        let der = [0x30, 0x08, 0x02, 0x02, 0x00, 0x80, 0x02, 0x02, 0x01, 0x02];
        let fixed = fixed_of_der(&der).unwrap();
        assert_eq!((fixed[31], fixed[30]), (0x80, 0));
        assert_eq!(fixed[62..], [1, 2]);
        for bad in [&der[..9], &[0x30, 0x80], &[], &[0x31, 0x00]] {
            assert!(fixed_of_der(bad).is_none());
        }
        // A hundred signatures meet numbers of every length that occurs.
        let (key, _) = token();
        for index in 0..100 {
            let token = sign(&key, &serde_json::json!({ "n": index }), b"x").unwrap();
            let parsed = Compact::parse(&token, LIMIT).unwrap();
            assert!(parsed.verify(key.public_key()).is_ok());
        }
    }
}
