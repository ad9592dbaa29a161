//! Whom to bind, from policy and directory. Pure; dialling, backoff and glare are the bind driver's.

use std::collections::BTreeMap;

use edgeward_identity::{AttestationState, DenyList, SpiffeId, SpkiHash, Tier, Timestamp};
use edgeward_policy::{Effect, Link, MetWants, PeerIndex, Standing as Evidence, StatedProfiles};

use super::decide::{Picture, PictureParts, Rules};
use crate::view::{Directory, DirectoryPeer, Endpoint};

/// A peer to be bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub spki: SpkiHash,
    /// Where to dial; if there is none, only the peer can.
    pub endpoints: Vec<Endpoint>,
}

/// What changed between two wishes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New, or to be found elsewhere.
    pub want: Vec<(SpiffeId, Wanted)>,
    pub forget: Vec<SpiffeId>,
    /// The set of keys is another one.
    pub keys_changed: bool,
}

/// The peers that could be bound now, had they just passed. Only evidence can tell more, and the bind asks for it.
pub fn wanted(
    picture: &Picture,
    directory: &Directory,
    deny: &DenyList,
    own: &SpkiHash,
    now: Timestamp,
) -> BTreeMap<SpiffeId, Wanted> {
    let Ok(rules) = picture.may_grant() else {
        return BTreeMap::new();
    };
    let parts = picture.parts();
    (0..)
        .map(PeerIndex)
        .zip(&rules.engine().slice().peers)
        .filter(|(_, peer)| peer.id != parts.node)
        .filter_map(|(index, peer)| Some((index, &peer.id, directory.get(&peer.id)?)))
        .filter(|(.., known)| known.spki_hash != *own && deny.get(&known.spki_hash).is_none())
        .filter(|(_, id, known)| parts.floors.admits(id, may_have_passed(known, parts, id)))
        .filter(|(index, ..)| could_meet(rules, *index, now))
        .map(|(_, id, known)| {
            let wanted = Wanted {
                spki: known.spki_hash,
                endpoints: known.endpoints.clone(),
            };
            (id.clone(), wanted)
        })
        .collect()
}

/// What to tell the bind driver so that `new` holds where `old` did.
pub fn changes(old: &BTreeMap<SpiffeId, Wanted>, new: &BTreeMap<SpiffeId, Wanted>) -> Changes {
    let want: Vec<(SpiffeId, Wanted)> = new
        .iter()
        .filter(|(id, wanted)| old.get(id) != Some(wanted))
        .map(|(id, wanted)| (id.clone(), wanted.clone()))
        .collect();
    let forget: Vec<SpiffeId> = old
        .keys()
        .filter(|id| !new.contains_key(id))
        .cloned()
        .collect();
    let keys_changed = !forget.is_empty()
        || want
            .iter()
            .any(|(id, wanted)| old.get(id).map(|known| known.spki) != Some(wanted.spki));
    Changes {
        want,
        forget,
        keys_changed,
    }
}

/// When the directory says that the peer passed last, if that matters. Unverified: it only saves dialling in vain.
fn may_have_passed(known: &DirectoryPeer, parts: &PictureParts, id: &SpiffeId) -> Timestamp {
    if parts.floors.get(id).is_none() {
        return Timestamp::default();
    }
    known.passed
}

/// Whether any evidence at all would let the two meet now.
fn could_meet(rules: &Rules, peer: PeerIndex, now: Timestamp) -> bool {
    let none = std::iter::once(StatedProfiles::NONE);
    let asked_for = rules.engine().slice().profiles_asked_for();
    let named: Vec<_> = none
        .chain(asked_for.into_iter().map(StatedProfiles::from))
        .collect();
    let tiers = Tier::ALL.into_iter();
    // What a deny and an allow want run together is not tried out: it may be.
    let wants = rules.engine().wants();
    let rows = rules.engine().slice().interfaces.iter();
    let mut rows = rows.flat_map(|interface| &interface.rows);
    if rows.any(|row| row.effect == Effect::Deny && !row.runs.is_empty()) {
        return true;
    }
    let running = match wants.is_empty() {
        true => MetWants::NONE,
        false => MetWants::AT_BEST,
    };
    let mut all = tiers.flat_map(|tier| named.iter().map(move |profiles| (tier, *profiles)));
    all.any(|(tier, profiles)| {
        let state = match tier {
            Tier::Software => AttestationState::None,
            Tier::Hardware | Tier::Listed | Tier::Virtual => AttestationState::Trusted,
        };
        let evidence = Evidence {
            state,
            tier: Some(tier),
            last_pass: Some(now),
            profiles: Some(profiles),
            runs: Some(running),
        };
        rules
            .engine()
            .meet(peer, evidence, Link::Online, now)
            .is_allow()
    })
}

#[cfg(test)]
mod tests;
