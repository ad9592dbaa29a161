//! Datagrams through the cloud, over TLS: for networks that pass nothing else. On a connection of its own, so that what
//! is carried never stands in front of a cut.

use std::sync::Arc;
use std::time::Duration;

use edgeward_identity::tls::{self, PeerVerifier};
use edgeward_identity::{Kind, SpiffeId};
use edgeward_wire::limits::{
    ALPN_H2, MAX_CARRIED_AT_ONCE, MAX_CARRIED_BYTES, MAX_RELAY_FRAME_BYTES,
};
use edgeward_wire::v1;
use edgeward_wire::v1::relay_client::RelayClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use crate::connect::{NotConnected, connect};
use crate::view::NodeView;

/// Most datagrams that wait to be carried; more are lost.
pub const MAX_WAITING: usize = 512;
/// Most frames under way to the connection.
const MAX_FRAMES: usize = 8;
/// How long the cloud may take to begin.
const DEADLINE: Duration = Duration::from_secs(15);

/// A datagram of ours to a peer.
pub type Outgoing = (SpiffeId, Vec<u8>);

/// What the stream brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Brought {
    Datagrams {
        from: SpiffeId,
        datagrams: Vec<Vec<u8>>,
    },
    /// Nothing went to this peer: the cloud's reason code.
    Refused { to: SpiffeId, code: String },
}

/// Why it ended.
#[derive(Debug, thiserror::Error)]
pub enum CarryEnded {
    #[error(transparent)]
    NotConnected(#[from] NotConnected),
    #[error("the cloud does not begin within {} s", DEADLINE.as_secs())]
    Silent,
    #[error("the cloud refuses: {}", .0.message())]
    Refused(#[source] Box<tonic::Status>),
    #[error("stream ended")]
    Closed,
    #[error("nobody needs it any more")]
    Stopped,
}

/// Carries until it ends: what is in `outgoing` goes up, what comes down is told to `brought`. `up` is called once the
/// cloud has begun.
pub async fn carry(
    view: &NodeView,
    address: String,
    outgoing: &mut mpsc::Receiver<Outgoing>,
    up: impl FnOnce(),
    brought: impl Fn(Brought),
    stop: CancellationToken,
) -> CarryEnded {
    let work = async {
        let (frames, mut down) = match begin(view, address).await {
            Ok(begun) => begun,
            Err(ended) => return ended,
        };
        up();
        let sending = send(outgoing, frames);
        tokio::pin!(sending);
        loop {
            tokio::select! {
                () = &mut sending => return CarryEnded::Closed,
                message = down.message() => match message {
                    Ok(Some(frame)) => if let Some(told) = read(frame) { brought(told) },
                    Ok(None) => return CarryEnded::Closed,
                    Err(status) => return CarryEnded::Refused(Box::new(status)),
                },
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => CarryEnded::Stopped,
        ended = work => ended,
    }
}

async fn begin(
    view: &NodeView,
    address: String,
) -> Result<(mpsc::Sender<v1::RelayFrame>, Streaming<v1::RelayFrame>), CarryEnded> {
    let verifier = PeerVerifier::mandatory(view.trust.clone(), view.clock.clone(), &[Kind::Cloud]);
    let config = tls::client(view.credentials.clone(), verifier, &[ALPN_H2]);
    let connected = connect(&[address], Arc::new(config)).await?;
    let (frames, requests) = mpsc::channel(MAX_FRAMES);
    let mut client = RelayClient::new(connected.channel)
        .max_decoding_message_size(MAX_RELAY_FRAME_BYTES)
        .max_encoding_message_size(MAX_RELAY_FRAME_BYTES);
    let carried = client.carry(ReceiverStream::new(requests));
    let down = tokio::time::timeout(DEADLINE, carried)
        .await
        .map_err(|_| CarryEnded::Silent)?
        .map_err(|status| CarryEnded::Refused(Box::new(status)))?;
    Ok((frames, down.into_inner()))
}

/// Puts what waits into as few frames as it takes. Returns when the connection takes no more.
async fn send(outgoing: &mut mpsc::Receiver<Outgoing>, frames: mpsc::Sender<v1::RelayFrame>) {
    let mut waiting = Vec::with_capacity(MAX_CARRIED_AT_ONCE);
    while outgoing.recv_many(&mut waiting, MAX_CARRIED_AT_ONCE).await > 0 {
        for frame in gathered(waiting.drain(..)) {
            if frames.send(frame).await.is_err() {
                return;
            }
        }
    }
}

/// One frame for each stretch of datagrams to the same peer: their order stays.
fn gathered(datagrams: impl Iterator<Item = Outgoing>) -> Vec<v1::RelayFrame> {
    let mut frames: Vec<(SpiffeId, v1::RelayFrame)> = Vec::new();
    for (to, datagram) in datagrams {
        if datagram.is_empty() || datagram.len() > MAX_CARRIED_BYTES {
            metrics::counter!("edgeward_reach_cloud_lost_total").increment(1);
            continue;
        }
        match frames.last_mut() {
            Some((peer, frame)) if *peer == to => frame.datagrams.push(datagram),
            _ => {
                let frame = v1::RelayFrame {
                    spiffe_id: to.to_string(),
                    datagrams: vec![datagram],
                    refused: String::new(),
                };
                frames.push((to, frame));
            }
        }
    }
    frames.into_iter().map(|(_, frame)| frame).collect()
}

/// A frame from the cloud; `None`: it makes no sense.
fn read(frame: v1::RelayFrame) -> Option<Brought> {
    let peer: SpiffeId = frame.spiffe_id.parse().ok()?;
    if peer.kind() != Kind::Node {
        return None;
    }
    if !frame.refused.is_empty() {
        let code = frame.refused.chars().take(64).collect();
        return Some(Brought::Refused { to: peer, code });
    }
    let fits = frame.datagrams.len() <= MAX_CARRIED_AT_ONCE
        && frame
            .datagrams
            .iter()
            .all(|datagram| datagram.len() <= MAX_CARRIED_BYTES);
    fits.then_some(Brought::Datagrams {
        from: peer,
        datagrams: frame.datagrams,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> SpiffeId {
        format!("spiffe://plant.example/node/{name}")
            .parse()
            .unwrap()
    }

    fn frame(id: &str, datagrams: Vec<Vec<u8>>) -> v1::RelayFrame {
        v1::RelayFrame {
            spiffe_id: id.to_owned(),
            datagrams,
            refused: String::new(),
        }
    }

    #[test]
    fn frames_that_make_no_sense_are_thrown_away() {
        let good = "spiffe://plant.example/node/a";
        for wrong in [
            frame("", vec![vec![1]]),
            frame("spiffe://plant.example/operator/a", vec![vec![1]]),
            frame(good, vec![vec![0; MAX_CARRIED_BYTES + 1]]),
            frame(good, vec![vec![0]; MAX_CARRIED_AT_ONCE + 1]),
        ] {
            assert_eq!(read(wrong), None);
        }
        let refused = v1::RelayFrame {
            refused: "x".repeat(100),
            ..frame(good, Vec::new())
        };
        let to = node("a");
        let code = "x".repeat(64);
        assert_eq!(read(refused), Some(Brought::Refused { to, code }));
    }

    #[test]
    fn what_the_cloud_would_not_carry_is_not_sent() {
        let frames = gathered(
            [
                (node("a"), Vec::new()),
                (node("a"), vec![0; MAX_CARRIED_BYTES + 1]),
            ]
            .into_iter(),
        );
        assert!(frames.is_empty());
    }

    #[test]
    fn datagrams_to_one_peer_share_a_frame_and_keep_their_order() {
        let frames = gathered(
            [
                (node("a"), vec![1]),
                (node("a"), vec![2]),
                (node("b"), vec![3]),
                (node("a"), vec![4]),
            ]
            .into_iter(),
        );
        let told: Vec<_> = frames
            .into_iter()
            .map(|frame| (frame.spiffe_id, frame.datagrams))
            .collect();
        let (a, b) = (node("a").to_string(), node("b").to_string());
        assert_eq!(
            told,
            [
                (a.clone(), vec![vec![1], vec![2]]),
                (b, vec![vec![3]]),
                (a, vec![vec![4]]),
            ]
        );
    }
}
