//! Probes: sent when due, answered, counted, and what follows for the path in use.

use std::net::{IpAddr, SocketAddr};

use edgeward_identity::BootTime;

use super::interface::{Kind, Output};
use super::message::{HEADER_BYTES, MIN_PING_BYTES, Message, SEAL_BYTES};
use super::peer::{NEVER, PROBE_CHOSEN, Peer};
use super::seal::{NotOpened, tag_of};
use super::{PROVEN_FOR, Reach, SPREAD, SWEEP, is_detour, keepalive};
use crate::node::{Endpoint, PeerId};

/// How long peers are told that this node is elsewhere now.
const MOVED_FOR: std::time::Duration = std::time::Duration::from_secs(3);

impl Reach {
    /// A reach message, maybe: opened, or counted and dropped.
    pub(super) fn datagram(
        &mut self,
        from: Endpoint,
        bytes: &[u8],
        now: BootTime,
        out: &mut Vec<Output>,
    ) {
        let holders = tag_of(bytes)
            .and_then(|tag| self.tags.get(&tag))
            .cloned()
            .unwrap_or_default();
        let mut refusal = NotOpened::Tag;
        for id in holders {
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            match peer.channel.open(bytes) {
                Ok(body) => return self.opened(id, from, &body, now, out),
                Err(error) => refusal = error,
            }
        }
        let counter = match refusal {
            NotOpened::Replayed => &mut self.refused.replayed,
            NotOpened::Shape | NotOpened::Tag | NotOpened::Forged => &mut self.refused.unopened,
        };
        *counter = counter.saturating_add(1);
    }

    /// It came from the peer. Where from is the network's word only.
    fn opened(
        &mut self,
        id: PeerId,
        from: Endpoint,
        body: &[u8],
        now: BootTime,
        out: &mut Vec<Output>,
    ) {
        let message = match Message::parse(body) {
            Ok(message) => message,
            Err(malformed) => {
                self.refused.malformed = self.refused.malformed.saturating_add(1);
                tracing::debug!(peer = id.0, %malformed, "reach message refused");
                return;
            }
        };
        if !is_detour(&from.remote) {
            self.relays.lock().heard(id, from.remote);
            let news = self
                .peers
                .get_mut(&id)
                .is_some_and(|peer| peer.heard_at(from.remote));
            if news {
                self.relay_moved(id, out);
            }
        }
        match message {
            Message::Ping { moved: true, .. } if !is_detour(&from.remote) => {
                self.moved(id, from, now, out);
                self.pinged(id, from, &message, now, out);
            }
            Message::Ping { .. } => self.pinged(id, from, &message, now, out),
            Message::Pong {
                id: ping, observed, ..
            } => self.ponged(id, ping, observed, now, out),
            Message::Ask { ask, to } => self.asked(id, from, ask, &to, now, out),
            Message::Granted { ask, route } => self.granted(id, ask, route, now, out),
            Message::Refused { ask, code } => self.refused_by(id, ask, code, out),
            Message::Offer { route, from } => self.offered(id, route, &from, now, out),
            Message::End { route } => self.ended(id, route, now, out),
        }
    }

    fn pinged(
        &mut self,
        id: PeerId,
        from: Endpoint,
        ping: &Message,
        now: BootTime,
        out: &mut Vec<Output>,
    ) {
        let Message::Ping { id: ping, body, .. } = *ping else {
            return;
        };
        let Some(kind) = self.kind_of(from.remote) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let length = (HEADER_BYTES + MIN_PING_BYTES + SEAL_BYTES) as u64;
        if peer.pongs.would_pass(1, length, now) == 0 {
            self.refused.over_budget = self.refused.over_budget.saturating_add(1);
            return;
        }
        peer.pongs.spend(1, length);
        let pong = Message::Pong {
            id: ping,
            size: u16::try_from(body).unwrap_or(u16::MAX),
            observed: from.remote,
        };
        if let Ok(bytes) = peer.channel.seal(&pong.body()) {
            out.push(Output::Send { to: from, bytes });
        }
        if !peer.learn(from, kind, false, now) {
            return;
        }
        // Somebody looks for us there: look back, which also opens our side's NAT.
        let elsewhere = peer.chosen != Some(from.remote);
        if let Some(path) = peer.path_mut(from.remote)
            && !path.is_alive()
            && path
                .last_sent
                .is_none_or(|sent| now.since(sent) >= super::peer::PROBE_AGAIN)
        {
            path.next_probe = now;
        }
        if elsewhere
            && let Some(chosen) = peer.chosen
            && let Some(path) = peer.path_mut(chosen)
            && path
                .last_sent
                .is_none_or(|sent| now.since(sent) >= PROBE_CHOSEN)
        {
            path.next_probe = now;
        }
        self.step(id, now, out);
    }

    /// The peer says that it is here now: the former way leads nowhere, so nothing is gained by waiting for that.
    fn moved(&mut self, id: PeerId, to: Endpoint, now: BootTime, out: &mut Vec<Output>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.chosen == Some(to.remote) || !peer.learn(to, Kind::Direct, false, now) {
            return;
        }
        peer.take(to.remote, now);
        out.push(Output::UsePath {
            peer: id,
            endpoint: to,
            // Not proven: whoever carried this message here may not carry what follows.
            proven_until: now,
            largest_datagram: None,
        });
        self.placed(id, out);
    }

    fn ponged(
        &mut self,
        id: PeerId,
        ping: u64,
        observed: SocketAddr,
        now: BootTime,
        out: &mut Vec<Output>,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let chosen = peer.chosen;
        let found = peer.paths.iter_mut().find_map(|path| {
            let answered = path.answered(ping, observed, now)?;
            // The pause before was that of a path that leads nowhere.
            if path.is_on_trial() {
                path.next_probe = path.next_probe.min(now.plus(PROBE_CHOSEN));
            }
            Some((path.at, path.is_direct(), answered))
        });
        let Some((at, direct, answered)) = found else {
            self.refused.out_of_turn = self.refused.out_of_turn.saturating_add(1);
            return;
        };
        if chosen == Some(at.remote) {
            match answered.observed_before {
                Some(before) if before != observed => peer.keepalive.died(answered.gap),
                Some(_) => peer.keepalive.survived(answered.gap),
                None => {}
            }
        }
        let name = peer.name.clone();
        if direct && !is_detour(&observed) && self.mapping.saw(at.remote, observed, now) {
            out.push(Output::Observed {
                address: observed,
                by: name,
                local_ip: at.local_ip,
            });
        }
        self.choose(id, Some(at.remote), now, out);
        self.step(id, now, out);
    }

    /// Everything that is due for one peer.
    pub(super) fn step(&mut self, id: PeerId, now: BootTime, out: &mut Vec<Output>) {
        let metered = self.config.metered;
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let chosen_was_silent = peer.chosen_path().is_some_and(super::path::Path::is_silent);
        let mut lost = false;
        for path in &mut peer.paths {
            lost |= path.expire(now);
        }
        peer.forget_strays();
        if lost {
            peer.pace(self.mapping.local(), metered, now, |path| path.is_failing());
        }
        let chosen_silent = peer.chosen_path().is_some_and(super::path::Path::is_silent);
        if chosen_silent && !chosen_was_silent {
            peer.probe_all(now);
        }
        peer.probe_due(self.mapping.local(), metered, now, out);
        self.choose(id, None, now, out);
        self.look_for_relays(id, now, out);
        self.reschedule(id);
    }

    /// Takes the best path, and tells WireGuard what is new about it.
    fn choose(
        &mut self,
        id: PeerId,
        answered: Option<SocketAddr>,
        now: BootTime,
        out: &mut Vec<Output>,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let before = peer.chosen_path().map(|path| path.kind.clone());
        let switched = peer.choose(answered);
        if let Some(remote) = switched {
            peer.take(remote, now);
        }
        let Some(path) = peer.chosen_path() else {
            return;
        };
        let mut used = false;
        let (at, kind) = (path.at, path.kind.clone());
        let size = path.largest_datagram_found();
        // Once after every search: the data path may learn better meanwhile.
        let told = Some((at.remote, path.size_searched()));
        if path.is_alive()
            && let Some(last) = path.last_answer()
            && (switched.is_some() || answered == Some(at.remote))
        {
            out.push(Output::UsePath {
                peer: id,
                endpoint: at,
                proven_until: last.plus(PROVEN_FOR),
                largest_datagram: size.filter(|_| peer.told_size != told),
            });
            used = true;
        }
        let dead = path.is_silent() && !peer.has_live(|_| true);
        if used {
            peer.told_size = told;
        }
        let (name, was_lost) = (peer.name.clone(), peer.lost);
        peer.lost = dead;
        if dead && !was_lost {
            out.push(Output::Switched {
                peer: name,
                from: before,
                to: None,
            });
        } else if !dead && (was_lost || switched.is_some()) {
            let from = before.filter(|_| !was_lost);
            out.push(Output::Switched {
                peer: name,
                from,
                to: Some(kind),
            });
        }
        if switched.is_some() {
            self.placed(id, out);
        }
    }

    pub(super) fn traffic(
        &mut self,
        id: PeerId,
        sent: u64,
        received: u64,
        now: BootTime,
        out: &mut Vec<Output>,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if !peer.count(sent, received) {
            return;
        }
        if peer.wake(now) {
            peer.probe_all(now);
        }
        let relay = match peer.chosen_path().map(|path| &path.kind) {
            Some(Kind::Relay(relay)) => self.names.get(relay).copied(),
            _ => None,
        };
        // Who carries for a peer in use is in use.
        if let Some(relay) = relay
            && let Some(carrier) = self.peers.get_mut(&relay)
        {
            if carrier.wake(now) {
                carrier.probe_all(now);
            }
            self.step(relay, now, out);
        }
        self.step(id, now, out);
    }

    /// WireGuard took another address by itself.
    pub(super) fn roamed(
        &mut self,
        id: PeerId,
        to: SocketAddr,
        now: BootTime,
        out: &mut Vec<Output>,
    ) {
        let Some(kind) = self.kind_of(to) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.chosen == Some(to) {
            return;
        }
        let at = Endpoint {
            remote: to,
            local_ip: None,
        };
        if peer.learn(at, kind, false, now) {
            peer.take(to, now);
            peer.probe_all(now);
            self.placed(id, out);
            self.step(id, now, out);
        }
    }

    /// The network under all paths is another one: nothing measured before counts.
    pub(super) fn local(&mut self, addresses: Vec<IpAddr>, now: BootTime, out: &mut Vec<Output>) {
        if !self.mapping.set_local(addresses) {
            return;
        }
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            let later = now.plus(self.jitter(SPREAD));
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            let at = if peer.is_active(now) { now } else { later };
            peer.keepalive = keepalive::Keepalive::default();
            peer.moved_until = at.plus(MOVED_FOR);
            for path in &mut peer.paths {
                path.forget(at);
            }
            self.step(id, now, out);
        }
    }

    pub(super) fn tick(&mut self, now: BootTime, out: &mut Vec<Output>) {
        while let Some((due, id)) = self.due.first().copied()
            && due <= now
        {
            self.due.pop_first();
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.scheduled = None;
            }
            self.step(id, now, out);
            // What is due again at once waits for the next tick.
            if self.peers.get(&id).and_then(|peer| peer.scheduled) == Some(due) {
                break;
            }
        }
        self.repeat_asks(now, out);
        if now >= self.sweep {
            self.sweep = now.plus(SWEEP);
            self.sweep_routes(now, out);
        }
    }
}

impl Peer {
    /// Sets when paths are probed next.
    fn pace(
        &mut self,
        local: &[IpAddr],
        metered: bool,
        now: BootTime,
        which: impl Fn(&super::path::Path) -> bool,
    ) {
        let mut paths = std::mem::take(&mut self.paths);
        // `pause` looks at the peer, not at its other paths.
        for path in paths.iter_mut().filter(|path| which(path)) {
            let pause = self.pause(path, local, metered, now);
            path.next_probe = pause.map_or(NEVER, |pause| now.plus(pause));
        }
        self.paths = paths;
    }

    /// Sends the probes that are due, and those that measure sizes.
    fn probe_due(&mut self, local: &[IpAddr], metered: bool, now: BootTime, out: &mut Vec<Output>) {
        let active = self.is_active(now);
        let chosen = self.chosen;
        let mut paths = std::mem::take(&mut self.paths);
        for path in &mut paths {
            if path.next_probe <= now {
                if let Some(to_send) = self.ping(path, None, MIN_PING_BYTES, now) {
                    out.push(to_send);
                }
                let pause = self.pause(path, local, metered, now);
                path.next_probe = pause.map_or(NEVER, |pause| now.plus(pause));
            }
            if active && chosen == Some(path.at.remote) && !is_cloud(&path.kind) {
                for (size, body) in path.sizes_to_try(now) {
                    if let Some(to_send) = self.ping(path, Some(size), body, now) {
                        out.push(to_send);
                    }
                }
            }
        }
        self.paths = paths;
    }

    fn ping(
        &mut self,
        path: &mut super::path::Path,
        size: Option<u16>,
        body: usize,
        now: BootTime,
    ) -> Option<Output> {
        let id = self.next_probe_id;
        self.next_probe_id = id.wrapping_add(1);
        // On the way in use only: of several addresses it is the one that data will come from.
        let moved = now < self.moved_until && self.chosen == Some(path.at.remote);
        let ping = Message::Ping { id, body, moved };
        let bytes = self.channel.seal(&ping.body()).ok()?;
        path.asked(id, size, now);
        Some(Output::Send { to: path.at, bytes })
    }
}

/// TCP carries any size.
fn is_cloud(kind: &Kind) -> bool {
    *kind == Kind::Cloud
}
