//! Where the store is: a path, or a URL that is safe to connect to.

use std::path::PathBuf;
use std::str::FromStr;

use super::StoreError;

/// Where the store is, checked: `sqlite:PATH`, a path, or `postgres://…` without a password in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database(Location);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    Sqlite(PathBuf),
    Postgres(String),
}

impl Database {
    /// A SQLite file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Location::Sqlite(path.into()))
    }

    pub fn is_postgres(&self) -> bool {
        matches!(self.0, Location::Postgres(_))
    }

    pub(super) fn location(&self) -> &Location {
        &self.0
    }

    pub(super) fn url(&self) -> String {
        match &self.0 {
            Location::Sqlite(path) => {
                // What would end the path in a URL.
                let path = path
                    .to_string_lossy()
                    .replace('%', "%25")
                    .replace('?', "%3f")
                    .replace('#', "%23");
                format!("sqlite://{path}")
            }
            Location::Postgres(url) => url.clone(),
        }
    }
}

impl FromStr for Database {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            if holds_password(text) {
                return Err(StoreError::PasswordInUrl);
            }
            return match is_local(text) || parameter(text, "sslmode") == Some("verify-full") {
                true => Ok(Self(Location::Postgres(text.to_owned()))),
                false => Err(StoreError::Plaintext),
            };
        }
        let path = text
            .strip_prefix("sqlite://")
            .or_else(|| text.strip_prefix("sqlite:"))
            .unwrap_or(text);
        match path.is_empty() || path.contains("://") || path == ":memory:" {
            true => Err(StoreError::Url(text.to_owned())),
            false => Ok(Self::file(path)),
        }
    }
}

fn holds_password(url: &str) -> bool {
    let (authority, _) = parts(url);
    let in_authority = authority
        .rsplit_once('@')
        .is_some_and(|(user, _)| user.contains(':'));
    in_authority || parameter(url, "password").is_some()
}

/// Whether the server is on this machine: a socket, or a loopback address.
fn is_local(url: &str) -> bool {
    let (authority, _) = parts(url);
    let host_port = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let named = match host_port.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => host_port.split(':').next().unwrap_or(host_port),
    };
    [
        Some(named),
        parameter(url, "host"),
        parameter(url, "hostaddr"),
    ]
    .into_iter()
    .flatten()
    .all(|host| {
        let is_loopback = host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
        host.is_empty()
            || host.starts_with('/')
            || host.starts_with("%2F")
            || host.starts_with("%2f")
            || host == "localhost"
            || is_loopback
    })
}

fn parameter<'a>(url: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = parts(url);
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then_some(value)
    })
}

/// Authority and query of a URL.
fn parts(url: &str) -> (&str, &str) {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    (before.split('/').next().unwrap_or(""), query)
}
