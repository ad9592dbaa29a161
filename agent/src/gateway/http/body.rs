//! Bodies under way: towards the service with clean trailers, towards the client for as long as it may.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

use super::headers;
use super::service::Lease;

/// Resolves when a request is allowed no more.
pub(super) type Lost = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Why a body breaks off.
#[derive(Debug, thiserror::Error)]
pub(super) enum BrokenOff {
    #[error("allowed no more")]
    Lost,
    #[error(transparent)]
    Service(#[from] hyper::Error),
}

/// A body for the client.
pub(super) enum Body {
    Whole(Option<Bytes>),
    Streamed(Box<Streamed>),
}

pub(super) struct Streamed {
    incoming: Incoming,
    lost: Lost,
    /// The connection to the service, free again after the body's end.
    lease: Option<Lease>,
}

/// A body for the service.
pub(super) struct Upload(Incoming);

impl Body {
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    pub(super) fn streamed(incoming: Incoming, lost: Lost, lease: Option<Lease>) -> Self {
        if incoming.is_end_stream() {
            if let Some(lease) = lease {
                lease.give_back();
            }
            return Self::Whole(None);
        }
        Self::Streamed(Box::new(Streamed {
            incoming,
            lost,
            lease,
        }))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streamed(streamed) => streamed.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Streamed(streamed) => streamed.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(None) => SizeHint::with_exact(0),
            Self::Whole(Some(bytes)) => {
                SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
            }
            Self::Streamed(streamed) => streamed.incoming.size_hint(),
        }
    }
}

impl Streamed {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if self.lost.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(BrokenOff::Lost)));
        }
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        // hyper asks no more once it was told that this frame is the last.
        let ended = matches!(polled, Poll::Ready(None)) || self.incoming.is_end_stream();
        if ended && let Some(lease) = self.lease.take() {
            lease.give_back();
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(BrokenOff::from)))
    }
}

impl Upload {
    pub(super) fn new(incoming: Incoming) -> Self {
        Self(incoming)
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.0).poll_frame(cx);
        polled.map(|frame| {
            frame.map(|frame| {
                frame.map(|mut frame| {
                    if let Some(trailers) = frame.trailers_mut() {
                        headers::clean_trailers(trailers);
                    }
                    frame
                })
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
