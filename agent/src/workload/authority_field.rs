//! Clients on gRPC's C core name a unix socket's path, percent-encoded, as `:authority`
//! (`run%2Fedgeward%2Fworkload.sock`). RFC 3986 allows that; the HTTP/2 server here does not and resets the request.
//! Nobody reads the field on a local socket, so `%` in it is replaced by `-` on the way in. Nothing changes its length:
//! frames and the compression state (RFC 7541) stay what the client made them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of the connection preface and of a frame's header (RFC 9113 3.4, 4.1).
const PREFACE_BYTES: usize = 24;
const FRAME_HEADER_BYTES: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Largest frame that a server accepts unless it says otherwise; larger ones are passed on, to be refused.
const MAX_FRAME_BYTES: usize = 16_384;
/// Number of `:authority` in HPACK's static table.
const AUTHORITY_INDEX: usize = 1;
const AUTHORITY: &[u8] = b":authority";
const READ_BYTES: usize = 8 * 1024;

/// The stream of a caller, with that field softened.
#[derive(Debug)]
pub(crate) struct Softened<S> {
    inner: S,
    filter: Filter,
    out: Vec<u8>,
    given: usize,
    ended: bool,
}

/// A whole stream, softened; for tests of the reader.
pub fn soften(stream: &[u8]) -> Vec<u8> {
    let (mut filter, mut out) = (Filter::default(), Vec::new());
    filter.push(stream, &mut out);
    filter.end(&mut out);
    out
}

/// What is known of the bytes that come.
#[derive(Debug)]
pub(super) struct Filter {
    stage: Stage,
    held: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// So many bytes are passed on as they are.
    Pass(usize),
    /// A frame's header comes.
    Header,
    /// The frame that is held has so many bytes.
    Block(usize),
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            stage: Stage::Pass(PREFACE_BYTES),
            held: Vec::new(),
        }
    }
}

impl Filter {
    /// Takes bytes in and gives on what is whole.
    pub(super) fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let wanted = match self.stage {
                Stage::Pass(left) => left,
                Stage::Header => FRAME_HEADER_BYTES.saturating_sub(self.held.len()),
                Stage::Block(whole) => whole.saturating_sub(self.held.len()),
            };
            let (taken, rest) = bytes.split_at(wanted.min(bytes.len()));
            bytes = rest;
            match self.stage {
                Stage::Pass(left) => {
                    out.extend_from_slice(taken);
                    self.stage = passing(left - taken.len());
                }
                Stage::Header => {
                    self.held.extend_from_slice(taken);
                    if self.held.len() == FRAME_HEADER_BYTES {
                        self.frame_begins(out);
                    }
                }
                Stage::Block(whole) => {
                    self.held.extend_from_slice(taken);
                    if self.held.len() == whole {
                        soften_frame(&mut self.held);
                        out.append(&mut self.held);
                        self.stage = Stage::Header;
                    }
                }
            }
        }
    }

    /// What is held when nothing more comes.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
    }

    fn frame_begins(&mut self, out: &mut Vec<u8>) {
        let length = match self.held.as_slice() {
            [a, b, c, ..] => usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c),
            _ => 0,
        };
        let is_headers = self.held.get(3) == Some(&HEADERS);
        if is_headers && (1..=MAX_FRAME_BYTES).contains(&length) {
            self.stage = Stage::Block(FRAME_HEADER_BYTES + length);
        } else {
            out.append(&mut self.held);
            self.stage = passing(length);
        }
    }
}

fn passing(left: usize) -> Stage {
    match left {
        0 => Stage::Header,
        left => Stage::Pass(left),
    }
}

/// Softens the field in a whole HEADERS frame; one that is malformed stays as it is, to be refused.
fn soften_frame(frame: &mut [u8]) {
    let flags = frame.get(4).copied().unwrap_or(0);
    let Some((_, payload)) = frame.split_at_mut_checked(FRAME_HEADER_BYTES) else {
        return;
    };
    let padding = match (flags & PADDED != 0, payload.first()) {
        (true, Some(padding)) => usize::from(*padding),
        _ => 0,
    };
    let skipped = usize::from(flags & PADDED != 0) + if flags & PRIORITY != 0 { 5 } else { 0 };
    let end = payload.len().saturating_sub(padding);
    if let Some(block) = payload.get_mut(skipped..end) {
        let _ = soften_block(block);
    }
}

/// Walks the fields of a header block without decoding them (RFC 7541 6). `None`: it ends in the middle of one.
fn soften_block(block: &mut [u8]) -> Option<()> {
    let mut at = 0;
    while let Some(first) = block.get(at).copied() {
        let prefix = match first {
            0x80.. => 7,
            0x40.. => 6,
            0x20.. => 5,
            _ => 4,
        };
        let number = integer(block, &mut at, prefix)?;
        // Indexed fields and changes of the table's size have nothing more.
        if first >= 0x80 || (0x20..0x40).contains(&first) {
            continue;
        }
        let named = match number {
            0 => {
                let (start, length, huffman) = string(block, &mut at)?;
                !huffman && block.get(start..start + length)? == AUTHORITY
            }
            index => index == AUTHORITY_INDEX,
        };
        let (start, length, huffman) = string(block, &mut at)?;
        if named && !huffman {
            let value = block.get_mut(start..start + length)?;
            let percents = value.iter_mut().filter(|byte| **byte == b'%');
            percents.for_each(|byte| *byte = b'-');
        }
    }
    Some(())
}

/// A string literal: where it begins, how long it is, whether it is compressed. `at` moves behind it.
fn string(block: &[u8], at: &mut usize) -> Option<(usize, usize, bool)> {
    let huffman = block.get(*at)? & 0x80 != 0;
    let length = integer(block, at, 7)?;
    let start = *at;
    *at = start.checked_add(length)?;
    (*at <= block.len()).then_some((start, length, huffman))
}

/// An integer with a prefix of so many bits (RFC 7541 5.1), at most a frame's length.
fn integer(block: &[u8], at: &mut usize, prefix: u32) -> Option<usize> {
    let most = (1_usize << prefix) - 1;
    let mut value = usize::from(*block.get(*at)?) & most;
    *at += 1;
    if value < most {
        return Some(value);
    }
    for shift in [0, 7, 14] {
        let byte = *block.get(*at)?;
        *at += 1;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

impl<S> Softened<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self {
            inner,
            filter: Filter::default(),
            out: Vec::new(),
            given: 0,
            ended: false,
        }
    }

    fn give(&mut self, buffer: &mut ReadBuf<'_>) {
        let rest = self.out.get(self.given..).unwrap_or_default();
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(rest.get(..count).unwrap_or_default());
        self.given += count;
        if self.given >= self.out.len() {
            self.out.clear();
            self.given = 0;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Softened<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.out.is_empty() && !this.ended {
            let mut bytes = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut bytes);
            match Pin::new(&mut this.inner).poll_read(context, &mut read) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) if read.filled().is_empty() => {
                    this.ended = true;
                    this.filter.end(&mut this.out);
                }
                Poll::Ready(Ok(())) => this.filter.push(read.filled(), &mut this.out),
            }
        }
        this.give(buffer);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Softened<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &[u8] = b"run%2Fedgeward%2Fworkload.sock";
    const SOFT: &[u8] = b"run-2Fedgeward-2Fworkload.sock";

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn literal(bytes: &[u8]) -> Vec<u8> {
        [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    /// `:method: POST`, a path with `%`, the authority, then one more field.
    fn block(authority: &[u8], value: &[u8]) -> Vec<u8> {
        [
            &[0x83, 0x3f, 0xe1, 0x1f][..],
            &[0x44],
            &literal(b"/a%2Fb"),
            authority,
            &literal(value),
            &[0x40],
            &literal(b"te"),
            &literal(b"%trailers"),
        ]
        .concat()
    }

    fn through(parts: &[&[u8]]) -> Vec<u8> {
        let (mut filter, mut out) = (Filter::default(), Vec::new());
        for part in parts {
            filter.push(part, &mut out);
        }
        filter.end(&mut out);
        out
    }

    #[test]
    fn only_the_authority_is_softened_however_it_is_written_and_wherever_the_bytes_are_cut() {
        let by_name = [&[0x00][..], &literal(AUTHORITY)].concat();
        for authority in [&[0x41][..], &[0x01], &[0x11], &by_name] {
            for (flags, before, after) in [
                (0x4, &[][..], &[][..]),
                (0x4 | PADDED, &[2][..], &b"%%"[..]),
                (0x4 | PADDED | PRIORITY, &[1, 0, 0, 0, 0, 9][..], &b"%"[..]),
            ] {
                let whole = |value: &[u8]| {
                    let payload = [before, &block(authority, value), after].concat();
                    let data = frame(0, 0, b"\x00%data%\x01");
                    [
                        &[b'%'; PREFACE_BYTES][..],
                        &data,
                        &frame(HEADERS, flags, &payload),
                        &data,
                    ]
                    .concat()
                };
                let (sent, wanted) = (whole(NAME), whole(SOFT));
                assert_eq!(through(&[&sent]), wanted);
                for cut in 0..sent.len() {
                    let (one, other) = sent.split_at(cut);
                    assert_eq!(through(&[one, other]), wanted);
                }
                let single: Vec<&[u8]> = sent.chunks(1).collect();
                assert_eq!(through(&single), wanted);
            }
        }
    }

    #[test]
    fn whatever_comes_goes_on_with_its_length_and_nothing_panics() {
        let good = [
            &[0; PREFACE_BYTES][..],
            &frame(HEADERS, 0x4, &block(&[0x41], NAME)),
        ]
        .concat();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..3 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let at = usize::try_from(random >> 32).unwrap() % bytes.len();
                bytes[at] = random as u8;
            }
            let (one, other) = bytes.split_at(bytes.len() / 2);
            assert_eq!(through(&[one, other]).len(), bytes.len());
        }
    }
}
