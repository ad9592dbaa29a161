//! Frames of Modbus/TCP: the MBAP header and one PDU ("Modbus Messaging on TCP/IP Implementation Guide V1.0b",
//! section 3.1.3).

/// Bytes of the header: transaction, protocol, length, unit.
pub const HEADER_BYTES: usize = 7;
/// Longest PDU, in bytes: function code and data (Application Protocol V1.1b3, section 4.1).
pub const MAX_PDU_BYTES: usize = 253;
/// Longest frame, in bytes.
pub const MAX_FRAME_BYTES: usize = HEADER_BYTES + MAX_PDU_BYTES;
/// The bytes before what the length field counts.
const BEFORE_LENGTH_ENDS: usize = 6;

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Chosen by the client, given back by the server.
    pub transaction: u16,
    pub unit: u8,
    /// Function code and data, never empty.
    pub pdu: &'a [u8],
}

/// Bytes that are no frame of Modbus/TCP. The stream cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    #[error("protocol identifier is not 0")]
    Protocol,
    #[error("length is not that of a unit and a PDU")]
    Length,
}

impl BadFrame {
    /// A stable word for the records.
    pub fn word(self) -> &'static str {
        match self {
            Self::Protocol => "protocol",
            Self::Length => "length",
        }
    }
}

/// The frame at the start of `bytes`, and how many bytes it takes. `None`: more are needed.
pub fn first(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, BadFrame> {
    let Some(([t0, t1, p0, p1, l0, l1, unit], rest)) = bytes.split_first_chunk::<HEADER_BYTES>()
    else {
        return checked_early(bytes);
    };
    if [*p0, *p1] != [0, 0] {
        return Err(BadFrame::Protocol);
    }
    let pdu_bytes = pdu_bytes(u16::from_be_bytes([*l0, *l1]))?;
    let Some(pdu) = rest.get(..pdu_bytes) else {
        return Ok(None);
    };
    let frame = Frame {
        transaction: u16::from_be_bytes([*t0, *t1]),
        unit: *unit,
        pdu,
    };
    Ok(Some((frame, HEADER_BYTES + pdu_bytes)))
}

/// What of a header has come may already be wrong: another protocol may never send a seventh byte.
fn checked_early(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, BadFrame> {
    if bytes
        .get(2..)
        .is_some_and(|rest| rest.iter().take(2).any(|byte| *byte != 0))
    {
        return Err(BadFrame::Protocol);
    }
    if let Some(length) = bytes
        .get(4..BEFORE_LENGTH_ENDS)
        .and_then(|two| two.try_into().ok())
    {
        pdu_bytes(u16::from_be_bytes(length))?;
    }
    Ok(None)
}

/// The length field counts the unit, too.
fn pdu_bytes(length: u16) -> Result<usize, BadFrame> {
    let bytes = usize::from(length).checked_sub(1).ok_or(BadFrame::Length)?;
    match (1..=MAX_PDU_BYTES).contains(&bytes) {
        true => Ok(bytes),
        false => Err(BadFrame::Length),
    }
}

/// Appends a frame. A PDU that is too long is the caller's error and writes nothing.
pub fn write(out: &mut Vec<u8>, frame: &Frame<'_>) {
    let Some(length) = u16::try_from(frame.pdu.len() + 1)
        .ok()
        .filter(|length| pdu_bytes(*length).is_ok())
    else {
        return;
    };
    out.extend_from_slice(&frame.transaction.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&length.to_be_bytes());
    out.push(frame.unit);
    out.extend_from_slice(frame.pdu);
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: &[u8] = &[0x12, 0x34, 0, 0, 0, 6, 1, 3, 0, 10, 0, 2];

    #[test]
    fn another_protocol_is_refused_as_soon_as_it_shows() {
        assert_eq!(first(b"GET"), Err(BadFrame::Protocol));
        assert_eq!(first(&[0, 1, 0, 1]), Err(BadFrame::Protocol));
        assert_eq!(first(&[0, 1, 0, 0, 0, 0]), Err(BadFrame::Length));
        assert_eq!(first(&[0, 1, 0, 0, 0, 1]), Err(BadFrame::Length));
        assert_eq!(first(&[0, 1, 0, 0, 0, 255, 1]), Err(BadFrame::Length));
        assert_eq!(first(&[0, 1, 0, 0, 1, 0, 1, 3]), Err(BadFrame::Length));
    }

    #[test]
    fn a_cut_frame_waits_for_the_rest() {
        for length in 0..READ.len() {
            assert_eq!(first(&READ[..length]), Ok(None), "{length}");
        }
    }

    #[test]
    fn a_frame_reads_as_it_was_written_and_leaves_the_next() {
        let mut two = READ.to_vec();
        two.extend_from_slice(READ);
        let (frame, taken) = first(&two).unwrap().unwrap();
        assert_eq!(
            (frame.transaction, frame.unit, taken),
            (0x1234, 1, READ.len())
        );
        let mut written = Vec::new();
        write(&mut written, &frame);
        assert_eq!(written, READ);
        let longest = Frame {
            pdu: &[3; MAX_PDU_BYTES],
            ..frame
        };
        written.clear();
        write(&mut written, &longest);
        assert_eq!(written.len(), MAX_FRAME_BYTES);
        assert_eq!(first(&written).unwrap().unwrap().0, longest);
    }
}
