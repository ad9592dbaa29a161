//! `[workload.x]`: which processes on which nodes may have an identity of their own.

use edgeward_identity::{Kind, SpiffeId, TrustDomain};
use toml::Spanned;
use toml::de::DeValue;

use super::fields::{Fields, Keys, Reader, Unreadable};
use super::programs::is_program;
use crate::ast::WorkloadDef;
use crate::diagnostic::Code;
use crate::seconds::Seconds;
use crate::source::Placed;
use crate::workload::{
    DEFAULT_WORKLOAD_TTL, MAX_PROGRAM_PATH_BYTES, MAX_UNIT_BYTES, MAX_WORKLOAD_TTL,
    MIN_WORKLOAD_TTL, Pod, Selectors,
};

const WORKLOAD: Keys = Keys {
    accepted: &["on", "match", "ttl"],
    not_enforced: &[],
};
const MATCH: Keys = Keys {
    accepted: &["uid", "gid", "path", "digest", "unit", "k8s", "app"],
    not_enforced: &[],
};
const POD: Keys = Keys {
    accepted: &["namespace", "service_account", "pod_uid"],
    not_enforced: &[],
};
/// Longest name of a Kubernetes namespace (RFC 1123 label) and service account (RFC 1123 subdomain), in bytes.
const MAX_NAMESPACE_BYTES: usize = 63;
const MAX_SERVICE_ACCOUNT_BYTES: usize = 253;
/// Hex digits of a SHA-256.
const DIGEST_DIGITS: usize = 64;
/// Characters of a pod's UID: a UUID, or for a static pod 32 hex digits.
const POD_UID_CHARACTERS: [usize; 2] = [36, 32];

/// Name and definition of every `[workload.x]`. The name is the path of the SPIFFE ID, so it may hold `/`.
pub(super) fn named<'t>(
    reader: &mut Reader<'_, '_>,
    value: &'t Spanned<DeValue<'t>>,
) -> Vec<(Placed<String>, &'t Spanned<DeValue<'t>>)> {
    let DeValue::Table(table) = value.get_ref() else {
        reader.wrong_type(value, "`workload`", "[workload.name]");
        return Vec::new();
    };
    let mut named = Vec::new();
    for (key, value) in table {
        let name = Placed {
            value: key.get_ref().to_string(),
            at: reader.place(key.span().start),
        };
        let domain = TrustDomain::new("any.example");
        let path = domain.and_then(|domain| SpiffeId::new(&domain, Kind::Workload, &name.value));
        match path {
            Ok(_) if reader.is_label(&name, "name of the workload") => named.push((name, value)),
            Ok(_) => {}
            Err(error) => reader.bad(
                name.at,
                format!(
                    "name of the workload is no path of a SPIFFE ID: {error}: {:?}",
                    name.value
                ),
                "write segments of A-Z a-z 0-9 . - _ with single / between them: \"acme/collector\"",
            ),
        }
    }
    named
}

pub(super) fn read_workload(
    reader: &mut Reader<'_, '_>,
    name: Placed<String>,
    value: &Spanned<DeValue<'_>>,
) -> Option<WorkloadDef> {
    let what = format!("workload `{}`", name.value);
    let fields = reader.table(value, &what, &WORKLOAD)?;
    let on = fields.required_string(reader, "on");
    let matches = fields.required(reader, "match");
    let selectors = matches.and_then(|value| read_selectors(reader, &fields.what("match"), value));
    let ttl = read_ttl(reader, &fields);
    Some(WorkloadDef {
        name,
        on: on?,
        selectors: selectors?,
        ttl: ttl.ok()?,
    })
}

fn read_ttl(reader: &mut Reader<'_, '_>, fields: &Fields<'_>) -> Result<Seconds, Unreadable> {
    let Some(ttl) = fields.seconds(reader, "ttl")? else {
        return Ok(DEFAULT_WORKLOAD_TTL);
    };
    if (MIN_WORKLOAD_TTL..=MAX_WORKLOAD_TTL).contains(&ttl.value) {
        return Ok(ttl.value);
    }
    reader.bad(
        ttl.at,
        format!("{} is out of bounds", fields.what("ttl")),
        format!(
            "from {}s to {}h; left out it is {}h",
            MIN_WORKLOAD_TTL.get(),
            MAX_WORKLOAD_TTL.get() / 3600,
            DEFAULT_WORKLOAD_TTL.get() / 3600
        ),
    );
    Err(Unreadable)
}

fn read_selectors(
    reader: &mut Reader<'_, '_>,
    what: &str,
    value: &Spanned<DeValue<'_>>,
) -> Option<Placed<Selectors>> {
    let at = reader.place(value.span().start);
    let before = reader.found.count();
    let fields = reader.table(value, what, &MATCH)?;
    let uid = read_number(reader, &fields, "uid");
    let gid = read_number(reader, &fields, "gid");
    let path = read_text(reader, &fields, "path", is_program_path, &path_help());
    let digest = read_digest(reader, &fields);
    let unit = read_text(
        reader,
        &fields,
        "unit",
        is_unit,
        "write a unit's full name: collector.service",
    );
    let k8s = match fields.get("k8s") {
        None => Ok(None),
        Some(value) => read_pod(reader, &fields.what("k8s"), value).map(Some),
    };
    let app = read_text(
        reader,
        &fields,
        "app",
        is_program,
        "write the application as it is published: \"<publisher>/<name>\"",
    );
    let selectors = Selectors {
        uid: uid.ok()?,
        gid: gid.ok()?,
        path: path.ok()?,
        digest: digest.ok()?,
        unit: unit.ok()?,
        k8s: k8s.ok()?,
        app: app.ok()?,
    };
    // A key that was refused already is no second error.
    if selectors.is_empty() && reader.found.count() == before {
        reader.found.error_with_help(
            at,
            Code::ChecksNothing,
            format!("{what} is empty: every process would be this workload"),
            "name at least one of uid, gid, path, digest, unit, k8s, app",
        );
        return None;
    }
    (!selectors.is_empty()).then_some(Placed {
        value: selectors,
        at,
    })
}

fn read_pod(
    reader: &mut Reader<'_, '_>,
    what: &str,
    value: &Spanned<DeValue<'_>>,
) -> Result<Pod, Unreadable> {
    let at = reader.place(value.span().start);
    let fields = reader.table(value, what, &POD).ok_or(Unreadable)?;
    let namespace = read_text(
        reader,
        &fields,
        "namespace",
        |text| is_kubernetes_name(text, MAX_NAMESPACE_BYTES, false),
        "1 to 63 of a-z 0-9 and -, not - at either end",
    );
    let service_account = read_text(
        reader,
        &fields,
        "service_account",
        |text| is_kubernetes_name(text, MAX_SERVICE_ACCOUNT_BYTES, true),
        "1 to 253 of a-z 0-9 - and ., not - at either end",
    );
    let pod_uid = read_text(
        reader,
        &fields,
        "pod_uid",
        is_pod_uid,
        "write the pod's metadata.uid, in lower case",
    );
    let pod = Pod {
        namespace: namespace?,
        service_account: service_account?,
        pod_uid: pod_uid?,
    };
    if pod.service_account.is_some() && pod.namespace.is_none() {
        reader.bad(
            at,
            format!("{what} names a service account without its namespace"),
            "add namespace: names of service accounts repeat in every namespace",
        );
        return Err(Unreadable);
    }
    if pod.is_empty() {
        reader.found.error_with_help(
            at,
            Code::ChecksNothing,
            format!("{what} is empty: every pod would be this workload"),
            "name at least one of namespace, service_account, pod_uid",
        );
        return Err(Unreadable);
    }
    Ok(pod)
}

fn read_number(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
    key: &str,
) -> Result<Option<u32>, Unreadable> {
    let Some(value) = fields.get(key) else {
        return Ok(None);
    };
    let DeValue::Integer(integer) = value.get_ref() else {
        reader.wrong_type(value, &fields.what(key), "a number: 990");
        return Err(Unreadable);
    };
    let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
    // All ones is what the kernel says for an ID that it cannot map: it names nobody.
    match number.filter(|number| *number != u32::MAX) {
        Some(number) => Ok(Some(number)),
        None => {
            let at = reader.place(value.span().start);
            reader.bad(
                at,
                format!(
                    "{} is no user or group: {}",
                    fields.what(key),
                    integer.as_str()
                ),
                "from 0 to 4294967294",
            );
            Err(Unreadable)
        }
    }
}

fn read_text(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
    key: &str,
    fits: impl Fn(&str) -> bool,
    help: &str,
) -> Result<Option<String>, Unreadable> {
    let Some(text) = fields.optional_string(reader, key)? else {
        return Ok(None);
    };
    if fits(&text.value) {
        return Ok(Some(text.value));
    }
    reader.bad(
        text.at,
        format!("{} does not fit: {:?}", fields.what(key), text.value),
        help,
    );
    Err(Unreadable)
}

fn read_digest(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
) -> Result<Option<String>, Unreadable> {
    let digits = |text: &str| {
        let digits = text.strip_prefix("sha256:")?;
        let fits = digits.len() == DIGEST_DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit());
        fits.then(|| digits.to_ascii_lowercase())
    };
    let help = "write \"sha256:\" and the 64 hex digits that sha256sum prints for the program";
    let text = read_text(
        reader,
        fields,
        "digest",
        |text| digits(text).is_some(),
        help,
    )?;
    Ok(text.as_deref().and_then(digits))
}

fn path_help() -> String {
    format!("an absolute path without . and .. parts, at most {MAX_PROGRAM_PATH_BYTES} bytes")
}

fn is_program_path(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('/') else {
        return false;
    };
    text.len() <= MAX_PROGRAM_PATH_BYTES
        && !text.chars().any(char::is_control)
        && rest.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn is_unit(text: &str) -> bool {
    let marks = b":-_.\\@";
    let known = [".service", ".scope", ".socket", ".mount", ".swap"];
    let stem = known.iter().find_map(|suffix| text.strip_suffix(suffix));
    text.len() <= MAX_UNIT_BYTES
        && stem.is_some_and(|stem| !stem.is_empty())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || marks.contains(&byte))
}

fn is_kubernetes_name(text: &str, longest: usize, dots: bool) -> bool {
    let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    !text.is_empty()
        && text.len() <= longest
        && text
            .bytes()
            .all(|byte| good(byte) || (dots && byte == b'.'))
        && !text.starts_with(['-', '.'])
        && !text.ends_with(['-', '.'])
}

fn is_pod_uid(text: &str) -> bool {
    POD_UID_CHARACTERS.contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b) || b == b'-')
}
