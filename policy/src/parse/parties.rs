//! `[profile.x]`, `[group.x]` and `[operator-group.x]`: who, and what they must measure.

use std::collections::BTreeMap;

use edgeward_identity::{SpiffeId, Tier, TrustDomain};
use toml::Spanned;
use toml::de::DeValue;

use super::fields::{Fields, Keys, Reader, Unreadable};
use super::read_labels;
use crate::ast::{GroupDef, ImaDef, Member, OperatorGroupDef, ProfileDef};
use crate::diagnostic::Code;
use crate::profile::{AppControl, MAX_PCR, Mode, PcrBank, Profile, RESETTABLE_PCRS, Violations};
use crate::source::{MAX_LIST, Place, Placed};

/// Longest name, and longest value, of a claim, in bytes each.
const MAX_CLAIM_BYTES: usize = 255;

const PROFILE: Keys = Keys {
    accepted: &[
        "tier",
        "pcr_bank",
        "pcr",
        "firmware_deny",
        "secure_boot",
        "ima",
        "app_control",
        "mode",
        "fresh",
        "offline",
        "apps_pcr",
    ],
    not_enforced: &[],
};
/// PCRs that the operating system extends and nobody resets (TCG PC Client Platform TPM Profile 1.05, 4.4), but for
/// that of IMA.
const APPS_PCRS: [u8; 7] = [8, 9, 11, 12, 13, 14, 15];

const IMA: Keys = Keys {
    accepted: &["allow", "deny", "violations"],
    not_enforced: &[],
};
const GROUP: Keys = Keys {
    accepted: &["match", "profile", "via"],
    not_enforced: &[],
};
const OPERATOR_GROUP: Keys = Keys {
    accepted: &["members"],
    not_enforced: &[],
};

pub(super) const TIERS: [(&str, Tier); 4] = [
    ("hardware", Tier::Hardware),
    ("listed", Tier::Listed),
    ("virtual", Tier::Virtual),
    ("software", Tier::Software),
];

pub(super) fn read_profile(
    reader: &mut Reader<'_, '_>,
    name: &Placed<String>,
    value: &Spanned<DeValue<'_>>,
) -> Option<ProfileDef> {
    let fields = reader.table(value, &format!("profile `{}`", name.value), &PROFILE)?;
    fields.required(reader, "tier");
    let tiers = fields.words(reader, "tier", &TIERS);
    let bank = read_bank(reader, &fields);
    let pcrs = bank.map(|bank| read_pcrs(reader, &fields, bank));
    let firmware_deny = read_firmware(reader, &fields);
    let secure_boot = read_secure_boot(reader, &fields);
    let ima = read_ima(reader, &fields, &name.value);
    let levels = AppControl::ALL.map(|level| (level.as_str(), level));
    let app_control = one_word(reader, &fields, "app_control", &levels);
    let modes = [("enforce", Mode::Enforce), ("monitor", Mode::Monitor)];
    let mode = one_word(reader, &fields, "mode", &modes);
    let fresh = fields.seconds(reader, "fresh");
    let offline = fields.seconds(reader, "offline");
    let apps_pcr = read_apps_pcr(reader, &fields);
    let (tiers, mode) = (tiers.ok()??, mode.ok()?);
    let apps_pcr = apps_pcr.ok()?;
    let ima = ima.ok()?;
    let (fresh, offline) = (fresh.ok()?, offline.ok()?);
    let profile = Profile {
        name: name.value.clone(),
        tiers: tiers.value,
        bank: bank?,
        pcrs: pcrs??,
        firmware_deny: firmware_deny?,
        secure_boot: secure_boot.ok()?,
        ima: None,
        app_control: app_control.ok()?.map(|level| level.value),
        apps_pcr: apps_pcr.map(|(index, _)| index),
        mode: mode.as_ref().map_or(Mode::Enforce, |mode| mode.value),
        fresh: fresh.map(|fresh| fresh.value),
        offline: offline.as_ref().map(|offline| offline.value),
    };
    checks_something(reader, name, &profile, ima.is_some())?;
    if let Some((_, at)) = apps_pcr
        && profile.bank != PcrBank::Sha256
    {
        reader.bad(
            at,
            format!(
                "profile `{}` measures apps in another bank than sha256",
                name.value
            ),
            "the agent's record is of sha256: write pcr_bank = \"sha256\", or leave it out",
        );
    }
    if let Some((index, at)) = apps_pcr
        && profile.pcrs.contains_key(&index)
    {
        reader.bad(
            at,
            format!("PCR {index} is also in `pcr` of profile `{}`", name.value),
            "what runs changes it: it has no value to be compared with",
        );
    }
    Some(ProfileDef {
        at: name.at,
        offline_at: offline.as_ref().map(|offline| offline.at),
        mode_at: mode.map(|mode| mode.at),
        ima,
        profile,
    })
}

/// What a profile says is compared with something, on every machine that it accepts.
fn checks_something(
    reader: &mut Reader<'_, '_>,
    name: &Placed<String>,
    profile: &Profile,
    ima: bool,
) -> Option<()> {
    let compares = profile.compares() || ima;
    let asks = compares || profile.app_control.is_some();
    let only_software = profile.tiers == [Tier::Software];
    let (message, help) = match (if only_software { asks } else { compares }, only_software) {
        (false, false) => (
            "checks nothing of what was booted",
            "name at least one PCR: pcr = { 7 = [\"sha256:…\"] }, or secure_boot, or ima",
        ),
        (true, true) => (
            "compares what a machine without a TPM cannot show",
            "accept another tier, or leave out pcr, secure_boot, ima and app_control",
        ),
        (true, false) | (false, true) => return Some(()),
    };
    reader.found.error_with_help(
        name.at,
        Code::ChecksNothing,
        format!("profile `{}` {message}", name.value),
        help,
    );
    None
}

fn read_secure_boot(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
) -> Result<Option<bool>, Unreadable> {
    let Some(value) = fields.get("secure_boot") else {
        return Ok(None);
    };
    match value.get_ref() {
        DeValue::Boolean(true) => Ok(Some(true)),
        // Read by some as "must be off", by others as "need not be on".
        DeValue::Boolean(false) => {
            let at = reader.place(value.span().start);
            reader.bad(
                at,
                format!("{} is false", fields.what("secure_boot")),
                "write true, or leave it out: then it may be on or off",
            );
            Err(Unreadable)
        }
        _ => {
            reader.wrong_type(value, &fields.what("secure_boot"), "true, without quotes");
            Err(Unreadable)
        }
    }
}

/// The PCR that what runs is measured into.
fn read_apps_pcr(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
) -> Result<Option<(u8, Place)>, Unreadable> {
    let Some(value) = fields.get("apps_pcr") else {
        return Ok(None);
    };
    let DeValue::Integer(integer) = value.get_ref() else {
        reader.wrong_type(value, &fields.what("apps_pcr"), "a number: 14");
        return Err(Unreadable);
    };
    let at = reader.place(value.span().start);
    let index = u8::from_str_radix(integer.as_str(), integer.radix()).ok();
    match index.filter(|index| APPS_PCRS.contains(index)) {
        Some(index) => Ok(Some((index, at))),
        None => {
            reader.bad(
                at,
                format!("not a PCR to rely on: {}", integer.as_str()),
                "one of 8, 9 and 11 to 15: the firmware, IMA and the processor have the others",
            );
            Err(Unreadable)
        }
    }
}

fn read_ima(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
    profile: &str,
) -> Result<Option<ImaDef>, Unreadable> {
    let Some(value) = fields.get("ima") else {
        return Ok(None);
    };
    let what = format!("`ima` of profile `{profile}`");
    let ima = reader.table(value, &what, &IMA).ok_or(Unreadable)?;
    let allow = ima.required_string(reader, "allow");
    let deny = ima.optional_string(reader, "deny");
    let words = [("fail", Violations::Fail), ("ignore", Violations::Ignore)];
    let violations = one_word(reader, &ima, "violations", &words);
    let violations = violations?;
    Ok(Some(ImaDef {
        allow: allow.ok_or(Unreadable)?,
        deny: deny?,
        violations_at: violations.as_ref().map_or(ima.at, |word| word.at),
        violations: violations.map_or(Violations::Fail, |word| word.value),
    }))
}

fn one_word<T: Copy>(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
    key: &str,
    words: &[(&'static str, T)],
) -> Result<Option<Placed<T>>, Unreadable> {
    let Some(text) = fields.optional_string(reader, key)? else {
        return Ok(None);
    };
    let value = reader.word(&text, &fields.what(key), words);
    let value = value.ok_or(Unreadable)?;
    Ok(Some(Placed { value, at: text.at }))
}

fn read_bank(reader: &mut Reader<'_, '_>, fields: &Fields<'_>) -> Option<PcrBank> {
    let banks = PcrBank::ALL.map(|bank| (bank.as_str(), bank));
    match fields.optional_string(reader, "pcr_bank").ok()? {
        None => Some(PcrBank::Sha256),
        Some(text) => reader.word(&text, &fields.what("pcr_bank"), &banks),
    }
}

fn read_pcrs(
    reader: &mut Reader<'_, '_>,
    fields: &Fields<'_>,
    bank: PcrBank,
) -> Option<BTreeMap<u8, Vec<String>>> {
    let Some(value) = fields.get("pcr") else {
        return Some(BTreeMap::new());
    };
    let DeValue::Table(table) = value.get_ref() else {
        reader.wrong_type(value, &fields.what("pcr"), "{ 7 = [\"sha256:…\"] }");
        return None;
    };
    let mut pcrs = BTreeMap::new();
    let mut sound = true;
    for (key, values) in table {
        let at = reader.place(key.span().start);
        let word = key.get_ref().as_ref();
        let index = word.parse::<u8>().ok().filter(|index| {
            *index <= MAX_PCR && !RESETTABLE_PCRS.contains(index) && index.to_string() == word
        });
        let Some(index) = index else {
            reader.bad(
                at,
                format!("not a PCR to rely on: {word:?}"),
                format!(
                    "0 to {MAX_PCR}, but for 16 and 23, which anybody on the machine can reset"
                ),
            );
            sound = false;
            continue;
        };
        let Some(texts) = reader.strings(values, &format!("PCR {index}")) else {
            sound = false;
            continue;
        };
        let mut digests = Vec::new();
        for text in &texts {
            match read_digest(&text.value, bank) {
                Some(digest) => digests.push(digest),
                None => {
                    sound = false;
                    reader.bad(
                        text.at,
                        format!("not a digest of bank {}: {:?}", bank.as_str(), text.value),
                        format!(
                            "write \"{}:\" and {} hex digits",
                            bank.as_str(),
                            bank.digest_bytes() * 2
                        ),
                    );
                }
            }
        }
        digests.sort_unstable();
        digests.dedup();
        pcrs.insert(index, digests);
    }
    sound.then_some(pcrs)
}

fn read_digest(text: &str, bank: PcrBank) -> Option<String> {
    let digits = text.strip_prefix(bank.as_str())?.strip_prefix(':')?;
    let bytes = hex::decode(digits).ok()?;
    (bytes.len() == bank.digest_bytes()).then(|| hex::encode(bytes))
}

fn read_firmware(reader: &mut Reader<'_, '_>, fields: &Fields<'_>) -> Option<Vec<u64>> {
    let Some(value) = fields.get("firmware_deny") else {
        return Some(Vec::new());
    };
    let texts = reader.strings(value, &fields.what("firmware_deny"))?;
    let mut versions = Vec::new();
    for text in &texts {
        let version = text
            .value
            .strip_prefix("0x")
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let Some(version) = version else {
            reader.bad(
                text.at,
                format!("not a TPM firmware version: {:?}", text.value),
                "write 0x and up to 16 hex digits",
            );
            return None;
        };
        versions.push(version);
    }
    versions.sort_unstable();
    versions.dedup();
    Some(versions)
}

pub(super) fn read_group(
    reader: &mut Reader<'_, '_>,
    name: Placed<String>,
    value: &Spanned<DeValue<'_>>,
) -> Option<GroupDef> {
    let what = format!("group `{}`", name.value);
    let fields = reader.table(value, &what, &GROUP)?;
    let matches = fields
        .required(reader, "match")
        .and_then(|value| read_labels(reader, value, &fields.what("match")));
    let profile = fields.optional_string(reader, "profile");
    let via = fields.optional_string(reader, "via");
    let (profile, via) = (profile.ok()?, via.ok()?);
    if let (Some(profile), Some(_)) = (&profile, &via) {
        reader.found.error_with_help(
            profile.at,
            Code::MisplacedCondition,
            format!("{what} has `via` and a profile"),
            "devices measure nothing: the profile belongs to the group that vouches for them",
        );
        return None;
    }
    Some(GroupDef {
        name,
        matches: matches?,
        profile,
        via,
    })
}

pub(super) fn read_operator_group(
    reader: &mut Reader<'_, '_>,
    name: Placed<String>,
    value: &Spanned<DeValue<'_>>,
) -> Option<OperatorGroupDef> {
    let what = format!("operator group `{}`", name.value);
    let fields = reader.table(value, &what, &OPERATOR_GROUP)?;
    let value = fields.required(reader, "members")?;
    let texts = reader.strings(value, &fields.what("members"))?;
    let count = texts.len().min(MAX_LIST);
    let members: Vec<_> = texts
        .into_iter()
        .filter_map(|text| {
            let at = text.at;
            read_member(reader, text).map(|value| Placed { value, at })
        })
        .collect();
    (members.len() == count).then_some(OperatorGroupDef { name, members })
}

/// `name=value`, as an identity provider states it.
fn is_claim(text: &str) -> bool {
    text.split_once('=').is_some_and(|(name, value)| {
        let named = !name.is_empty()
            && name.len() <= MAX_CLAIM_BYTES
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte));
        named
            && !value.is_empty()
            && value.len() <= MAX_CLAIM_BYTES
            && value.trim() == value
            && !value.chars().any(char::is_control)
    })
}

fn read_member(reader: &mut Reader<'_, '_>, text: Placed<String>) -> Option<Member> {
    if let Some(claim) = text.value.strip_prefix("claim:") {
        match is_claim(claim) {
            true => reader.not_enforced(text.at, "membership by SSO claim"),
            false => reader.bad(
                text.at,
                format!("not a claim and its value: {:?}", text.value),
                "write \"claim:groups=acme-service\"",
            ),
        }
        return None;
    }
    if let Some(group) = text.value.strip_prefix("operator-group:") {
        return Some(Member::Group(group.to_owned()));
    }
    let operator = text.value.strip_prefix("operator/").filter(|name| {
        let domain = TrustDomain::new("any.example");
        domain.is_ok_and(|domain| {
            SpiffeId::new(&domain, edgeward_identity::Kind::Operator, name).is_ok()
        })
    });
    match operator {
        Some(name) => Some(Member::Operator(name.to_owned())),
        None => {
            reader.bad(
                text.at,
                format!("not an operator: {:?}", text.value),
                "write \"operator/<name>\" or \"operator-group:<name>\"",
            );
            None
        }
    }
}
