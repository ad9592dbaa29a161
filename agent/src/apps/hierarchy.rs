//! Where a control group lies in the unified hierarchy.

use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

/// Where `nft` looks for control groups.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// A group as those who name groups know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// From the root of the hierarchy, as `/proc/PID/cgroup` says it: begins with `/`.
    pub path: String,
    /// From [`CGROUP_ROOT`], as `nft` says it.
    pub shown: String,
    /// How many groups deep.
    pub level: u32,
}

/// A folder is no control group that rules could name.
#[derive(Debug, thiserror::Error)]
pub enum NoPlace {
    #[error("not a control group of version 2: {}", .0.display())]
    NotVersion2(PathBuf),
    #[error("control group is not below {CGROUP_ROOT}: {}", .0.display())]
    Elsewhere(PathBuf),
    #[error("control group has a name that rules cannot say: {}", .0.display())]
    Name(PathBuf),
}

impl Place {
    /// Of a folder that is there. Blocks on the file system.
    pub fn of(folder: &Path) -> Result<Self, NoPlace> {
        let is_group = |folder: &Path| {
            statfs(folder).is_ok_and(|kind| kind.filesystem_type() == CGROUP2_SUPER_MAGIC)
        };
        if !is_group(folder) {
            return Err(NoPlace::NotVersion2(folder.to_owned()));
        }
        let root = folder
            .ancestors()
            .take_while(|above| is_group(above))
            .last();
        Self::below(folder, root.unwrap_or(folder))
    }

    fn below(folder: &Path, root: &Path) -> Result<Self, NoPlace> {
        let text = |path: &Path| {
            let text = path.to_str().filter(|text| is_plain(text));
            text.map(ToOwned::to_owned)
                .ok_or_else(|| NoPlace::Name(folder.to_owned()))
        };
        let elsewhere = || NoPlace::Elsewhere(folder.to_owned());
        let inner = folder.strip_prefix(root).map_err(|_| elsewhere())?;
        let shown = folder.strip_prefix(CGROUP_ROOT).map_err(|_| elsewhere())?;
        Ok(Self {
            path: format!("/{}", text(inner)?),
            shown: text(shown)?,
            level: u32::try_from(inner.components().count()).unwrap_or(u32::MAX),
        })
    }
}

/// It ends up in quotes in the text for `nft`.
fn is_plain(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'-' | b'_' | b'@' | b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_group_or_has_a_strange_name_has_no_place() {
        assert!(matches!(
            Place::of(Path::new("/")),
            Err(NoPlace::NotVersion2(_))
        ));
        let root = Path::new("/sys/fs/cgroup/unified");
        for name in ["a b", "a\"b", "a;b", "ä", "a\nb"] {
            let refused = Place::below(&root.join(name), root);
            assert!(matches!(refused, Err(NoPlace::Name(_))), "{name}");
        }
        let other = Path::new("/mnt/cgroup");
        let refused = Place::below(&other.join("apps"), other);
        assert!(matches!(refused, Err(NoPlace::Elsewhere(_))));
    }

    #[test]
    fn a_group_is_named_from_two_roots() {
        for (root, shown) in [
            ("/sys/fs/cgroup", "edgeward/apps/acme-a"),
            ("/sys/fs/cgroup/unified", "unified/edgeward/apps/acme-a"),
        ] {
            let root = Path::new(root);
            let place = Place::below(&root.join("edgeward/apps/acme-a"), root).unwrap();
            assert_eq!(place.path, "/edgeward/apps/acme-a");
            assert_eq!(place.shown, shown);
            assert_eq!(place.level, 3);
        }
    }
}
