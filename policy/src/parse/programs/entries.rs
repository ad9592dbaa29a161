//! The entries of `allow`, `deny` and `install` in `[apps.x]`.

use std::collections::BTreeSet;

use edgeward_apps::admit::{Allow, Deny};
use edgeward_apps::director::Wish;
use edgeward_apps::{AppName, Digest, PublisherName, Version};
use toml::Spanned;
use toml::de::DeValue;

use super::publisher_name;
use crate::apps::Install;
use crate::parse::fields::{Fields, Keys, Reader};
use crate::source::Placed;

const ALLOW: Keys = Keys {
    accepted: &["publisher", "name", "min_version", "digest"],
    not_enforced: &[],
};
const DENY: Keys = Keys {
    accepted: &["publisher", "name", "digest"],
    not_enforced: &[],
};
const INSTALL: Keys = Keys {
    accepted: &["publisher", "name", "version", "state", "reach"],
    not_enforced: &[],
};
/// The version that says: the highest there is.
const LATEST: &str = "latest";

pub(super) fn read_allow(
    reader: &mut Reader<'_, '_>,
    value: &Spanned<DeValue<'_>>,
    what: &str,
) -> Option<Placed<Allow>> {
    let fields = reader.table(value, what, &ALLOW)?;
    let Placed { value: named, at } = read_named(reader, &fields, what)?;
    let version = fields.optional_string(reader, "min_version").ok()?;
    match (named, version) {
        (Named::Digest(digest), None) => Some(Placed {
            value: Allow::Digest { digest },
            at,
        }),
        (Named::Publisher(publisher, name), version) if name.is_some() || version.is_none() => {
            let min_version = match version {
                Some(text) => Some(read_version(reader, &text, &fields.what("min_version"))?),
                None => None,
            };
            Some(Placed {
                value: Allow::Publisher {
                    publisher,
                    name,
                    min_version,
                },
                at,
            })
        }
        _ => {
            not_one_thing(reader, &fields, what, ONE_ALLOW);
            None
        }
    }
}

pub(super) fn read_deny(
    reader: &mut Reader<'_, '_>,
    value: &Spanned<DeValue<'_>>,
    what: &str,
) -> Option<Placed<Deny>> {
    if let DeValue::Table(table) = value.get_ref()
        && let Some((key, _)) = table.get_key_value("min_version")
    {
        let at = reader.place(key.span().start);
        let message = format!("`min_version` in {what}, which denies every version");
        let help = "deny a digest, or raise the `min_version` of the allow";
        reader.bad(at, message, help);
        return None;
    }
    let fields = reader.table(value, what, &DENY)?;
    let named = read_named(reader, &fields, what)?;
    Some(Placed {
        value: match named.value {
            Named::Digest(digest) => Deny::Digest { digest },
            Named::Publisher(publisher, name) => Deny::Publisher { publisher, name },
        },
        at: named.at,
    })
}

pub(super) fn read_install(
    reader: &mut Reader<'_, '_>,
    value: &Spanned<DeValue<'_>>,
    what: &str,
) -> Option<Placed<Install>> {
    let fields = reader.table(value, what, &INSTALL)?;
    let publisher = fields.required_string(reader, "publisher")?;
    let at = publisher.at;
    let publisher = publisher_name(reader, &publisher, &fields.what("publisher"))?;
    let name = fields.required_string(reader, "name")?;
    let app = read_app(reader, &fields, &publisher, &name)?;
    let version = match fields.optional_string(reader, "version").ok()? {
        None => None,
        Some(text) if text.value == LATEST => None,
        Some(text) => Some(read_version(reader, &text, &fields.what("version"))?),
    };
    let states = [("running", Wish::Running), ("installed", Wish::Installed)];
    let wish = match fields.optional_string(reader, "state").ok()? {
        None => Wish::Running,
        Some(word) => reader.word(&word, &fields.what("state"), &states)?,
    };
    let reach = match fields.get("reach") {
        None => BTreeSet::new(),
        Some(value) => read_reach(reader, value, &fields.what("reach"))?,
    };
    Some(Placed {
        value: Install {
            app,
            version,
            wish,
            reach,
        },
        at,
    })
}

fn read_reach(
    reader: &mut Reader<'_, '_>,
    value: &Spanned<DeValue<'_>>,
    what: &str,
) -> Option<BTreeSet<String>> {
    let mut reach = BTreeSet::new();
    for text in reader.strings(value, what)? {
        let named = text.value.split_once('/');
        if named.is_none_or(|(service, interface)| service.is_empty() || interface.is_empty()) {
            let message = format!("{what} names no interface: {:?}", text.value);
            reader.bad(text.at, message, "write \"<service>/<interface>\"");
            return None;
        }
        if !reach.insert(text.value) {
            reader.bad(
                text.at,
                format!("{what} names an interface twice"),
                "name it once",
            );
            return None;
        }
    }
    Some(reach)
}

enum Named {
    Digest(Digest),
    Publisher(PublisherName, Option<String>),
}

const ONE_ALLOW: &str =
    "name a digest alone, or a publisher, and then if wanted name and min_version";
const ONE_DENY: &str = "name a digest alone, or a publisher, and then if wanted name";

/// A digest alone, or a publisher and what of it.
fn read_named(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
    what: &str,
) -> Option<Placed<Named>> {
    let publisher = fields.optional_string(reader, "publisher").ok()?;
    let name = fields.optional_string(reader, "name").ok()?;
    let digest = fields.optional_string(reader, "digest").ok()?;
    match (digest, publisher) {
        (Some(text), None) if name.is_none() => {
            let digits = text.value.strip_prefix("sha256:");
            let digest = digits.and_then(|digits| digits.to_ascii_lowercase().parse().ok());
            if digest.is_none() {
                let message = format!("{} is no digest: {:?}", fields.what("digest"), text.value);
                reader.bad(text.at, message, "write \"sha256:\" and 64 hex digits");
            }
            digest.map(|digest| Placed {
                value: Named::Digest(digest),
                at: text.at,
            })
        }
        (None, Some(publisher)) => {
            let at = publisher.at;
            let publisher = publisher_name(reader, &publisher, &fields.what("publisher"))?;
            let name = match name {
                Some(name) => Some(read_app(reader, fields, &publisher, &name)?),
                None => None,
            };
            let name = name.map(|app| app.name().to_owned());
            Some(Placed {
                value: Named::Publisher(publisher, name),
                at,
            })
        }
        _ => {
            let help = match fields.get("min_version") {
                Some(_) => ONE_ALLOW,
                None => ONE_DENY,
            };
            not_one_thing(reader, fields, what, help);
            None
        }
    }
}

fn not_one_thing(reader: &mut Reader<'_, '_>, fields: &Fields<'_>, what: &str, help: &str) {
    let message = format!("{what} does not say one thing");
    reader.bad(fields.at, message, help);
}

fn read_app(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
    publisher: &PublisherName,
    name: &Placed<String>,
) -> Option<AppName> {
    let app = AppName::new(publisher, &name.value);
    if let Err(error) = &app {
        let message = format!("{} does not fit: {:?}", fields.what("name"), name.value);
        reader.bad(name.at, message, error.to_string());
    }
    app.ok()
}

fn read_version(reader: &mut Reader<'_, '_>, text: &Placed<String>, what: &str) -> Option<Version> {
    let version = text.value.parse::<Version>();
    if version.is_err() {
        let message = format!("{what} is no version: {:?}", text.value);
        let help = "write numbers with dots between: 2.3.0";
        reader.bad(text.at, message, help);
    }
    version.ok()
}
