//! A session in force: one input at a time (a message, a moment, an end), its outputs, and again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use edgeward_audit::Event;
use edgeward_audit::event::EventKind;
use edgeward_evidence::Nonce;
use edgeward_identity::{AttestationState, BootTime, VerifiedPeer};
use edgeward_wire::limits::HEARTBEAT_EVERY;
use edgeward_wire::v1::{self, cloud_message::Body, node_message};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::challenge::{Challenges, concluded};
use super::coverage::Coverage;
use super::journal::JournalSide;
use super::{Opened, SessionEnded, endpoints_of, opening, said_of};
use crate::attest::{Draw, Schedule, Step};
use crate::hub::{Attachment, Fall, Hub, HubFault, Outgoing, SignedSlice};
use crate::serve::Caller;

/// How often new endpoints of a node are told to its peers.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(2);
/// How long a node waits that would have to send its logs while too many others do.
const ADMITTED_AFTER: Duration = Duration::from_millis(250);
/// Most refused batches and unasked answers of one session.
const MAX_MISDEEDS: u32 = 64;

/// One agent's session.
pub(super) struct Live {
    pub(super) hub: Arc<Hub>,
    pub(super) opened: Opened,
    pub(super) name: String,
    out: mpsc::Sender<Outgoing>,
    pub(super) schedule: Schedule,
    hasten: Arc<Notify>,
    displaced: CancellationToken,
    /// `None`: another session of the node is in force until this one passes.
    number: Option<u64>,
    pub(super) journal: JournalSide,
    /// Whether peers do not know the newest endpoints yet.
    moved: bool,
    announced: BootTime,
    /// The strictest `fresh` of the slice that the session began with.
    pub(super) first_fresh: Option<Duration>,
    /// When the last heartbeat was sent.
    pub(super) beaten: BootTime,
    misdeeds: u32,
    pub(super) challenges: Challenges,
    /// The result that a metered node was told last in this session.
    pub(super) told: Option<Box<[u8]>>,
}

impl Live {
    pub(super) async fn open(
        hub: &Arc<Hub>,
        caller: Caller,
        peer: Arc<VerifiedPeer>,
        mut hello: v1::Hello,
        out: mpsc::Sender<Outgoing>,
    ) -> Result<Self, SessionEnded> {
        let version = hello.agent_version.chars().take(64).collect::<String>();
        let challenges = Challenges::after_hello(&hello);
        let journal_head = std::mem::take(&mut hello.journal_head);
        let log_size = hello.log_size;
        let (opened, member, boot) = opening::open(hub, caller, peer, hello).await?;
        let audit_next = hub.store.next_record(opened.peer.id(), boot).await?;
        let covered = hub.audit.covered();
        let mut live = Self {
            name: opened.peer.id().name().to_owned(),
            schedule: Schedule::new(hub.config.attest, hub.clock.boottime()),
            hub: hub.clone(),
            journal: JournalSide::new(
                boot,
                audit_next,
                Coverage::new(covered, opened.metered, log_size),
            ),
            opened,
            out,
            hasten: Arc::default(),
            displaced: CancellationToken::new(),
            number: None,
            moved: false,
            announced: BootTime::default(),
            first_fresh: None,
            beaten: hub.clock.boottime(),
            misdeeds: 0,
            challenges,
            told: None,
        };
        let slice = live.slice().await?;
        live.first_fresh = slice.as_ref().and_then(|slice| slice.fresh);
        let (_, heartbeat) = live.heartbeat()?;
        let join = live.opened.join;
        let delta = match &slice {
            Some(slice) if live.opened.holds.deltas => {
                let held = &live.opened.holds.slice;
                hub.delta_from(&live.id(), held, slice).await
            }
            _ => None,
        };
        let remote = live.opened.caller.remote;
        let welcome = || {
            let slice = slice.as_ref();
            let seen_from = SocketAddr::new(remote.ip().to_canonical(), remote.port());
            v1::Welcome {
                seen_from: seen_from.to_string(),
                ..opening::welcome(hub, &member, join, audit_next, heartbeat, slice, delta)
            }
        };
        let contested = hub.is_attached(&live.name);
        match contested {
            true => live.send(Body::Welcome(welcome()))?,
            false => live.attach(slice.as_ref(), || vec![Body::Welcome(welcome())]),
        }
        let event = Event::new(hub.clock.now(), live.id(), EventKind::SessionOpened)
            .subject(live.id())
            .allowed()
            .detail("agent", version)
            .detail("boot", boot)
            .detail("remote", live.opened.caller.remote.ip().to_canonical())
            .detail("contested", contested);
        hub.audit.later(event);
        tracing::info!(node = %live.id(), remote = %live.opened.caller.remote, contested, "session opened");
        hub.announce(&live.name);
        match live.begin_journal(&journal_head).await {
            Ok(()) => Ok(live),
            Err(ended) => {
                if let Some(number) = live.number {
                    hub.detach(&live.name, number);
                }
                Err(ended)
            }
        }
    }

    /// Runs until something ends it.
    pub(super) async fn run(
        mut self,
        incoming: &mut Streaming<v1::NodeMessage>,
        stop: &CancellationToken,
    ) -> SessionEnded {
        let ended = self.turn(incoming, stop).await;
        if let Some(number) = self.number {
            self.hub.detach(&self.name, number);
        }
        ended
    }

    async fn turn(
        &mut self,
        incoming: &mut Streaming<v1::NodeMessage>,
        stop: &CancellationToken,
    ) -> SessionEnded {
        let mut heartbeat = tokio::time::interval(HEARTBEAT_EVERY);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.reset();
        let (displaced, hasten) = (self.displaced.clone(), self.hasten.clone());
        let ended = self.opened.caller.ended.clone();
        loop {
            let wait = match Box::pin(self.poll()).await {
                Ok(wait) => wait,
                Err(ended) => return ended,
            };
            let done = tokio::select! {
                biased;
                () = stop.cancelled() => return SessionEnded::Shutdown,
                () = ended.cancelled() => return SessionEnded::Cancelled,
                () = displaced.cancelled() => return SessionEnded::Displaced,
                () = hasten.notified() => {
                    self.schedule.hasten(self.hub.clock.boottime());
                    Ok(())
                }
                () = tokio::time::sleep(wait) => Ok(()),
                judgement = concluded(&mut self.challenges.judging) => {
                    Box::pin(self.concluded(judgement)).await
                }
                () = self.journal.coverage.advanced() => Box::pin(self.tell_covered()).await,
                _ = heartbeat.tick() => {
                    self.announce_move();
                    self.beat()
                }
                message = incoming.message() => match message {
                    // Boxed: what a session does now and then is not kept room for in every idle one.
                    Ok(Some(message)) => Box::pin(self.receive(message)).await,
                    Ok(None) | Err(_) => return SessionEnded::Closed,
                },
            };
            if let Err(ended) = done {
                return ended;
            }
        }
    }

    /// Does what the schedule says; returns how long there is nothing more to do.
    async fn poll(&mut self) -> Result<Duration, SessionEnded> {
        loop {
            let now = self.hub.clock.boottime();
            if self.schedule.is_due(now) && !self.may_ask() {
                self.schedule.postpone(now.plus(ADMITTED_AFTER));
            }
            let draw = draw()?;
            match self.schedule.poll(now, self.renewal_is_due(), draw) {
                Step::Wait(until) => return Ok(until.since(now)),
                Step::Challenge { nonce, renew } => self.challenge(nonce, renew)?,
                Step::Stale => self.went_silent().await?,
            }
        }
    }

    /// Peers learn of new endpoints at once, but not more often than every [`ANNOUNCE_EVERY`].
    fn announce_move(&mut self) {
        let now = self.hub.clock.boottime();
        if self.moved && now.since(self.announced) >= ANNOUNCE_EVERY {
            self.moved = false;
            self.announced = now;
            self.hub.announce(&self.name);
        }
    }

    /// Counts what no agent of ours does; a node that goes on with it loses its session.
    pub(super) fn misdeed(&mut self) -> Result<(), SessionEnded> {
        self.misdeeds += 1;
        match self.misdeeds > MAX_MISDEEDS {
            true => Err(SessionEnded::Flood),
            false => Ok(()),
        }
    }

    async fn went_silent(&mut self) -> Result<(), SessionEnded> {
        self.challenges.give_up();
        if self.number.is_none() {
            return Err(SessionEnded::NotPassed);
        }
        if let Some(member) = self.hub.member(&self.name)
            && member.standing.state != AttestationState::Stale
        {
            tracing::warn!(node = %self.id(), "no evidence in time");
            let fall = Fall {
                quoted: false,
                state: AttestationState::Stale,
                code: "challenge_unanswered".to_owned(),
                reason: "no answer to a challenge and its repetition".to_owned(),
                findings: member.standing.findings.clone(),
                received: self.hub.clock.now(),
            };
            self.hub.fell(&member, fall).await;
        }
        Ok(())
    }

    async fn receive(&mut self, message: v1::NodeMessage) -> Result<(), SessionEnded> {
        match message.body {
            Some(node_message::Body::Evidence(evidence)) => self.evidence(evidence).await,
            Some(node_message::Body::Audit(batch)) => self.audit(&batch.batch).await,
            Some(node_message::Body::JournalHead(said)) => self.journal_head(&said.head).await,
            Some(node_message::Body::JournalLoss(said)) => self.journal_loss(&said.loss).await,
            Some(node_message::Body::AuditNotShown(said)) => {
                self.journal.coverage.refused(said.log_size);
                Ok(())
            }
            Some(node_message::Body::Status(status)) => {
                let endpoints = endpoints_of(status.endpoints)?;
                let apps = said_of(status.apps, self.hub.clock.now())?;
                if let Some(said) = &apps {
                    self.heed(said.measured);
                }
                self.hub.update_member(&self.name, |member| {
                    self.moved |= member.endpoints != endpoints;
                    member.endpoints = endpoints;
                    if apps.is_some() {
                        member.apps = apps;
                    }
                });
                self.announce_move();
                let issuer = self.opened.peer.issuers().first();
                self.hub
                    .saw_trust(&self.name, status.bundle_sequence, issuer)
                    .await?;
                Ok(())
            }
            Some(node_message::Body::SvidStored(stored)) => self.stored(&stored.spki_hash).await,
            Some(node_message::Body::JoinStored(stored)) => {
                let key = self.opened.peer.spki_hash();
                self.hub
                    .join_stored(&self.name, &key, self.opened.join, stored.join)?;
                Ok(())
            }
            Some(node_message::Body::SliceWanted(wanted)) => self.slice_wanted(&wanted).await,
            Some(node_message::Body::Call(mut call)) => {
                let endpoints = endpoints_of(std::mem::take(&mut call.endpoints))?;
                // While another session of the node is in force, nobody is called in its name.
                if self.number.is_some() {
                    self.hub.call(&self.name, &call, endpoints);
                }
                Ok(())
            }
            Some(node_message::Body::Hello(_)) | None => {
                Err(SessionEnded::Hello("message out of order"))
            }
        }
    }

    /// A delta was of no use: the whole follows. It should not happen, so it counts against the agent.
    async fn slice_wanted(&mut self, wanted: &v1::SliceWanted) -> Result<(), SessionEnded> {
        let code: String = wanted.code.chars().take(64).collect();
        tracing::warn!(node = %self.id(), code, "a slice goes whole after a delta that did not fit");
        metrics::counter!("edgeward_slice_deltas_refused_total").increment(1);
        match self.number {
            Some(number) => self.hub.send_whole(&self.id(), number).await?,
            None => {
                if let Some(slice) = self.slice().await? {
                    self.send(Body::Slice(slice.bytes))?;
                }
            }
        }
        self.misdeed()
    }

    /// Evidence passed: if another session was in force until now, this one is from now on.
    pub(super) async fn passed(&mut self) -> Result<(), SessionEnded> {
        if self.number.is_some() {
            return Ok(());
        }
        let displaces = self.hub.is_attached(&self.name);
        if displaces {
            tracing::warn!(node = %self.id(), remote = %self.opened.caller.remote,
                "two sessions of one node: the one that passed stays");
            let event = Event::new(self.hub.clock.now(), self.id(), EventKind::SessionDisplaced)
                .subject(self.id())
                .code("session_displaced")
                .detail("alert", "two sessions")
                .detail("remote", self.opened.caller.remote.ip().to_canonical());
            self.hub.audit.later(event);
        }
        let slice = self.slice().await?;
        let hub = self.hub.clone();
        // What was pushed while this session waited went to the other one.
        self.attach(slice.as_ref(), || {
            let mut first = vec![Body::Trust(hub.trust_update())];
            if let Some(slice) = &slice {
                first.push(Body::Slice(slice.bytes.clone()));
                first.push(Body::Peers(hub.directory_of(&slice.peers)));
            }
            first
        });
        Ok(())
    }

    fn attach(&mut self, slice: Option<&SignedSlice>, first: impl FnOnce() -> Vec<Body>) {
        let attachment = Attachment {
            out: self.out.clone(),
            hasten: self.hasten.clone(),
            displaced: self.displaced.clone(),
            ended: self.opened.caller.ended.clone(),
            deltas: self.opened.holds.deltas,
            metered: self.opened.metered,
        };
        self.number = Some(self.hub.attach(&self.name, attachment, slice, first));
        self.hub.direct_soon(&self.name);
    }

    pub(super) async fn slice(&self) -> Result<Option<SignedSlice>, HubFault> {
        match self.hub.slice(self.opened.peer.id()).await {
            // A slice that cannot be made is no reason to lose sight of the node: without one it may do nothing.
            Err(HubFault::Slice(fault)) => {
                tracing::error!(node = %self.id(), %fault, "no slice for this node");
                Ok(None)
            }
            other => other,
        }
    }

    pub(super) fn send(&self, body: Body) -> Result<(), SessionEnded> {
        let message = v1::CloudMessage { body: Some(body) };
        self.out
            .try_send(Box::new(message))
            .map_err(|_| SessionEnded::Cancelled)
    }

    pub(super) fn id(&self) -> edgeward_identity::SpiffeId {
        self.opened.peer.id().clone()
    }

    pub(super) fn is_in_force(&self) -> bool {
        self.number.is_some()
    }

    /// A random number for the schedule; where the random source fails the next challenge comes early, not late.
    pub(super) fn jitter(&self) -> u64 {
        draw().map_or(0, |draw| draw.random)
    }

    fn renewal_is_due(&self) -> bool {
        let svid = &self.opened.svid;
        let half = svid.issued.plus(svid.not_after.since(svid.issued) / 2);
        // What a tainted authority signed is replaced at once.
        let tainted = self
            .opened
            .peer
            .issuers()
            .first()
            .is_some_and(|issuer| self.hub.keys.is_tainted(issuer));
        tainted || self.hub.clock.now() >= half
    }
}

pub(super) fn draw() -> Result<Draw, SessionEnded> {
    let random = SystemRandom::new();
    let mut bytes = [0; 8];
    let failed = || {
        SessionEnded::Store(crate::store::StoreError::Unavailable(
            "random source".to_owned(),
        ))
    };
    random.fill(&mut bytes).map_err(|_| failed())?;
    Ok(Draw {
        nonce: Nonce::draw(&random).map_err(|_| failed())?,
        random: u64::from_be_bytes(bytes),
    })
}
