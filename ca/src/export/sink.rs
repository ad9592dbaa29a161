//! Where events go. A sink gives a batch to its receiver and says how far the receiver surely has them.

use edgeward_audit::export::Exported;

use crate::config::exports::{Export, Format, Target};

mod file;
mod http;
mod stream;

#[cfg(test)]
mod tests;

/// The way to one receiver.
#[derive(Debug)]
pub(super) enum Sink {
    File(file::FileSink),
    Stream(Box<stream::StreamSink>),
    Http(Box<http::HttpSink>),
}

/// What became of a batch that was not refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// The receiver has it for good.
    Kept,
    /// It is on its way: [`Sink::confirmed`] says when it is there.
    OnItsWay,
    /// The receiver has it, but for so many that it will never take, and did not say which.
    But { rejected: u64, reason: String },
}

/// Why a batch was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotGiven {
    /// Nobody is there, or somebody who can take nothing now: whatever was not confirmed is to be given again. After that
    /// many milliseconds, if the receiver named a time.
    Down { why: String, after: Option<u64> },
    /// The receiver refuses something in it for what it is.
    Refused { why: String },
}

impl NotGiven {
    pub(super) fn down(why: impl Into<String>) -> Self {
        Self::Down {
            why: why.into(),
            after: None,
        }
    }
}

impl Sink {
    pub(super) fn new(export: &Export, cloud: &str) -> Self {
        match &export.to {
            Target::File {
                path,
                rotate_bytes,
                keep,
            } => Self::File(file::FileSink::new(path.clone(), *rotate_bytes, *keep)),
            Target::Stream(endpoint) => Self::Stream(Box::new(stream::StreamSink::new(
                endpoint.clone(),
                export.timeout,
            ))),
            Target::Http {
                endpoint,
                path,
                token_file,
            } => Self::Http(Box::new(http::HttpSink::new(
                endpoint.clone(),
                path.clone(),
                token_file.clone(),
                export.timeout,
                cloud.to_owned(),
            ))),
        }
    }

    /// Gives a batch, which is never empty.
    pub(super) async fn give(
        &mut self,
        export: &Export,
        events: &[Exported<'_>],
    ) -> Result<Given, NotGiven> {
        match self {
            Self::File(sink) => sink.give(export, events).await,
            Self::Stream(sink) => sink.give(export, events).await,
            Self::Http(sink) => sink.give(export, events).await,
        }
    }

    /// The last of the events on their way that the receiver has by now; an error when the way is broken.
    pub(super) fn confirmed(&mut self) -> Result<Option<u64>, NotGiven> {
        match self {
            Self::Stream(sink) => sink.confirmed(),
            Self::File(_) | Self::Http(_) => Ok(None),
        }
    }

    /// Whether nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        match self {
            Self::Stream(sink) => sink.is_idle(),
            Self::File(_) | Self::Http(_) => true,
        }
    }

    /// Ends in order. Some: the receiver has everything up to this one.
    pub(super) async fn close(&mut self) -> Option<u64> {
        match self {
            Self::Stream(sink) => sink.close().await,
            Self::File(_) | Self::Http(_) => None,
        }
    }
}

/// One event on one line, in the form that was asked for.
fn line(export: &Export, event: &Exported<'_>) -> String {
    use edgeward_audit::export::{cef, json, ocsf, syslog};
    match export.format {
        Format::Json => json::line(event),
        Format::Ocsf => ocsf::line(event),
        Format::Cef => cef::line(event),
        // An OTLP export goes over HTTP as messages of its own; configuration refuses anything else.
        Format::Rfc5424 | Format::Otlp => {
            syslog::message(event, export.facility, &event.sentence())
        }
    }
}
