//! Rules from where the configuration says: those that come with the program, then those of a folder.

use std::path::{Path, PathBuf};

use super::rule::{BadRules, MAX_FILE_BYTES, Rules};
use crate::config::Alerts;

/// What comes with the program; `deploy/alerts/defaults.toml`.
pub(super) const DEFAULTS: &str = include_str!("../../../deploy/alerts/defaults.toml");
/// Most files of one folder.
const MAX_FILES: usize = 100;

/// Why the rules are not usable. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum NoRules {
    #[error("{}: {source}", path.display())]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: more files than the limit: {MAX_FILES}", .0.display())]
    TooMany(PathBuf),
    #[error("{}:{}: {bad}", path.display(), bad.line())]
    Bad { path: PathBuf, bad: BadRules },
}

/// The rules in force.
pub fn load(config: &Alerts) -> Result<Rules, NoRules> {
    let mut rules = Rules::default();
    if config.defaults {
        read(&mut rules, Path::new("defaults.toml"), DEFAULTS)?;
    }
    if let Some(folder) = &config.rules {
        for path in files(folder)? {
            load_file(&mut rules, &path)?;
        }
    }
    Ok(rules)
}

/// Takes in one file.
pub fn load_file(rules: &mut Rules, path: &Path) -> Result<(), NoRules> {
    let unreadable = |source| NoRules::Unreadable {
        path: path.to_owned(),
        source,
    };
    let length = std::fs::metadata(path).map_err(unreadable)?.len();
    if length > u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX) {
        let bad = BadRules::TooLarge;
        return Err(NoRules::Bad {
            path: path.to_owned(),
            bad,
        });
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    read(rules, path, &text)
}

fn read(rules: &mut Rules, path: &Path, text: &str) -> Result<(), NoRules> {
    rules.read(text).map_err(|bad| NoRules::Bad {
        path: path.to_owned(),
        bad,
    })
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, NoRules> {
    let unreadable = |source| NoRules::Unreadable {
        path: folder.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            return Err(NoRules::TooMany(folder.to_owned()));
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_rule_is_named_by_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.toml");
        let config = Alerts {
            rules: Some(folder.path().to_owned()),
            defaults: true,
            quarantine: true,
            quarantine_per_hour: None,
            sinks: Vec::new(),
        };
        let good = "[alert.good]\nseverity = 'minor'\nsummary = 's'\nwithin = '10s'\n\
             threshold = { type = ['token.refused'] }\n";
        let refused = |text: &str| {
            std::fs::write(&path, format!("{good}{text}")).unwrap();
            load(&config)
                .map(|rules| rules.len())
                .unwrap_err()
                .to_string()
        };
        for (text, place, why) in [
            ("[alert.x]\nseverity = 'loud'\n", "own.toml:7: ", "loud"),
            (
                "\n[alert.x]\nsummary = 's'\n",
                "own.toml:7: ",
                "severity is missing",
            ),
            (
                "[alert.\"x\"]\nseverity = 'minor'\n",
                "own.toml:6: ",
                "summary is missing",
            ),
        ] {
            let said = refused(text);
            assert!(said.contains(place) && said.contains(why), "{said}");
        }
        std::fs::write(&path, good).unwrap();
        assert!(load(&config).unwrap().get("good").is_some());
    }
}
