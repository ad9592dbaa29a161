//! Loading a process's one TOML file with its environment twins.
//!
//! A key `listen` has the twin `<PREFIX>LISTEN`, a key `port` in table `[metrics]` the twin
//! `<PREFIX>METRICS__PORT`. A twin wins over the file. Its text is read as a TOML value if it is one, else as a
//! string. Unknown keys are refused, in the file with line and column.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Table;

pub mod duration;

/// Largest configuration file, in bytes.
pub const MAX_CONFIG_BYTES: u64 = 1024 * 1024;
/// Separates table and key in the name of an environment twin.
const NESTING: &str = "__";

/// Why a configuration is not usable. All are the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum BadConfig {
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{}: larger than the limit in bytes: {MAX_CONFIG_BYTES}", path.display())]
    TooLarge { path: PathBuf },
    #[error("{}:{line}:{column}: {message}", path.display())]
    At {
        path: PathBuf,
        line: usize,
        column: usize,
        message: String,
    },
    #[error("{} with environment: {message}", path.display())]
    Merged { path: PathBuf, message: String },
    #[error("environment {name}: {message}")]
    Environment { name: String, message: String },
    #[error("{key}: {message}")]
    Value { key: &'static str, message: String },
}

impl BadConfig {
    /// A value that is well-formed but makes no sense.
    pub fn value(key: &'static str, message: impl Into<String>) -> Self {
        Self::Value {
            key,
            message: message.into(),
        }
    }
}

/// Which environment variables are twins: those that start with `prefix` and with none of the whole words of `except`.
#[derive(Clone, Copy, Debug)]
pub struct Twins {
    pub prefix: &'static str,
    pub except: &'static [&'static str],
}

/// Reads `path` and the process's environment.
pub fn load<T: DeserializeOwned>(path: &Path, twins: Twins) -> Result<T, BadConfig> {
    load_with(path, twins, std::env::vars())
}

/// As [`load`], with the environment handed in.
pub fn load_with<T: DeserializeOwned>(
    path: &Path,
    twins: Twins,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<T, BadConfig> {
    let text = read(path)?;
    let overlay = overlay(twins, environment)?;
    if overlay.is_empty() {
        return toml::from_str(&text).map_err(|error| located(path, &text, &error));
    }
    let mut table: Table = toml::from_str(&text).map_err(|error| located(path, &text, &error))?;
    merge(&mut table, overlay);
    table
        .try_into()
        .map_err(|error: toml::de::Error| BadConfig::Merged {
            path: path.to_owned(),
            message: error.message().to_owned(),
        })
}

fn read(path: &Path) -> Result<String, BadConfig> {
    let unreadable = |source| BadConfig::Unreadable {
        path: path.to_owned(),
        source,
    };
    if std::fs::metadata(path).map_err(unreadable)?.len() > MAX_CONFIG_BYTES {
        return Err(BadConfig::TooLarge {
            path: path.to_owned(),
        });
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

fn overlay(
    twins: Twins,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Table, BadConfig> {
    let mut overlay = Table::new();
    for (name, text) in environment {
        let Some(key) = name.strip_prefix(twins.prefix) else {
            continue;
        };
        if twins.except.iter().any(|words| begins_with(&name, words)) {
            continue;
        }
        let parts: Vec<String> = key.split(NESTING).map(str::to_ascii_lowercase).collect();
        if parts.iter().any(String::is_empty) {
            return Err(BadConfig::Environment {
                name,
                message: "names no key".to_owned(),
            });
        }
        insert(&mut overlay, &parts, value_of(&text));
    }
    Ok(overlay)
}

fn value_of(text: &str) -> toml::Value {
    toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

fn insert(table: &mut Table, path: &[String], value: toml::Value) {
    match path {
        [] => {}
        [key] => {
            table.insert(key.clone(), value);
        }
        [key, rest @ ..] => {
            let inner = table
                .entry(key.clone())
                .or_insert_with(|| toml::Value::Table(Table::new()));
            if let toml::Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

fn merge(table: &mut Table, overlay: Table) {
    for (key, value) in overlay {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(over)) => merge(inner, over),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}

fn located(path: &Path, text: &str, error: &toml::de::Error) -> BadConfig {
    let offset = error.span().map_or(0, |span| span.start);
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .map_or(0, |tail| tail.chars().count())
        + 1;
    BadConfig::At {
        path: path.to_owned(),
        line,
        column,
        message: error.message().to_owned(),
    }
}

/// `EDGEWARD_LOG` begins `EDGEWARD_LOG_FORMAT` and not `EDGEWARD_LOGS__BOOT`.
fn begins_with(name: &str, words: &str) -> bool {
    name.strip_prefix(words)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('_') || words.ends_with('_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        listen: String,
        #[serde(default)]
        metrics: Metrics,
    }

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Metrics {
        port: u16,
    }

    const TWINS: Twins = Twins {
        prefix: "EDGEWARD_",
        except: &["EDGEWARD_CONFIG"],
    };

    fn load_text(text: &str, environment: &[(&str, &str)]) -> Result<Sample, BadConfig> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        load_with(file.path(), TWINS, environment)
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error = load_text("listen = \"a\"\nlistne = \"b\"\n", &[])
            .unwrap_err()
            .to_string();
        assert!(error.contains(":2:1: unknown field `listne`"), "{error}");
    }

    #[test]
    fn a_twin_wins_over_the_file() {
        let environment = [
            ("EDGEWARD_LISTEN", "b"),
            ("EDGEWARD_METRICS__PORT", "9"),
            ("EDGEWARD_CONFIG", "x"),
            ("OTHER", "y"),
        ];
        let sample = load_text("listen = \"a\"\n", &environment).unwrap();
        assert_eq!(sample.listen, "b");
        assert_eq!(sample.metrics.port, 9);
    }

    #[test]
    fn an_unknown_twin_is_refused() {
        let error = load_text("listen = \"a\"\n", &[("EDGEWARD_LISTNE", "b")]).unwrap_err();
        assert!(error.to_string().contains("listne"), "{error}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error =
            load_with::<Sample>(Path::new("/nonexistent/x.toml"), TWINS, std::iter::empty())
                .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("/nonexistent/x.toml: cannot be read")
        );
    }
}
