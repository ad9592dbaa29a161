//! `[publisher.x]` and `[apps.x]`: who may sign what runs, and what may run where.

use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::DeValue;

use super::fields::{Fields, Keys, MAX_NAME_BYTES, Reader, Unreadable};
use crate::ast::{AppsDef, PublisherDef};
use crate::source::{MAX_LIST, Placed};

/// Most keys of one publisher.
const MAX_PUBLISHER_KEYS: usize = 64;
/// Hex digits of an Ed25519 public key (RFC 8032, section 5.1.5).
const ED25519_DIGITS: usize = 64;
/// Hex digits of an uncompressed P-256 point (SEC 1, section 2.3.3): 04, then both coordinates.
const P256_DIGITS: usize = 130;
/// Most parts of a version, and the largest number in each.
const MAX_VERSION_PARTS: usize = 4;

const PUBLISHER: Keys = Keys {
    accepted: &["keys", "threshold"],
    not_enforced: &[],
};
const APPS: Keys = Keys {
    accepted: &["allow", "deny", "mode"],
    not_enforced: &[],
};
const APP: Keys = Keys {
    accepted: &["publisher", "name", "min_version", "digest"],
    not_enforced: &[],
};

pub(super) fn read_publisher(
    reader: &mut Reader<'_, '_>,
    name: Placed<String>,
    value: &Spanned<DeValue<'_>>,
) -> Option<PublisherDef> {
    let what = format!("publisher `{}`", name.value);
    let fields = reader.table(value, &what, &PUBLISHER)?;
    let keys = fields
        .required(reader, "keys")
        .and_then(|value| reader.strings(value, &fields.what("keys")));
    let threshold = fields.required(reader, "threshold");
    let keys = keys?;
    let mut seen = BTreeSet::new();
    for key in &keys {
        let Some(plain) = public_key(&key.value) else {
            reader.bad(
                key.at,
                format!("not a public key: {:?}", key.value),
                format!(
                    "write \"ed25519:\" and {ED25519_DIGITS} hex digits, or \"ecdsa-p256:\" and {P256_DIGITS} of the uncompressed point"
                ),
            );
            return None;
        };
        if !seen.insert(plain) {
            let help = "one key that counts twice would lower the threshold";
            reader.bad(key.at, format!("{what} names a key twice"), help);
            return None;
        }
    }
    if keys.len() > MAX_PUBLISHER_KEYS {
        let help = format!("at most {MAX_PUBLISHER_KEYS}");
        reader.bad(name.at, format!("{what} has more keys than fit"), help);
        return None;
    }
    let value = threshold?;
    let DeValue::Integer(integer) = value.get_ref() else {
        reader.wrong_type(value, &fields.what("threshold"), "a number: 2");
        return None;
    };
    let number = usize::from_str_radix(integer.as_str(), integer.radix()).ok();
    if number.is_none_or(|number| number == 0 || number > keys.len()) {
        let at = reader.place(value.span().start);
        reader.bad(
            at,
            format!(
                "{} cannot be met: {}",
                fields.what("threshold"),
                integer.as_str()
            ),
            format!("from 1 to the number of keys, {}", keys.len()),
        );
        return None;
    }
    Some(PublisherDef { name })
}

/// The key in lower case, if it is one.
fn public_key(text: &str) -> Option<String> {
    let (kind, digits) = text.split_once(':')?;
    let (length, start) = match kind {
        "ed25519" => (ED25519_DIGITS, ""),
        "ecdsa-p256" => (P256_DIGITS, "04"),
        _ => return None,
    };
    let fits = digits.len() == length
        && digits.starts_with(start)
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    fits.then(|| text.to_ascii_lowercase())
}

pub(super) fn read_apps(
    reader: &mut Reader<'_, '_>,
    name: Placed<String>,
    value: &Spanned<DeValue<'_>>,
) -> Option<AppsDef> {
    let what = format!("apps `{}`", name.value);
    let fields = reader.table(value, &what, &APPS)?;
    fields.required(reader, "allow");
    let allow = read_entries(reader, &fields, "allow");
    let deny = read_entries(reader, &fields, "deny");
    let mode = fields.optional_string(reader, "mode");
    if let Some(mode) = mode.ok()? {
        reader.word(
            &mode,
            &fields.what("mode"),
            &[("enforce", ()), ("observe", ())],
        )?;
    }
    let (mut publishers, deny) = (allow.ok()?, deny.ok()?);
    publishers.extend(deny);
    Some(AppsDef { name, publishers })
}

/// The publishers that a list names.
fn read_entries(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
    key: &str,
) -> Result<Vec<Placed<String>>, Unreadable> {
    let Some(value) = fields.get(key) else {
        return Ok(Vec::new());
    };
    let what = fields.what(key);
    let DeValue::Array(array) = value.get_ref() else {
        let wanted = "a list: [{ publisher = \"acme\", name = \"collector\" }]";
        reader.wrong_type(value, &what, wanted);
        return Err(Unreadable);
    };
    if array.len() > MAX_LIST {
        let at = reader.place(value.span().start);
        let message = format!("{what} has more entries than the limit: {MAX_LIST}");
        reader.bad(at, message, "name publishers rather than digests");
        return Err(Unreadable);
    }
    let mut publishers = Vec::new();
    let mut sound = true;
    for entry in array {
        match read_entry(reader, entry, &format!("an entry of {what}")) {
            Some(publisher) => publishers.extend(publisher),
            None => sound = false,
        }
    }
    if sound {
        Ok(publishers)
    } else {
        Err(Unreadable)
    }
}

/// `Some(None)`: known by its digest.
fn read_entry(
    reader: &mut Reader<'_, '_>,
    value: &Spanned<DeValue<'_>>,
    what: &str,
) -> Option<Option<Placed<String>>> {
    let fields = reader.table(value, what, &APP)?;
    let publisher = fields.optional_string(reader, "publisher").ok()?;
    let name = fields.optional_string(reader, "name").ok()?;
    let version = fields.optional_string(reader, "min_version").ok()?;
    let digest = fields.optional_string(reader, "digest").ok()?;
    let by_digest = digest.is_some() && publisher.is_none() && name.is_none() && version.is_none();
    let by_publisher =
        digest.is_none() && publisher.is_some() && (name.is_some() || version.is_none());
    if !by_digest && !by_publisher {
        reader.bad(
            fields.at,
            format!("{what} does not say one thing"),
            "name a digest alone, or a publisher, and then if wanted name and min_version",
        );
        return None;
    }
    if let Some(name) = &name
        && !reader.is_name(name, &fields.what("name"))
    {
        return None;
    }
    if let Some(version) = &version
        && !is_version(&version.value)
    {
        let message = format!(
            "{} is no version: {:?}",
            fields.what("min_version"),
            version.value
        );
        reader.bad(
            version.at,
            message,
            "write numbers with dots between: 2.3.0",
        );
        return None;
    }
    if let Some(digest) = &digest {
        let bytes = digest.value.strip_prefix("sha256:").map(hex::decode);
        if !bytes.is_some_and(|bytes| bytes.is_ok_and(|bytes| bytes.len() == 32)) {
            let message = format!("{} is no digest: {:?}", fields.what("digest"), digest.value);
            reader.bad(digest.at, message, "write \"sha256:\" and 64 hex digits");
            return None;
        }
    }
    Some(publisher)
}

/// `publisher/name`.
pub(super) fn is_program(text: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.len() <= MAX_NAME_BYTES
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    text.split_once('/')
        .is_some_and(|(publisher, name)| is_name(publisher) && is_name(name))
}

/// Numbers with dots between them, none with a zero in front.
pub(super) fn is_version(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() <= MAX_VERSION_PARTS
        && parts.iter().all(|part| {
            let number = part.parse::<u32>();
            number.is_ok_and(|number| number.to_string() == *part)
        })
}
