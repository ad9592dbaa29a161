//! The authorities as people see them.

use crate::api::ControlFault;
use crate::api::views::{AuthorityView, CaView};
use crate::hub::Hub;
use crate::keys::ledger::{Authority, Role, State};

/// Most names in one list; how many there are is always said.
const MAX_NAMES: usize = 100;

impl Hub {
    /// Every authority, who relies on it, and who does not hold the newest roots yet.
    pub(crate) async fn ca_view(&self) -> Result<CaView, ControlFault> {
        let ledger = self.keys.ledger();
        let mut authorities = Vec::new();
        for authority in &ledger.authorities {
            authorities.push(self.authority_view(authority).await?);
        }
        let (held_by, of) = self.bundle_held(&ledger);
        let missing = self
            .active_names()
            .into_iter()
            .filter(|node| !self.holds(node, ledger.sequence))
            .take(MAX_NAMES)
            .collect();
        let waiting = ledger
            .in_state(Role::Root, State::Published)
            .next()
            .map(|_| ledger.activate_at);
        Ok(CaView {
            bundle: ledger.sequence,
            held_by: held_by as u64,
            nodes: of as u64,
            missing,
            activates_at: waiting,
            authorities,
        })
    }

    async fn authority_view(&self, authority: &Authority) -> Result<AuthorityView, ControlFault> {
        let now = self.clock.now();
        let retired = authority.state == State::Retired;
        let (from, until) = self.keys.validity(authority)?;
        let mut live = 0;
        for issuing in self.keys.ledger().issuing_with(&authority.key) {
            live += self.store.signed_by(&issuing.key, now).await?.live;
        }
        let mut relying = match retired || authority.state == State::Active {
            true => Vec::new(),
            false => self.relying(&authority.key).await?,
        };
        let relied_on_by = relying.len() as u64;
        relying.truncate(MAX_NAMES);
        let (key_is_here, key_at) = self.keys.whereabouts(authority);
        Ok(AuthorityView {
            kind: authority.role,
            key: authority.key.to_string(),
            state: authority.state,
            since: authority.since.into(),
            from: from.into(),
            until: until.into(),
            key_at,
            key_is_here,
            svids: live,
            relied_on_by,
            relying,
        })
    }
}
