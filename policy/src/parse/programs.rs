//! `[publisher.x]`, `[apps_root]` and `[apps.x]`: who may sign what runs, and what may run where.

use std::collections::BTreeSet;

use edgeward_apps::admit::{MAX_PUBLISHER_KEYS, Mode};
use edgeward_apps::image::KeyText;
use edgeward_apps::{AppName, Digest, PublisherKeys, PublisherName, Version};
use toml::Spanned;
use toml::de::DeValue;

use super::fields::{Fields, Keys, Reader, Unreadable};
use crate::ast::{AppsDef, PublisherDef};
use crate::source::{MAX_LIST, Placed};

mod entries;

use entries::{read_allow, read_deny, read_install};

/// Hex digits of an Ed25519 public key (RFC 8032, section 5.1.5).
const ED25519_DIGITS: usize = 64;
/// Hex digits of an uncompressed P-256 point (SEC 1, section 2.3.3): 04, then both coordinates.
const P256_DIGITS: usize = 130;

const PUBLISHER: Keys = Keys {
    accepted: &["keys", "threshold", "cosign"],
    not_enforced: &[],
};
const COSIGN: Keys = Keys {
    accepted: &["keys", "threshold"],
    not_enforced: &[],
};
const APPS_ROOT: Keys = Keys {
    accepted: &["sha256"],
    not_enforced: &[],
};
const APPS: Keys = Keys {
    accepted: &["allow", "deny", "install", "mode"],
    not_enforced: &[],
};

pub(super) fn read_publisher(
    reader: &mut Reader<'_, '_>,
    name: Placed<String>,
    value: &Spanned<DeValue<'_>>,
) -> Option<PublisherDef> {
    let what = format!("publisher `{}`", name.value);
    let fields = reader.table(value, &what, &PUBLISHER)?;
    let own = publisher_name(reader, &name, "name of the publisher");
    let keys = read_keys(reader, &fields, &what);
    let cosign = fields.get("cosign").map(|value| {
        let what = fields.what("cosign");
        let fields = reader.table(value, &what, &COSIGN)?;
        read_keys(reader, &fields, &what)
    });
    Some(PublisherDef {
        name: Placed {
            value: own?,
            at: name.at,
        },
        keys: keys?,
        cosign: match cosign {
            Some(keys) => Some(keys?),
            None => None,
        },
    })
}

/// Keys, and how many of them it takes.
fn read_keys(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
    what: &str,
) -> Option<PublisherKeys> {
    let texts = fields
        .required(reader, "keys")
        .and_then(|value| reader.strings(value, &fields.what("keys")));
    let threshold = fields.required(reader, "threshold");
    let texts = texts?;
    let mut keys = BTreeSet::new();
    for text in &texts {
        let Ok(key) = text.value.parse::<KeyText>() else {
            reader.bad(
                text.at,
                format!("not a public key: {:?}", text.value),
                format!(
                    "write \"ed25519:\" and {ED25519_DIGITS} hex digits, or \"ecdsa-p256:\" and {P256_DIGITS} of the uncompressed point"
                ),
            );
            return None;
        };
        if !keys.insert(key) {
            let help = "one key that counts twice would lower the threshold";
            reader.bad(text.at, format!("{what} names a key twice"), help);
            return None;
        }
    }
    if keys.len() > MAX_PUBLISHER_KEYS {
        let help = format!("at most {MAX_PUBLISHER_KEYS}");
        reader.bad(fields.at, format!("{what} has more keys than fit"), help);
        return None;
    }
    let value = threshold?;
    let DeValue::Integer(integer) = value.get_ref() else {
        reader.wrong_type(value, &fields.what("threshold"), "a number: 2");
        return None;
    };
    let number = u16::from_str_radix(integer.as_str(), integer.radix()).ok();
    let threshold = number.filter(|number| (1..=keys.len()).contains(&usize::from(*number)));
    let Some(threshold) = threshold else {
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
    };
    Some(PublisherKeys { keys, threshold })
}

/// The root that nodes without one take.
pub(super) fn read_apps_root(
    reader: &mut Reader<'_, '_>,
    value: &Spanned<DeValue<'_>>,
) -> Option<Placed<Digest>> {
    let fields = reader.table(value, "`apps_root`", &APPS_ROOT)?;
    let text = fields.required_string(reader, "sha256")?;
    match text.value.to_ascii_lowercase().parse() {
        Ok(value) => Some(Placed { value, at: text.at }),
        Err(_) => {
            reader.bad(
                text.at,
                format!("{} is no digest: {:?}", fields.what("sha256"), text.value),
                "write the 64 hex digits that `edgeward publisher root` shows of the root file",
            );
            None
        }
    }
}

pub(super) fn read_apps(
    reader: &mut Reader<'_, '_>,
    name: Placed<String>,
    value: &Spanned<DeValue<'_>>,
) -> Option<AppsDef> {
    let what = format!("apps `{}`", name.value);
    let fields = reader.table(value, &what, &APPS)?;
    fields.required(reader, "allow");
    let allow = read_list(reader, &fields, "allow", read_allow);
    let deny = read_list(reader, &fields, "deny", read_deny);
    let install = read_list(reader, &fields, "install", read_install);
    let word = fields.optional_string(reader, "mode").ok()?;
    let words = [("enforce", Mode::Enforce), ("observe", Mode::Observe)];
    let mode = match &word {
        None => Mode::Enforce,
        Some(word) => reader.word(word, &fields.what("mode"), &words)?,
    };
    Some(AppsDef {
        name,
        allow: allow.ok()?,
        deny: deny.ok()?,
        install: install.ok()?,
        mode,
        observed_at: word.filter(|_| mode == Mode::Observe).map(|word| word.at),
    })
}

type ReadEntry<T> = fn(&mut Reader<'_, '_>, &Spanned<DeValue<'_>>, &str) -> Option<Placed<T>>;

fn read_list<T>(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
    key: &str,
    read: ReadEntry<T>,
) -> Result<Vec<Placed<T>>, Unreadable> {
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
    let what = format!("an entry of {what}");
    let read = array.iter().map(|entry| read(reader, entry, &what));
    let entries: Vec<Placed<T>> = read.flatten().collect();
    match entries.len() == array.len() {
        true => Ok(entries),
        false => Err(Unreadable),
    }
}

/// A publisher by its name.
fn publisher_name(
    reader: &mut Reader<'_, '_>,
    name: &Placed<String>,
    what: &str,
) -> Option<PublisherName> {
    let read = name.value.parse::<PublisherName>();
    if let Err(error) = &read {
        let message = format!("{what} does not fit: {:?}", name.value);
        reader.bad(name.at, message, error.to_string());
    }
    read.ok()
}

/// `publisher/name`.
pub(super) fn is_program(text: &str) -> bool {
    text.parse::<AppName>().is_ok()
}

/// Numbers with dots between them, none with a zero in front.
pub(super) fn is_version(text: &str) -> bool {
    text.parse::<Version>().is_ok()
}
