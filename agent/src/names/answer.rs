//! One question's bytes to one answer's bytes. Pure.

use domain::base::iana::{Class, Opcode, OptRcode, Rcode, Rtype};
use domain::base::message_builder::{PushError, StaticCompressor};
use domain::base::rdata::ComposeRecordData;
use domain::base::record::ComposeRecord;
use domain::base::{Message, MessageBuilder, Name, Question, Record, Serial, ToName, Ttl};
use domain::rdata::{A, Aaaa, Ptr, Soa};

use super::book::{Book, Found, WireName};

/// Longest question that is read, in bytes.
pub const MAX_QUESTION_BYTES: usize = 4096;
/// Longest datagram of ours, in bytes (RFC 9715 3.2).
pub const MAX_DATAGRAM_BYTES: u16 = 1232;
/// Longest datagram to who does not say how much it takes, in bytes (RFC 1035 4.2.1).
const PLAIN_DATAGRAM_BYTES: usize = 512;
/// How long an answer may be kept, in seconds: what policy takes away is forgotten soon.
const TTL_SECS: u32 = 30;
/// How long it may be kept that a name is not there, in seconds.
const NEGATIVE_TTL_SECS: u32 = 5;

/// What to do with a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Not a question at all: say nothing.
    Silence,
    Answer(Outcome, Vec<u8>),
    /// Somebody else's to answer; `refusal` is what to say if nobody else is asked.
    Elsewhere {
        whose: Whose,
        refusal: Vec<u8>,
    },
}

/// Whose a question is that is not answered from the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Of another zone.
    Foreign,
    /// The cloud's own address.
    Cloud,
}

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Found,
    NoData,
    NoName,
    NoPolicy,
    Refused,
    Malformed,
}

/// How the question came, which bounds the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    Datagram,
    Stream,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::NoData => "no-data",
            Self::NoName => "no-name",
            Self::NoPolicy => "no-policy",
            Self::Refused => "refused",
            Self::Malformed => "malformed",
        }
    }
}

/// Answers a question from the book.
pub fn answer(bytes: &[u8], book: &Book, carrier: Carrier, recursive: bool) -> Reply {
    let Ok(message) = Message::from_slice(bytes) else {
        return Reply::Silence;
    };
    if message.header().qr() {
        return Reply::Silence;
    }
    let say = Say {
        message,
        carrier,
        recursive,
    };
    let fault = |rcode| say.only(rcode, Outcome::Malformed);
    if message.header().opcode() != Opcode::QUERY {
        return fault(Rcode::NOTIMP);
    }
    let counts = message.header_counts();
    if (counts.qdcount(), counts.ancount(), counts.nscount()) != (1, 0, 0) {
        return fault(Rcode::FORMERR);
    }
    let Some(question) = sound_question(message) else {
        return fault(Rcode::FORMERR);
    };
    if message.opt().is_some_and(|opt| opt.version() != 0) {
        return say.only_extended(OptRcode::BADVERS);
    }
    // Whole zones and "everything" are nobody's to ask.
    let swept = matches!(
        question.qtype(),
        Rtype::AXFR | Rtype::IXFR | Rtype::ANY | Rtype::MAILA | Rtype::MAILB
    );
    if question.qclass() != Class::IN || swept {
        return say.only(Rcode::REFUSED, Outcome::Refused);
    }
    say.found(&question, book.find(question.qname()))
}

/// The one question, its name in lower case, if everything in the message can be read.
fn sound_question(message: &Message<[u8]>) -> Option<Question<WireName>> {
    let question = message.sole_question().ok()?;
    let mut name: WireName = question.qname().to_name();
    name.make_canonical();
    let mut additional = message.additional().ok()?;
    let mut opts = 0;
    for record in &mut additional {
        opts += usize::from(record.ok()?.rtype() == Rtype::OPT);
    }
    (opts <= 1).then(|| Question::new(name, question.qtype(), question.qclass()))
}

struct Say<'a> {
    message: &'a Message<[u8]>,
    carrier: Carrier,
    recursive: bool,
}

/// Where a record stands in an answer.
#[derive(Clone, Copy)]
enum Section {
    Answer,
    Authority,
}

/// A record that is not there: it has a type all the same.
type NoRecord = Option<(Section, Record<Name<[u8; 1]>, A>)>;
/// An answer without a record.
const NO_RECORD: NoRecord = None;

impl Say<'_> {
    fn found(&self, question: &Question<WireName>, found: Found) -> Reply {
        let (name, wanted) = (question.qname(), question.qtype());
        // Whoever has a name is its whole zone: what it lacks is told of that name alone.
        let lacks = || self.negative(Rcode::NOERROR, name);
        match found {
            Found::Foreign => self.elsewhere(Whose::Foreign),
            Found::Cloud => self.elsewhere(Whose::Cloud),
            Found::NotKnown => self.only(Rcode::SERVFAIL, Outcome::NoPolicy),
            Found::Nothing(zone) => self.negative(Rcode::NXDOMAIN, &zone.0),
            Found::Bare(zone) => self.negative(Rcode::NOERROR, &zone.0),
            Found::Addresses { v4, v6 } => match (wanted, v4, v6) {
                (Rtype::A, Some(v4), _) => self.record(name, A::new(v4)),
                (Rtype::AAAA, _, Some(v6)) => self.record(name, Aaaa::new(v6)),
                _ => lacks(),
            },
            Found::Pointer(to) if wanted == Rtype::PTR => self.record(name, Ptr::new(to)),
            Found::Pointer(_) => lacks(),
        }
    }

    fn record(&self, name: &WireName, data: impl ComposeRecordData) -> Reply {
        let record = Record::new(name, Class::IN, Ttl::from_secs(TTL_SECS), data);
        let made = self.build(Rcode::NOERROR.into(), Some((Section::Answer, record)));
        reply(Outcome::Found, made)
    }

    /// With the record that says how long this may be believed (RFC 2308 3).
    fn negative(&self, rcode: Rcode, zone: &WireName) -> Reply {
        let outcome = match rcode {
            Rcode::NXDOMAIN => Outcome::NoName,
            _ => Outcome::NoData,
        };
        let ttl = Ttl::from_secs(NEGATIVE_TTL_SECS);
        let nobody: WireName = Name::root_vec();
        let soa = Soa::new(zone.clone(), nobody, Serial(1), ttl, ttl, ttl, ttl);
        let record = Record::new(zone, Class::IN, ttl, soa);
        reply(
            outcome,
            self.build(rcode.into(), Some((Section::Authority, record))),
        )
    }

    fn only(&self, rcode: Rcode, outcome: Outcome) -> Reply {
        reply(outcome, self.build(rcode.into(), NO_RECORD))
    }

    fn only_extended(&self, rcode: OptRcode) -> Reply {
        reply(Outcome::Malformed, self.build(rcode, NO_RECORD))
    }

    fn elsewhere(&self, whose: Whose) -> Reply {
        match self.build(Rcode::REFUSED.into(), NO_RECORD) {
            Ok(refusal) => Reply::Elsewhere { whose, refusal },
            Err(_) => Reply::Silence,
        }
    }

    /// An answer to this question with one record at most. What does not fit a datagram is asked for by a stream.
    fn build(
        &self,
        rcode: OptRcode,
        record: Option<(Section, impl ComposeRecord)>,
    ) -> Result<Vec<u8>, PushError> {
        let opt = self.message.opt();
        let whole = self.write(rcode, record)?;
        let room = match (self.carrier, &opt) {
            (Carrier::Stream, _) => usize::from(u16::MAX),
            (Carrier::Datagram, None) => PLAIN_DATAGRAM_BYTES,
            (Carrier::Datagram, Some(opt)) => {
                let room = usize::from(opt.udp_payload_size().min(MAX_DATAGRAM_BYTES));
                room.max(PLAIN_DATAGRAM_BYTES)
            }
        };
        if whole.len() <= room {
            return Ok(whole);
        }
        let mut cut = self.write(rcode, NO_RECORD)?;
        if let Ok(message) = Message::try_from_octets(&mut cut) {
            let mut message = message;
            message.header_mut().set_tc(true);
        }
        Ok(cut)
    }

    fn write(
        &self,
        rcode: OptRcode,
        record: Option<(Section, impl ComposeRecord)>,
    ) -> Result<Vec<u8>, PushError> {
        let target = StaticCompressor::new(Vec::new());
        let builder = MessageBuilder::from_target(target).map_err(|_| PushError::ShortBuf)?;
        let mut answer = builder.start_answer(self.message, rcode.rcode())?;
        answer.header_mut().set_aa(rcode.rcode() != Rcode::REFUSED);
        answer.header_mut().set_ra(self.recursive);
        let authority = match record {
            Some((Section::Answer, record)) => {
                answer.push(record)?;
                answer.authority()
            }
            Some((Section::Authority, record)) => {
                let mut authority = answer.authority();
                authority.push(record)?;
                authority
            }
            None => answer.authority(),
        };
        let mut additional = authority.additional();
        if self.message.opt().is_some() {
            additional.opt(|opt| {
                opt.set_udp_payload_size(MAX_DATAGRAM_BYTES);
                opt.set_rcode(rcode);
                Ok(())
            })?;
        }
        Ok(additional.finish().into_target())
    }
}

fn reply(outcome: Outcome, made: Result<Vec<u8>, PushError>) -> Reply {
    match made {
        Ok(bytes) => Reply::Answer(outcome, bytes),
        Err(_) => Reply::Silence,
    }
}

#[cfg(test)]
mod tests;
