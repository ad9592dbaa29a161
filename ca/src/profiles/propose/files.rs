//! Files that ran across a group and that no allow list has yet.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_evidence::ima::{BOOT_AGGREGATE, ImaEntry, parse_binary};
use edgeward_evidence::tpm::HashAlg;
use edgeward_policy::edit::{EditRefused, add_lines, allow_list};
use edgeward_policy::{DigestList, FileHash, ListedDigest, SourceFile};

use super::{EvidenceView, Machine, SeenFile, Standing};

/// Counts files that are not allowed, and makes the change of the lists.
pub(super) fn unlisted(
    machines: &[(&Machine<'_>, &EvidenceView)],
    sources: &[SourceFile],
    at_least: usize,
) -> Result<(Vec<SeenFile>, String), EditRefused> {
    let mut seen: BTreeMap<(&str, ListedDigest), (BTreeSet<&str>, bool)> = BTreeMap::new();
    for (machine, evidence) in machines {
        let Some(bytes) = evidence.ima_bytes() else {
            continue;
        };
        // It was judged when it came: one that does not parse is not counted.
        let Ok(entries) = parse_binary(&bytes) else {
            continue;
        };
        for profile in &machine.profiles {
            let Some(ima) = &profile.ima else { continue };
            let (allow, deny) = (Held::new(&ima.allow), Held::new(&ima.deny));
            for file in entries.iter().filter_map(listed) {
                if !allow.hold(&file) {
                    let denied = deny.hold(&file);
                    let entry = seen.entry((profile.name.as_str(), file)).or_default();
                    entry.0.insert(machine.name);
                    entry.1 = denied;
                }
            }
        }
    }
    let files: Vec<SeenFile> = seen
        .into_iter()
        .map(|((profile, file), (nodes, denied))| SeenFile {
            profile: profile.to_owned(),
            line: file.to_string(),
            nodes: nodes.len(),
            example: nodes.first().map(|name| (*name).to_owned()),
            what: match (denied, nodes.len() >= at_least.max(1)) {
                (true, _) => Standing::Denied,
                (false, true) => Standing::Proposed,
                (false, false) => Standing::TooFew,
            },
        })
        .collect();
    let diff = diff(&files, sources)?;
    Ok((files, diff))
}

fn diff(files: &[SeenFile], sources: &[SourceFile]) -> Result<String, EditRefused> {
    let mut lines: BTreeMap<&str, (&SourceFile, BTreeSet<String>)> = BTreeMap::new();
    for file in files.iter().filter(|file| file.what == Standing::Proposed) {
        if let Some(list) = allow_list(sources, &file.profile) {
            let entry = lines.entry(list.path.as_str());
            let (_, lines) = entry.or_insert_with(|| (list, BTreeSet::new()));
            lines.insert(file.line.clone());
        }
    }
    let mut out = String::new();
    for (list, lines) in lines.values() {
        out.push_str(&add_lines(&list.path, &list.text, lines)?.diff);
    }
    Ok(out)
}

/// An entry as a list would name it. A file whose digest is unknown or broken, or whose name no list can hold, is none.
fn listed(entry: &ImaEntry<'_>) -> Option<ListedDigest> {
    if entry.is_violation() || entry.path() == BOOT_AGGREGATE {
        return None;
    }
    let file = entry.file();
    let hash = match file.hash {
        HashAlg::Sha1 => return None,
        HashAlg::Sha256 => FileHash::Sha256,
        HashAlg::Sha384 => FileHash::Sha384,
        HashAlg::Sha512 => FileHash::Sha512,
    };
    let path = std::str::from_utf8(entry.path()).ok()?;
    let fits = path.trim() == path && !path.chars().any(char::is_control);
    fits.then(|| ListedDigest {
        hash,
        digest: file.digest.into(),
        path: Some(path.into()),
    })
}

struct Held<'l>(BTreeSet<&'l ListedDigest>);

impl<'l> Held<'l> {
    fn new(list: &'l DigestList) -> Self {
        Self(list.entries().unwrap_or_default().iter().collect())
    }

    /// Here, or wherever it lies.
    fn hold(&self, file: &ListedDigest) -> bool {
        let anywhere = ListedDigest {
            path: None,
            ..file.clone()
        };
        self.0.contains(file) || self.0.contains(&anywhere)
    }
}
