//! What a node says of its applications: for people, and nothing rests on it. What runs there is proven by evidence.

use edgeward_apps::{AppName, Digest, Version};
use edgeward_identity::Timestamp;
use edgeward_wire::limits::MAX_APPS_SAID;
use edgeward_wire::said::{LEVELS, STATES};
use edgeward_wire::v1;

/// Longest code that a node may give, in bytes.
const MAX_CODE_BYTES: usize = 64;
/// What a node said last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppsSaid {
    /// How applications are controlled at exec; empty: none on this node.
    pub app_control: &'static str,
    /// Number of the director's word that it holds.
    pub director_number: u64,
    /// Number of the word that `apps` is by; below the one that it holds while it still acts on that.
    pub acted_on: u64,
    pub apps: Vec<AppSaid>,
    /// Number of the newest record of its log that changed what runs; 0: none.
    pub measured: u64,
    pub at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppSaid {
    pub app: AppName,
    pub version: Option<Version>,
    pub digest: Option<Digest>,
    pub state: &'static str,
    pub code: String,
    /// In bytes.
    pub fetched: u64,
    pub wanted: u64,
}

/// The message is not one that an agent makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not what an agent says of applications")]
pub struct NotSaid;

impl AppsSaid {
    pub fn of(state: v1::AppsState, at: Timestamp) -> Result<Self, NotSaid> {
        if state.apps.len() > MAX_APPS_SAID {
            return Err(NotSaid);
        }
        Ok(Self {
            app_control: one_of(&LEVELS, &state.app_control)?,
            director_number: state.director_number,
            acted_on: state.acted_on,
            apps: state
                .apps
                .into_iter()
                .map(AppSaid::of)
                .collect::<Result<_, _>>()?,
            measured: state.measured,
            at,
        })
    }
}

impl AppSaid {
    fn of(said: v1::AppState) -> Result<Self, NotSaid> {
        let version = match said.version.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| NotSaid)?),
        };
        let digest = match said.sha256.as_slice() {
            [] => None,
            bytes => Some(Digest::from_bytes(bytes.try_into().map_err(|_| NotSaid)?)),
        };
        let plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        if said.code.len() > MAX_CODE_BYTES || !said.code.bytes().all(plain) {
            return Err(NotSaid);
        }
        Ok(Self {
            app: said.app.parse().map_err(|_| NotSaid)?,
            version,
            digest,
            state: one_of(&STATES, &said.state)?,
            code: said.code,
            fetched: said.fetched,
            wanted: said.wanted,
        })
    }
}

fn one_of(known: &[&'static str], text: &str) -> Result<&'static str, NotSaid> {
    known
        .iter()
        .find(|known| **known == text)
        .copied()
        .ok_or(NotSaid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn said() -> v1::AppsState {
        v1::AppsState {
            app_control: "fanotify".to_owned(),
            director_number: 7,
            acted_on: 6,
            apps: vec![v1::AppState {
                app: "acme/x".to_owned(),
                version: "2.3".to_owned(),
                sha256: vec![1; 32],
                state: "running".to_owned(),
                ..v1::AppState::default()
            }],
            measured: 3,
        }
    }

    #[test]
    fn what_no_agent_says_is_refused() {
        let wrong: [fn(&mut v1::AppsState); 8] = [
            |said| said.app_control = "total".to_owned(),
            |said| said.apps = vec![said.apps[0].clone(); MAX_APPS_SAID + 1],
            |said| said.apps[0].app = "acme".to_owned(),
            |said| said.apps[0].version = "v1".to_owned(),
            |said| said.apps[0].sha256 = vec![1; 31],
            |said| said.apps[0].state = String::new(),
            |said| said.apps[0].code = "a\u{1b}[2J".to_owned(),
            |said| said.apps[0].code = "a".repeat(65),
        ];
        for (index, change) in wrong.iter().enumerate() {
            let mut said = said();
            change(&mut said);
            assert_eq!(AppsSaid::of(said, NOW), Err(NotSaid), "{index}");
        }
    }

    #[test]
    fn every_word_of_an_agent_is_taken() {
        for (level, state) in LEVELS.iter().cycle().zip(STATES) {
            let mut said = said();
            said.app_control = (*level).to_owned();
            said.apps[0].state = state.to_owned();
            let read = AppsSaid::of(said, NOW).unwrap();
            assert_eq!((read.app_control, read.apps[0].state), (*level, state));
        }
    }

    #[test]
    fn what_an_agent_says_is_read() {
        let mut said = said();
        said.apps.push(v1::AppState {
            app: "acme/y".to_owned(),
            state: "refused".to_owned(),
            code: "app-not-allowed".to_owned(),
            ..v1::AppState::default()
        });
        let read = AppsSaid::of(said, NOW).unwrap();
        assert_eq!((read.app_control, read.director_number), ("fanotify", 7));
        assert_eq!(read.measured, 3);
        assert_eq!(read.acted_on, 6);
        assert_eq!(read.apps[0].version, Some("2.3".parse().unwrap()));
        assert_eq!(
            (read.apps[1].version.as_ref(), read.apps[1].digest),
            (None, None)
        );
        assert_eq!(read.apps[1].code, "app-not-allowed");
    }
}
