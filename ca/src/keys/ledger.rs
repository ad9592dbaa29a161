//! Which signing authorities there are, and in which state each is. Pure: told the time, does no I/O.
//!
//! `prepared -> published -> active -> old -> tainted -> retired`, only forward. One authority of each kind is active,
//! and one at most is on its way there. The ledger is written as a whole after every step; whatever else a step needs
//! is on disk before, so a stop between two steps leaves the step before.

use edgeward_identity::{SpkiHash, Timestamp};
use serde::{Deserialize, Serialize};

/// Format of the file.
const VERSION: u32 = 1;
/// Most authorities that are remembered, retired ones included: the oldest retired are forgotten first.
const MAX_REMEMBERED: usize = 64;
/// Most steps that an agent which was away can catch up with; see [`edgeward_identity::bundle::MAX_STEPS`].
const MAX_STEPS: usize = edgeward_identity::bundle::MAX_STEPS;

/// What an authority signs.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Issuing certificates, the key set and the next set of roots.
    Root,
    /// SVIDs.
    Issuing,
}

/// Where an authority is in its life.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Made; nobody knows it yet.
    Prepared,
    /// Nodes learn to trust it; it signs nothing yet.
    Published,
    /// Signs.
    Active,
    /// Signs nothing any more; what it signed is good and goes as it is renewed.
    Old,
    /// What it signed is being replaced at once.
    Tainted,
    /// Trusted by nobody.
    Retired,
}

/// Where a key is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    File,
    Pkcs11,
}

/// One signing authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    pub role: Role,
    pub key: SpkiHash,
    /// Of its files and of its key in a token.
    pub name: String,
    pub place: Place,
    pub state: State,
    /// When it came into this state.
    pub since: Timestamp,
    /// An issuing authority: its root. A root: the one before it, which cross-signed it.
    pub above: Option<SpkiHash>,
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    version: u32,
    /// Of the trust bundle; rises with every change of the set of roots.
    pub sequence: u64,
    /// Signed sets of roots in hex, oldest first.
    pub steps: Vec<String>,
    /// Percent of active nodes that must hold the published root before it becomes active.
    pub activate_at: u8,
    pub authorities: Vec<Authority>,
}

/// Why an authority does not take a step. The operator's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    #[error("no such authority: {0}")]
    Unknown(String),
    #[error("several authorities begin with {0}")]
    Ambiguous(String),
    #[error("authority is {}: {advice}", .state.as_str())]
    State { state: State, advice: &'static str },
    #[error("a rotation is under way: activate or retire {0} first")]
    UnderWay(SpkiHash),
    #[error("an earlier root is still trusted: retire {0} first")]
    Crowded(SpkiHash),
    #[error("no rotation is under way")]
    Nothing,
}

impl NotNow {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "authority_unknown",
            Self::Ambiguous(_) => "authority_ambiguous",
            Self::State { .. } => "authority_state",
            Self::UnderWay(_) => "rotation_under_way",
            Self::Crowded(_) => "root_still_trusted",
            Self::Nothing => "rotation_none",
        }
    }
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Issuing => "issuing",
        }
    }
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Published => "published",
            Self::Active => "active",
            Self::Old => "old",
            Self::Tainted => "tainted",
            Self::Retired => "retired",
        }
    }

    /// Whether a root in this state is in the trust bundle.
    pub fn is_trusted(self) -> bool {
        matches!(
            self,
            Self::Published | Self::Active | Self::Old | Self::Tainted
        )
    }
}

impl Ledger {
    /// A trust domain as it is made, or as an earlier version left it.
    pub fn first(root: Authority, issuing: Authority) -> Self {
        Self {
            version: VERSION,
            sequence: 1,
            steps: Vec::new(),
            activate_at: 100,
            authorities: vec![root, issuing],
        }
    }

    /// Whether this version reads it: known format, one active authority of each role.
    pub fn is_sound(&self) -> bool {
        let one = |role, state| self.in_state(role, state).count() == 1;
        self.version == VERSION
            && one(Role::Root, State::Active)
            && one(Role::Issuing, State::Active)
    }

    pub fn in_state(&self, role: Role, state: State) -> impl Iterator<Item = &Authority> {
        self.authorities
            .iter()
            .filter(move |authority| authority.role == role && authority.state == state)
    }

    pub fn active(&self, role: Role) -> Option<&Authority> {
        self.in_state(role, State::Active).next()
    }

    /// The one that is on its way to become active.
    pub fn coming(&self, role: Role) -> Option<&Authority> {
        self.in_state(role, State::Prepared)
            .chain(self.in_state(role, State::Published))
            .next()
    }

    /// The roots that members trust, in the order they came.
    pub fn trusted_roots(&self) -> impl Iterator<Item = &Authority> {
        self.authorities
            .iter()
            .filter(|authority| authority.role == Role::Root && authority.state.is_trusted())
    }

    pub fn get(&self, key: &SpkiHash) -> Option<&Authority> {
        self.authorities.iter().find(|known| known.key == *key)
    }

    /// By the beginning of its key's hash.
    pub fn find(&self, key: &str) -> Result<&Authority, NotNow> {
        let shown = || key.chars().take(64).collect::<String>();
        let mut found = self
            .authorities
            .iter()
            .filter(|known| !key.is_empty() && known.key.to_string().starts_with(key));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err(NotNow::Unknown(shown())),
            (Some(_), Some(_)) => Err(NotNow::Ambiguous(shown())),
        }
    }

    /// Whether a rotation of this role may begin.
    pub fn may_prepare(&self, role: Role) -> Result<(), NotNow> {
        for other in [Role::Root, Role::Issuing] {
            if let Some(coming) = self.coming(other) {
                return Err(NotNow::UnderWay(coming.key));
            }
        }
        let earlier = self
            .in_state(Role::Root, State::Old)
            .chain(self.in_state(Role::Root, State::Tainted))
            .next();
        match (role, earlier) {
            // Three roots would make chains that no agent follows.
            (Role::Root, Some(root)) => Err(NotNow::Crowded(root.key)),
            _ => Ok(()),
        }
    }

    /// With new authorities, all prepared.
    #[must_use]
    pub fn prepared(mut self, new: impl IntoIterator<Item = Authority>) -> Self {
        self.authorities.extend(new);
        while self.authorities.len() > MAX_REMEMBERED {
            let Some(oldest) = self
                .authorities
                .iter()
                .position(|known| known.state == State::Retired)
            else {
                break;
            };
            self.authorities.remove(oldest);
        }
        self
    }

    /// What was prepared is published; a root comes with the signed set that names it.
    #[must_use]
    pub fn published(mut self, step: Option<Vec<u8>>, now: Timestamp) -> Self {
        if let Some(step) = step {
            self.step(&step);
        }
        self.turn(now, |known| {
            (known.state == State::Prepared).then_some(State::Published)
        });
        self
    }

    /// What was published signs from now on; what signed until now is old.
    pub fn activated(mut self, now: Timestamp) -> Result<Self, NotNow> {
        let coming: Vec<Role> = self
            .authorities
            .iter()
            .filter(|known| known.state == State::Published)
            .map(|known| known.role)
            .collect();
        if coming.is_empty() {
            return Err(NotNow::Nothing);
        }
        self.turn(now, |known| match known.state {
            State::Active if coming.contains(&known.role) => Some(State::Old),
            State::Published => Some(State::Active),
            _ => None,
        });
        Ok(self)
    }

    /// An old authority, and what is below it, is to be replaced at once.
    pub fn tainted(mut self, key: &SpkiHash, now: Timestamp) -> Result<Self, NotNow> {
        let state = self
            .get(key)
            .map(|known| known.state)
            .ok_or_else(|| NotNow::Unknown(key.to_string()))?;
        let advice = match state {
            State::Old => "",
            State::Active => "rotate it first, then taint it",
            State::Prepared | State::Published => "it has signed nothing; retire gives it up",
            State::Tainted | State::Retired => "nothing is left to do",
        };
        if state != State::Old {
            return Err(NotNow::State { state, advice });
        }
        self.turn(now, |known| {
            let falls = known.key == *key || is_below(known, key);
            (falls && known.state == State::Old).then_some(State::Tainted)
        });
        Ok(self)
    }

    /// Whether this one may be retired.
    pub fn may_retire(&self, key: &SpkiHash) -> Result<&Authority, NotNow> {
        let authority = self
            .get(key)
            .ok_or_else(|| NotNow::Unknown(key.to_string()))?;
        let advice = match authority.state {
            State::Active => "rotate it first, then retire it",
            State::Retired => "nothing is left to do",
            State::Prepared | State::Published | State::Old | State::Tainted => {
                return match (authority.role, authority.above) {
                    // What was made together is given up together.
                    (Role::Issuing, Some(root)) if self.is_coming(&root) => {
                        Err(NotNow::UnderWay(root))
                    }
                    _ => Ok(authority),
                };
            }
        };
        Err(NotNow::State {
            state: authority.state,
            advice,
        })
    }

    /// Retired with everything below it; a root that was published comes with the signed set that leaves it out.
    #[must_use]
    pub fn retired(mut self, key: &SpkiHash, step: Option<Vec<u8>>, now: Timestamp) -> Self {
        if let Some(step) = step {
            self.step(&step);
        }
        self.turn(now, |known| {
            let falls = known.key == *key || is_below(known, key);
            (falls && known.state != State::Retired).then_some(State::Retired)
        });
        self
    }

    /// The issuing authorities that would fall with this one, itself included.
    pub fn issuing_with(&self, key: &SpkiHash) -> Vec<&Authority> {
        self.authorities
            .iter()
            .filter(|known| {
                known.role == Role::Issuing && (known.key == *key || is_below(known, key))
            })
            .collect()
    }

    fn is_coming(&self, root: &SpkiHash) -> bool {
        self.coming(Role::Root)
            .is_some_and(|coming| coming.key == *root)
    }

    fn step(&mut self, step: &[u8]) {
        self.sequence = self.sequence.saturating_add(1);
        self.steps.push(hex::encode(step));
        let surplus = self.steps.len().saturating_sub(MAX_STEPS);
        self.steps.drain(..surplus);
    }

    fn turn(&mut self, now: Timestamp, next: impl Fn(&Authority) -> Option<State>) {
        for known in &mut self.authorities {
            if let Some(state) = next(known) {
                known.state = state;
                known.since = now;
            }
        }
    }
}

fn is_below(authority: &Authority, root: &SpkiHash) -> bool {
    authority.role == Role::Issuing && authority.above == Some(*root)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn key(byte: u8) -> SpkiHash {
        SpkiHash::from_bytes([byte; 32])
    }

    fn authority(role: Role, byte: u8, state: State, above: Option<u8>) -> Authority {
        Authority {
            role,
            key: key(byte),
            name: format!("{}-{byte}", role.as_str()),
            place: Place::File,
            state,
            since: NOW,
            above: above.map(key),
        }
    }

    fn first() -> Ledger {
        Ledger::first(
            authority(Role::Root, 1, State::Active, None),
            authority(Role::Issuing, 2, State::Active, Some(1)),
        )
    }

    fn rotating_root() -> Ledger {
        first().prepared([
            authority(Role::Root, 3, State::Prepared, Some(1)),
            authority(Role::Issuing, 4, State::Prepared, Some(3)),
        ])
    }

    fn state(ledger: &Ledger, byte: u8) -> State {
        ledger.get(&key(byte)).unwrap().state
    }

    #[test]
    fn what_is_active_is_neither_tainted_nor_retired() {
        for byte in [1, 2] {
            assert!(matches!(
                first().tainted(&key(byte), NOW),
                Err(NotNow::State { .. })
            ));
            assert!(matches!(
                first().may_retire(&key(byte)),
                Err(NotNow::State { .. })
            ));
        }
        assert!(matches!(
            first().tainted(&key(9), NOW),
            Err(NotNow::Unknown(_))
        ));
        assert_eq!(first().activated(NOW), Err(NotNow::Nothing));
    }

    #[test]
    fn one_rotation_at_a_time() {
        for role in [Role::Root, Role::Issuing] {
            assert!(matches!(
                rotating_root().may_prepare(role),
                Err(NotNow::UnderWay(_))
            ));
        }
        let turned = rotating_root()
            .published(Some(vec![1]), NOW)
            .activated(NOW)
            .unwrap();
        assert_eq!(turned.may_prepare(Role::Issuing), Ok(()));
        assert_eq!(turned.may_prepare(Role::Root), Err(NotNow::Crowded(key(1))));
    }

    #[test]
    fn a_root_turns_with_the_issuing_authority_below_it() {
        let published = rotating_root().published(Some(vec![1]), NOW);
        assert_eq!(published.sequence, 2);
        assert_eq!(published.trusted_roots().count(), 2);
        let turned = published.activated(NOW).unwrap();
        assert!(turned.is_sound());
        let states = [1, 2, 3, 4].map(|byte| state(&turned, byte));
        assert_eq!(
            states,
            [State::Old, State::Old, State::Active, State::Active]
        );
        let tainted = turned.tainted(&key(1), NOW).unwrap();
        assert_eq!(state(&tainted, 2), State::Tainted);
        let retired = tainted.retired(&key(1), Some(vec![2]), NOW);
        assert_eq!(state(&retired, 2), State::Retired);
        assert_eq!(retired.sequence, 3);
        assert_eq!(retired.trusted_roots().count(), 1);
        assert_eq!(retired.may_prepare(Role::Root), Ok(()));
    }

    #[test]
    fn a_rotation_can_be_given_up_as_a_whole() {
        let published = rotating_root().published(Some(vec![1]), NOW);
        assert_eq!(published.may_retire(&key(4)), Err(NotNow::UnderWay(key(3))));
        assert!(published.may_retire(&key(3)).is_ok());
        let given_up = published.retired(&key(3), Some(vec![2]), NOW);
        assert!(given_up.is_sound());
        assert_eq!(state(&given_up, 4), State::Retired);
        assert_eq!(given_up.may_prepare(Role::Root), Ok(()));
    }

    #[test]
    fn an_authority_is_named_by_the_beginning_of_its_key() {
        let ledger = first();
        assert_eq!(ledger.find("01").unwrap().key, key(1));
        assert!(matches!(ledger.find("0"), Err(NotNow::Ambiguous(_))));
        assert!(matches!(ledger.find(""), Err(NotNow::Unknown(_))));
        assert!(matches!(ledger.find("ff"), Err(NotNow::Unknown(_))));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_never_forgets_what_counts() {
        let mut ledger = first();
        for byte in 10..110 {
            ledger = ledger
                .prepared([authority(Role::Issuing, byte, State::Prepared, Some(1))])
                .retired(&key(byte), None, NOW);
            ledger.step(&[byte]);
        }
        assert!(ledger.is_sound());
        assert!(ledger.authorities.len() <= MAX_REMEMBERED);
        assert_eq!(ledger.steps.len(), MAX_STEPS);
    }
}
