//! Where a token is, as RFC 7512 writes it: `pkcs11:token=edgeward?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/edgeward/pin`.

use std::path::PathBuf;
use std::str::FromStr;

/// Longest URI, in bytes.
pub const MAX_URI_BYTES: usize = 1024;
/// What the labels of our keys begin with unless `object` says otherwise.
const DEFAULT_OBJECT: &str = "edgeward";

/// A token, the library that talks to it, and the file with its PIN.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenUri {
    /// Label of the token. Slot numbers change when tokens come and go, so none is taken.
    pub token: String,
    pub serial: Option<String>,
    /// Our keys are called `<object>-<name>`.
    pub object: String,
    pub module: PathBuf,
    pub pin: PathBuf,
}

/// Why a text names no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUri {
    #[error("longer than the limit in bytes: {MAX_URI_BYTES}")]
    TooLong,
    #[error("does not begin with pkcs11:")]
    Scheme,
    #[error("not an attribute that is understood here: {0}")]
    Attribute(String),
    #[error("attribute comes twice: {0}")]
    Twice(&'static str),
    #[error("attribute is missing: {0}")]
    Missing(&'static str),
    #[error("badly encoded: {0}")]
    Encoding(String),
    #[error("a pin has no place in a configuration: name a file with pin-source")]
    PinValue,
    #[error("pin-source is no absolute path of a file")]
    PinSource,
    #[error("module-path is no absolute path")]
    ModulePath,
}

impl FromStr for TokenUri {
    type Err = BadUri;

    fn from_str(text: &str) -> Result<Self, BadUri> {
        if text.len() > MAX_URI_BYTES {
            return Err(BadUri::TooLong);
        }
        let rest = text.strip_prefix("pkcs11:").ok_or(BadUri::Scheme)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (mut token, mut serial, mut object) = (None, None, None);
        let (mut module, mut pin) = (None, None);
        for pair in path.split(';').filter(|pair| !pair.is_empty()) {
            match split(pair)? {
                ("token", value) => set("token", &mut token, value)?,
                ("serial", value) => set("serial", &mut serial, value)?,
                ("object", value) => set("object", &mut object, value)?,
                (other, _) => return Err(unknown(other)),
            }
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match split(pair)? {
                ("module-path", value) => set("module-path", &mut module, value)?,
                ("pin-source", value) => set("pin-source", &mut pin, value)?,
                ("pin-value", _) => return Err(BadUri::PinValue),
                (other, _) => return Err(unknown(other)),
            }
        }
        let module = PathBuf::from(module.ok_or(BadUri::Missing("module-path"))?);
        let pin = pin.ok_or(BadUri::Missing("pin-source"))?;
        let pin = pin.strip_prefix("file:").unwrap_or(&pin);
        // file:///path is file:/path.
        let pin = PathBuf::from(pin.strip_prefix("//").unwrap_or(pin));
        if !module.is_absolute() {
            return Err(BadUri::ModulePath);
        }
        if !pin.is_absolute() {
            return Err(BadUri::PinSource);
        }
        Ok(Self {
            token: token
                .filter(|token| !token.is_empty())
                .ok_or(BadUri::Missing("token"))?,
            serial,
            object: object.unwrap_or_else(|| DEFAULT_OBJECT.to_owned()),
            module,
            pin,
        })
    }
}

impl TokenUri {
    /// What the key `name` is called in the token.
    pub fn label(&self, name: &str) -> String {
        format!("{}-{name}", self.object)
    }
}

fn split(pair: &str) -> Result<(&str, String), BadUri> {
    let (name, value) = pair.split_once('=').ok_or_else(|| unknown(pair))?;
    Ok((name, decode(value)?))
}

fn unknown(name: &str) -> BadUri {
    BadUri::Attribute(name.chars().take(64).collect())
}

fn set(name: &'static str, slot: &mut Option<String>, value: String) -> Result<(), BadUri> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(BadUri::Twice(name)),
    }
}

fn decode(text: &str) -> Result<String, BadUri> {
    let bad = || BadUri::Encoding(text.chars().take(64).collect());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (high, low) = rest.next().zip(rest.next()).ok_or_else(bad)?;
        let mut decoded = [0];
        hex::decode_to_slice([high, low], &mut decoded).map_err(|_| bad())?;
        bytes.extend(decoded);
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
        .ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "pkcs11:token=my%20hsm;serial=01;object=plant?module-path=/usr/lib/p11.so&pin-source=file:/etc/pin";

    #[test]
    fn what_names_no_token_clearly_is_refused() {
        let module = "module-path=/usr/lib/p11.so";
        for (text, refusal) in [
            ("token=a".to_owned(), BadUri::Scheme),
            (
                format!("pkcs11:token=a?{module}&pin-value=1234"),
                BadUri::PinValue,
            ),
            (
                format!("pkcs11:?{module}&pin-source=/p"),
                BadUri::Missing("token"),
            ),
            (
                format!("pkcs11:token=?{module}&pin-source=/p"),
                BadUri::Missing("token"),
            ),
            (
                format!("pkcs11:token=a?{module}"),
                BadUri::Missing("pin-source"),
            ),
            (
                format!("pkcs11:token=a?{module}&pin-source=pin"),
                BadUri::PinSource,
            ),
            (
                "pkcs11:token=a?module-path=p11.so&pin-source=/p".to_owned(),
                BadUri::ModulePath,
            ),
            (
                format!("pkcs11:token=a;token=b?{module}&pin-source=/p"),
                BadUri::Twice("token"),
            ),
            (
                format!("pkcs11:token=a;slot-id=3?{module}&pin-source=/p"),
                BadUri::Attribute("slot-id".to_owned()),
            ),
            (
                format!("pkcs11:token=%4?{module}&pin-source=/p"),
                BadUri::Encoding("%4".to_owned()),
            ),
            (
                format!("pkcs11:token=%00?{module}&pin-source=/p"),
                BadUri::Encoding("%00".to_owned()),
            ),
            (
                format!("pkcs11:token={}", "a".repeat(MAX_URI_BYTES)),
                BadUri::TooLong,
            ),
        ] {
            assert_eq!(text.parse::<TokenUri>(), Err(refusal), "{text}");
        }
    }

    #[test]
    fn a_token_is_named_by_label_library_and_pin_file() {
        let uri: TokenUri = GOOD.parse().unwrap();
        assert_eq!(uri.token, "my hsm");
        assert_eq!(uri.serial.as_deref(), Some("01"));
        assert_eq!(uri.label("issuing"), "plant-issuing");
        assert_eq!(uri.module, PathBuf::from("/usr/lib/p11.so"));
        assert_eq!(uri.pin, PathBuf::from("/etc/pin"));
        let triple = GOOD.replace("file:/etc/pin", "file:///etc/pin");
        assert_eq!(triple.parse::<TokenUri>(), Ok(uri));
    }
}
