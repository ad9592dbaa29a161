//! What a protocol module knows of its connection, and asks about it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::{BootTime, Clock, SpiffeId};
use edgeward_policy::L7Request;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::party::{Counter, Party};
use crate::enforce::decide::{Decider, Forwarded, Ruling, Who};

/// A service must take a connection within this time.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// The caller of one connection. Cheap to clone.
#[derive(Clone)]
pub struct Caller(Arc<Inner>);

struct Inner {
    decider: Arc<Decider>,
    clock: Arc<dyn Clock>,
    counter: Counter,
    interface: Arc<Forwarded>,
    who: Who,
    source: IpAddr,
    party: Party,
}

/// Why a connection ended before its client ended it well.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The client's socket failed, or went away in the middle.
    #[error("client: {0}")]
    Client(#[source] io::Error),
    /// The service could not be reached, or its socket failed.
    #[error("service: {0}")]
    Service(#[source] io::Error),
    /// The client's bytes are no such protocol. Already recorded.
    #[error("not the protocol of the interface: {0}")]
    Malformed(&'static str),
    /// The service's bytes are no such protocol.
    #[error("not the protocol of the interface, from the service: {0}")]
    ServiceMalformed(&'static str),
    /// What was asked is denied, and the protocol knows no answer to that but the end.
    #[error("denied: {0}")]
    Denied(&'static str),
    #[error("nothing moved for too long")]
    Idle,
}

impl Caller {
    pub(super) fn new(
        decider: Arc<Decider>,
        clock: Arc<dyn Clock>,
        counter: Counter,
        interface: Arc<Forwarded>,
        who: Who,
        source: SocketAddr,
    ) -> Self {
        let party = Party::of(&interface, Some(who.clone()), source.ip());
        Self(Arc::new(Inner {
            decider,
            clock,
            counter,
            interface,
            who,
            source: source.ip(),
            party,
        }))
    }

    /// Who calls.
    pub fn who(&self) -> &Who {
        &self.0.who
    }

    /// Its SPIFFE ID, as services are told.
    pub fn id(&self) -> String {
        self.who().id().to_string()
    }

    /// This node, as services are told.
    pub fn node(&self) -> SpiffeId {
        self.0.decider.picture().parts().node.clone()
    }

    /// Where the connection comes from.
    pub fn source(&self) -> IpAddr {
        self.0.source
    }

    /// The interface that is called.
    pub fn interface(&self) -> &Arc<Forwarded> {
        &self.0.interface
    }

    /// Whether one request may be done, now. Counted for the records, whatever the answer.
    pub fn decide(&self, request: &L7Request<'_>) -> Ruling {
        let picture = self.0.decider.picture();
        let spot = &self.0.interface.spot;
        let ruling = picture.rule_on(&self.0.who, spot, Some(request), self.now());
        let action = self.action_of(request);
        let party = &self.0.party;
        self.0.counter.decided(&picture, party, action, &ruling);
        ruling
    }

    /// As [`Caller::decide`], for what was allowed before and goes on: not counted.
    pub fn still(&self, request: &L7Request<'_>) -> Ruling {
        self.0.decider.picture().rule_on(
            &self.0.who,
            &self.0.interface.spot,
            Some(request),
            self.now(),
        )
    }

    /// Whether the connection may be at all, now.
    pub fn admit(&self) -> Ruling {
        let picture = self.0.decider.picture();
        let spot = &self.0.interface.spot;
        let mut ruling = picture.rule_on(&self.0.who, spot, None, self.now());
        // Another interface has taken this one's place: what was read so far was read by other rules.
        let same = picture
            .parts()
            .rules
            .as_ref()
            .and_then(|rules| rules.forwarded(spot))
            .is_some_and(|(_, present)| *present == self.0.interface);
        if ruling.allow && !same {
            ruling.allow = false;
            ruling.reason = "unknown-interface";
        }
        ruling
    }

    /// Counts a connection, allowed or denied.
    pub(super) fn count(&self, ruling: &Ruling) {
        let action = self.0.interface.actions.first();
        let action = action.filter(|_| self.0.interface.l7.is_none());
        let picture = self.0.decider.picture();
        let party = &self.0.party;
        let counter = &self.0.counter;
        counter.decided(&picture, party, action.cloned(), ruling);
    }

    /// Tells whenever what decisions rest on has changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.decider.changes()
    }

    /// The time by which [`Ruling::until`] is meant.
    pub fn now(&self) -> BootTime {
        self.0.clock.boottime()
    }

    /// Records that the client does not speak the interface's protocol; the connection is to end with what is
    /// returned. `what` is a stable word for what is wrong: `length`, `version`.
    #[must_use]
    pub fn malformed(&self, what: &'static str) -> Broken {
        let picture = self.0.decider.picture();
        self.0.counter.malformed(&picture, &self.0.party, what);
        Broken::Malformed(what)
    }

    /// Counts what is refused whoever asks. `reason` is a stable word.
    pub fn refused(&self, reason: &'static str) {
        let picture = self.0.decider.picture();
        let party = &self.0.party;
        self.0.counter.refused(&picture, party, reason, None);
    }

    /// Where the service is.
    pub fn upstream(&self) -> SocketAddr {
        self.0.interface.upstream
    }

    /// Opens a connection to the service.
    pub async fn connect(&self) -> Result<TcpStream, Broken> {
        let connecting = TcpStream::connect(self.upstream());
        let stream = match tokio::time::timeout(CONNECT_DEADLINE, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(Broken::Service(error)),
            Err(_) => return Err(Broken::Service(io::ErrorKind::TimedOut.into())),
        };
        stream.set_nodelay(true).map_err(Broken::Service)?;
        Ok(stream)
    }

    /// The name of the first action that a request fits.
    fn action_of(&self, request: &L7Request<'_>) -> Option<Arc<str>> {
        let l7 = self.0.interface.l7.as_ref()?;
        let first = l7.actions_of(request).iter().next()?;
        self.0.interface.actions.get(usize::from(first.0)).cloned()
    }
}
