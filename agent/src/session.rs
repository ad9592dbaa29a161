//! The session: one long-lived stream to the cloud, and what it brings.
//!
//! This file keeps the stream up; `apply` puts what comes down into force, `evidence` answers challenges,
//! `upload` sends the journal. A stream that has gone silent is given up after thirty seconds without a heartbeat,
//! whatever TCP says; then the next connection, after a wait that grows and is never the same for two nodes.

use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::tls::{self, PeerVerifier};
use edgeward_identity::{Clock, Kind};
use edgeward_wire::limits::{
    ALPN_H2, ALPN_H2_QUIET, HEARTBEAT_EVERY, HEARTBEAT_LOST_AFTER, MAX_MESSAGE_BYTES,
};
use edgeward_wire::slice_delta::NotApplied;
use edgeward_wire::v1::session_client::SessionClient;
use edgeward_wire::v1::{self, cloud_message, node_message};
use rustls::AlertDescription;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use crate::apps::guard::GuardState;
use crate::apps::measure::Measure;
use crate::boot::Boot;
use crate::clock::NodeClock;
use crate::connect::{Connected, NotConnected, Verdict, connect};
use crate::enforce::Progress;
use crate::journal::JournalHandle;
use crate::logs::LogReader;
use crate::recover::Pace;
use crate::root::{Root, RootError};
use crate::view::NodeView;

mod apply;
mod backoff;
mod evidence;
mod keeper;
mod news;
mod recover;
mod telling;
mod upload;

pub use apply::{Applied, Holder};
pub use backoff::Backoff;
pub use keeper::Keeper;
pub use telling::Endpoints;

/// Most messages waiting to go up.
const UP_QUEUE: usize = 64;
/// How long the first message down may take.
const WELCOME_DEADLINE: Duration = Duration::from_secs(15);
/// A session that lasted this long makes the next wait short again.
const STABLE_AFTER: Duration = Duration::from_secs(60);
/// Longest wait while the cloud is there and turns this node away: an operator who releases it waits no longer.
const TURNED_AWAY_WAIT: Duration = Duration::from_secs(10);
/// The session ends this long before its leaf does.
const LEAF_MARGIN: Duration = Duration::from_secs(60);
/// How often the state of the moment is stored while nothing forces it.
const STORE_EVERY: Duration = Duration::from_secs(300);
/// How many heartbeats may name a newer deny-list than ours before the session is begun anew.
const MAX_BEHIND: u32 = 3;

/// Alerts by which a server says that it does not take a certificate.
const REJECTIONS: [AlertDescription; 5] = [
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateExpired,
    AlertDescription::UnknownCA,
    AlertDescription::BadCertificate,
    AlertDescription::CertificateUnknown,
];

/// The agent's side of the session.
pub struct Session {
    pub root: Arc<dyn Root>,
    pub boot: Arc<Boot>,
    pub view: NodeView,
    pub clock: Arc<NodeClock>,
    pub holder: Holder,
    pub journal: JournalHandle,
    pub progress: watch::Receiver<Progress>,
    pub endpoints: Endpoints,
    /// The stored state was put back: nothing is said before this node has come back.
    pub restored: bool,
    pub logs: Arc<LogReader>,
    /// What this node runs, measured.
    pub measure: Measure,
    /// The link is paid by the byte.
    pub metered: bool,
    /// How applications are controlled here; none on a node that has none.
    pub guard: Option<watch::Receiver<GuardState>>,
}

/// Why a session ended. Another one follows.
#[derive(Debug, thiserror::Error)]
pub enum SessionEnded {
    #[error(transparent)]
    NotConnected(#[from] NotConnected),
    #[error("stream failed: {0}")]
    Stream(#[source] Box<tonic::Status>),
    #[error("the cloud does not accept this node's certificate: quarantined, removed, or ended")]
    Rejected,
    #[error("cloud ended the session: {0}")]
    Goodbye(String),
    #[error("cloud ended the stream")]
    Closed,
    #[error("no welcome came first, or not in time")]
    NoWelcome,
    #[error("no heartbeat for as long as the cloud promised one")]
    Silent,
    #[error("cloud has a newer deny-list and does not send it")]
    Behind,
    #[error("what the cloud said could not be put together")]
    Unread,
    #[error("link takes nothing any more")]
    Stuck,
    #[error("certificate was renewed")]
    Renewed,
    #[error("certificate ends")]
    LeafEnds,
    #[error("the state was put back: no session before this node has come back")]
    Restored,
    #[error("evidence: {0}")]
    Root(#[from] RootError),
}

impl SessionEnded {
    /// Whether a cloud that works said no: in TLS, or with a word.
    fn is_turned_away(&self) -> bool {
        match self {
            Self::NotConnected(failed) => failed.tls_error().is_some(),
            Self::Goodbye(_) | Self::Rejected => true,
            _ => false,
        }
    }
}

impl SessionEnded {
    /// What the cloud's TLS said explains a stream that broke.
    fn in_view_of(self, verdict: &Verdict) -> Self {
        let broke = matches!(self, Self::Stream(_) | Self::Closed | Self::NoWelcome);
        match verdict.get() {
            Some(rustls::Error::AlertReceived(alert)) if broke && REJECTIONS.contains(alert) => {
                Self::Rejected
            }
            _ => self,
        }
    }
}

/// A stream in force.
struct Live {
    up: mpsc::Sender<v1::NodeMessage>,
    down: Streaming<v1::CloudMessage>,
    connected: Connected,
    news: news::News,
}

impl Session {
    /// Keeps a session up until the token is cancelled, then stores the state of the moment.
    pub async fn run(mut self, token: CancellationToken) -> anyhow::Result<()> {
        let mut backoff = Backoff::default();
        let mut pace = Pace::new(self.clock.boottime());
        self.holder.reopen_glass().await;
        while !token.is_cancelled() {
            let began = Instant::now();
            let ended = match self.restored {
                // Its join counter is an old one: whoever said it would be taken for a copy.
                true => SessionEnded::Restored,
                false => tokio::select! {
                    () = token.cancelled() => break,
                    ended = self.once() => ended,
                },
            };
            self.holder.set_connected(false);
            self.holder.settle().await;
            if self.key_is_gone(&ended).await {
                anyhow::bail!("the tpm lost this node's keys while the agent ran: beginning anew");
            }
            let back = tokio::select! {
                () = token.cancelled() => break,
                back = self.come_back(&ended, &mut pace) => back,
            };
            if back {
                backoff.reset();
                continue;
            }
            if began.elapsed() >= STABLE_AFTER || matches!(ended, SessionEnded::Renewed) {
                backoff.reset();
            }
            let wait = if ended.is_turned_away() {
                backoff.next_wait_within(TURNED_AWAY_WAIT)
            } else {
                backoff.next_wait()
            };
            tracing::info!(reason = %ended, again_in_ms = wait.as_millis(), "session ended");
            let over = Instant::now() + wait;
            loop {
                // Glass is broken while the cloud is away, above all.
                tokio::select! {
                    () = token.cancelled() => break,
                    () = tokio::time::sleep_until(over) => break,
                    () = self.holder.musts.recorded() => {
                        self.holder.bind_journal();
                        self.holder.settle().await;
                    }
                    ordered = self.holder.publisher.orders.next() => self.holder.serve(ordered).await,
                }
            }
        }
        self.holder.set_connected(false);
        self.holder.store().await;
        Ok(())
    }

    async fn once(&mut self) -> SessionEnded {
        let verifier = PeerVerifier::mandatory(
            self.view.trust.clone(),
            self.view.clock.clone(),
            &[Kind::Cloud],
        );
        let protocols: &[&[u8]] = match self.metered {
            true => &[ALPN_H2_QUIET, ALPN_H2],
            false => &[ALPN_H2],
        };
        let config = tls::client(self.view.credentials.clone(), verifier, protocols);
        let addresses = self.holder.addresses().to_vec();
        let connecting = connect(&addresses, Arc::new(config));
        tokio::pin!(connecting);
        let connected = loop {
            tokio::select! {
                connected = &mut connecting => match connected {
                    Ok(connected) => break connected,
                    Err(error) => return error.into(),
                },
                ordered = self.holder.publisher.orders.next() => self.holder.serve(ordered).await,
            }
        };
        let verdict = connected.verdict.clone();
        let ended = match self.open(connected).await {
            Ok(live) => self.attend(live).await,
            Err(ended) => ended,
        };
        ended.in_view_of(&verdict)
    }

    /// Says Hello and puts the Welcome into force.
    async fn open(&mut self, connected: Connected) -> Result<Live, SessionEnded> {
        let (up, requests) = mpsc::channel(UP_QUEUE);
        let news = self.news();
        let head = self.journal_head().await;
        let hello = self.hello(connected.local, head);
        let _ = up.try_send(up_message(node_message::Body::Hello(hello)));
        let mut client = SessionClient::new(connected.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let welcomed = async {
            let mut down = client
                .attach(ReceiverStream::new(requests))
                .await
                .map_err(stream_failed)?
                .into_inner();
            let first = down.message().await.map_err(stream_failed)?;
            Ok::<_, SessionEnded>((down, first))
        };
        let (down, first) = tokio::time::timeout(WELCOME_DEADLINE, welcomed)
            .await
            .map_err(|_| SessionEnded::NoWelcome)??;
        match first.and_then(|message| message.body) {
            Some(cloud_message::Body::Welcome(welcome)) => {
                let offered = welcome.join;
                let reach = &self.holder.publisher.reach;
                reach.welcomed(&welcome, &connected.address, connected.remote);
                if let Err(why) = self.holder.welcome(welcome).await {
                    let _ = up.try_send(up_message(whole_wanted(why)));
                }
                if self.holder.keep_join(offered).await {
                    let stored = v1::JoinStored { join: offered };
                    let _ = up.try_send(up_message(node_message::Body::JoinStored(stored)));
                }
            }
            Some(cloud_message::Body::Goodbye(goodbye)) => {
                return Err(SessionEnded::Goodbye(goodbye.code));
            }
            _ => return Err(SessionEnded::NoWelcome),
        }
        self.holder.set_connected(true);
        let cloud = &self.holder.publisher.cloud;
        cloud.send_replace(Some(connected.channel.clone()));
        tracing::info!(cloud = %connected.address, "session opened");
        Ok(Live {
            up,
            down,
            connected,
            news,
        })
    }

    /// Serves a session until it ends.
    async fn attend(&mut self, mut live: Live) -> SessionEnded {
        let gather = match self.metered {
            true => upload::GATHER_METERED,
            false => upload::GATHER,
        };
        let mut upload = upload::Upload::begin(
            self.journal.clone(),
            self.view.clone(),
            live.up.clone(),
            upload::Link {
                gather,
                metered: self.metered,
            },
        );
        let mut answers = evidence::Answers::new(evidence::Sources {
            root: self.root.clone(),
            logs: self.logs.clone(),
            measure: self.measure.clone(),
            clock: self.clock.clone(),
            boot_key: *self.boot.public_key(),
            node: self.view.node.clone(),
            guard: self.guard.clone(),
            exporter: live.connected.exporter,
        });
        let mut watchdog = tokio::time::interval(HEARTBEAT_EVERY / 2);
        watchdog.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut store = tokio::time::interval(STORE_EVERY);
        store.set_missed_tick_behavior(MissedTickBehavior::Delay);
        store.reset();
        let opened = self.clock.boottime();
        let mut behind = 0;
        loop {
            let settle_in = self.holder.settle_in();
            if self.holder.has_untold_roots() {
                // The cloud counts on roots that are acknowledged: they must outlast this process.
                self.holder.settle().await;
                let status = self.status(&live);
                if !send(&live, node_message::Body::Status(status)) {
                    return SessionEnded::Stuck;
                }
            }
            tokio::select! {
                biased;
                message = live.down.message() => match message {
                    Ok(Some(message)) => {
                        let Some(body) = message.body else { continue };
                        if let Some(ended) = self.receive(body, &live, &mut answers, &mut upload, &mut behind).await {
                            return ended;
                        }
                    }
                    Ok(None) => return SessionEnded::Closed,
                    Err(status) => return stream_failed(status),
                },
                answer = answers.next() => match answer {
                    Ok(answer) => {
                        if let Some(moment) = answer.moment {
                            self.holder.quoted(moment);
                        }
                        if !send(&live, node_message::Body::Evidence(answer.evidence)) {
                            return SessionEnded::Stuck;
                        }
                    }
                    // The cloud hears nothing and calls us stale; the operator must hear why.
                    Err(error) => tracing::error!(%error, "evidence could not be made"),
                },
                _ = watchdog.tick() => if let Some(ended) = self.watch(opened) {
                    return ended;
                },
                () = tokio::time::sleep(settle_in.unwrap_or_default()), if settle_in.is_some() => self.holder.settle().await,
                ordered = self.holder.publisher.orders.next() => self.holder.serve(ordered).await,
                _ = store.tick() => self.holder.store().await,
                () = self.holder.musts.recorded() => self.holder.bind_journal(),
                Some(call) = self.holder.publisher.reach.calls.recv() => {
                    if !send(&live, node_message::Body::Call(call)) {
                        return SessionEnded::Stuck;
                    }
                }
                () = live.news.due() => {
                    let status = self.status(&live);
                    if !send(&live, node_message::Body::Status(status)) {
                        return SessionEnded::Stuck;
                    }
                }
            }
        }
    }

    async fn receive(
        &mut self,
        body: cloud_message::Body,
        live: &Live,
        answers: &mut evidence::Answers,
        upload: &mut upload::Upload,
        behind: &mut u32,
    ) -> Option<SessionEnded> {
        use cloud_message::Body;
        match body {
            Body::Challenge(challenge) => answers.challenge(self.holder.slot(), challenge),
            Body::Audit(answer) => upload.answered(answer),
            Body::AuditCovered(covered) => upload.covered(covered),
            Body::JournalWanted(wanted) => upload.wanted(&wanted),
            Body::Goodbye(goodbye) => return Some(SessionEnded::Goodbye(goodbye.code)),
            Body::Welcome(_) => return Some(SessionEnded::NoWelcome),
            Body::Heartbeat(bytes) => {
                let before = self.holder.heartbeat_number();
                let applied = self.holder.heartbeat(&bytes);
                if self.holder.heartbeat_number() > before {
                    upload.heard(self.holder.heartbeat_number());
                }
                if applied == Applied::Behind {
                    *behind += 1;
                    return (*behind >= MAX_BEHIND).then_some(SessionEnded::Behind);
                }
                *behind = 0;
            }
            Body::Cut(bytes) => self.holder.cut(&bytes).await,
            Body::Trust(update) => self.holder.trust(update).await,
            Body::Slice(bytes) => self.holder.slice(&bytes),
            Body::SliceDelta(delta) => {
                if let Err(why) = self.holder.slice_delta(&delta)
                    && !send(live, whole_wanted(why))
                {
                    return Some(SessionEnded::Stuck);
                }
            }
            Body::Peers(update) => self.holder.peers(&update),
            Body::Called(called) => self.holder.publisher.reach.called(called),
            Body::Apps(bytes) => {
                self.holder.apps(&bytes);
            }
            Body::Outcome(outcome) => {
                return match self.holder.outcome(outcome).await {
                    Applied::Renewed => {
                        let stored = v1::SvidStored {
                            spki_hash: self.holder.spki_hash().as_bytes().to_vec(),
                        };
                        send(live, node_message::Body::SvidStored(stored));
                        // Let it out before the connection goes.
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        Some(SessionEnded::Renewed)
                    }
                    Applied::Unread => Some(SessionEnded::Unread),
                    Applied::Done | Applied::Behind => None,
                };
            }
        }
        None
    }

    fn watch(&self, opened: edgeward_identity::BootTime) -> Option<SessionEnded> {
        let now = self.clock.boottime();
        let leaf = self.view.svid.borrow().leaf().not_after;
        #[allow(
            clippy::cast_precision_loss,
            reason = "seconds since 1970 are far below 2^52"
        )]
        metrics::gauge!("edgeward_svid_not_after_seconds").set(leaf.secs() as f64);
        if self.clock.now() >= leaf.minus(LEAF_MARGIN) && now.since(opened) >= LEAF_MARGIN {
            return Some(SessionEnded::LeafEnds);
        }
        let silent =
            !self.view.link.borrow().online(now) && now.since(opened) > HEARTBEAT_LOST_AFTER;
        silent.then_some(SessionEnded::Silent)
    }
}

/// Whether the message went out; a queue that is full belongs to a link that takes nothing any more.
fn send(live: &Live, body: node_message::Body) -> bool {
    live.up.try_send(up_message(body)).is_ok()
}

fn whole_wanted(why: NotApplied) -> node_message::Body {
    let code = why.code().to_owned();
    node_message::Body::SliceWanted(v1::SliceWanted { code })
}

fn stream_failed(status: tonic::Status) -> SessionEnded {
    SessionEnded::Stream(Box::new(status))
}

fn up_message(body: node_message::Body) -> v1::NodeMessage {
    v1::NodeMessage { body: Some(body) }
}

#[cfg(test)]
mod tests;
