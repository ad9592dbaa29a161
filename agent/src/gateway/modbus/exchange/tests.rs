use super::*;

fn frame(transaction: u16, unit: u8, pdu: &[u8]) -> Frame<'_> {
    Frame {
        transaction,
        unit,
        pdu,
    }
}

const READ: &[u8] = &[3, 0, 10, 0, 2];
const ANSWER: &[u8] = &[3, 4, 0, 1, 0, 2];

fn allow(_: &Request) -> Result<(), Exception> {
    Ok(())
}

struct Line {
    exchange: Exchange,
    now: Instant,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
}

impl Line {
    fn new() -> Self {
        Self {
            exchange: Exchange::default(),
            now: Instant::now(),
            to_server: Vec::new(),
            to_client: Vec::new(),
        }
    }

    fn ask(
        &mut self,
        frame: &Frame<'_>,
        may: &mut dyn FnMut(&Request) -> Result<(), Exception>,
    ) -> Result<(), BadPdu> {
        let out = (&mut self.to_server, &mut self.to_client);
        self.exchange.ask(frame, may, self.now, out)
    }

    /// The number under which the server got the last request.
    fn forwarded(&mut self) -> u16 {
        let taken = std::mem::take(&mut self.to_server);
        frame::first(&taken).unwrap().unwrap().0.transaction
    }
}

#[test]
fn a_denied_request_is_answered_and_never_forwarded() {
    let mut line = Line::new();
    let mut deny = |_: &Request| Err(Exception::IllegalAddress);
    line.ask(&frame(7, 1, READ), &mut deny).unwrap();
    assert!(line.to_server.is_empty());
    let (answer, _) = frame::first(&line.to_client).unwrap().unwrap();
    assert_eq!(answer, frame(7, 1, &[0x83, 2]));
    assert!(line.exchange.next_end().is_none());
}

#[test]
fn what_is_out_of_bounds_is_answered_without_asking_anybody() {
    let mut line = Line::new();
    let mut never = |_: &Request| panic!("asked");
    line.ask(&frame(7, 1, &[3, 0, 0, 0, 126]), &mut never)
        .unwrap();
    let (answer, _) = frame::first(&line.to_client).unwrap().unwrap();
    assert_eq!((answer.pdu, line.to_server.len()), (&[0x83, 3][..], 0));
}

#[test]
fn a_malformed_request_is_an_error_and_reaches_nobody() {
    let mut line = Line::new();
    assert!(line.ask(&frame(7, 1, &[3, 0, 0]), &mut allow).is_err());
    assert!(line.to_server.is_empty() && line.to_client.is_empty());
}

#[test]
fn an_answer_of_another_unit_or_function_ends_it() {
    for (unit, pdu, bad) in [
        (2, ANSWER, BadAnswer::Unit),
        (1, &[4, 4, 0, 1, 0, 2][..], BadAnswer::Function),
        (1, &[0x84, 1][..], BadAnswer::Function),
        (1, &[0x83][..], BadAnswer::Exception),
        (1, &[0x83, 1, 1][..], BadAnswer::Exception),
    ] {
        let mut line = Line::new();
        line.ask(&frame(7, 1, READ), &mut allow).unwrap();
        let number = line.forwarded();
        let answer = frame(number, unit, pdu);
        assert_eq!(line.exchange.answer(&answer, &mut line.to_client), Err(bad));
        assert!(line.to_client.is_empty());
    }
}

#[test]
fn an_answer_that_nobody_asked_for_is_dropped() {
    let mut line = Line::new();
    assert_eq!(
        line.exchange
            .answer(&frame(1, 1, ANSWER), &mut line.to_client),
        Ok(false)
    );
    line.ask(&frame(7, 1, READ), &mut allow).unwrap();
    let number = line.forwarded();
    let mut answer = |number| {
        line.exchange
            .answer(&frame(number, 1, ANSWER), &mut line.to_client)
    };
    assert_eq!(answer(number.wrapping_add(1)), Ok(false));
    assert_eq!(answer(number), Ok(true));
    // The same once more.
    assert_eq!(answer(number), Ok(false));
}

#[test]
fn answers_come_back_under_the_numbers_of_the_client_in_any_order() {
    let mut line = Line::new();
    // One number twice: a client that counts badly.
    let numbers: Vec<u16> = [9, 9, 3]
        .map(|transaction| {
            line.ask(&frame(transaction, 1, READ), &mut allow).unwrap();
            line.forwarded()
        })
        .to_vec();
    for (number, transaction) in [(numbers[2], 3), (numbers[0], 9), (numbers[1], 9)] {
        line.to_client.clear();
        let answered = line
            .exchange
            .answer(&frame(number, 1, ANSWER), &mut line.to_client);
        assert_eq!(answered, Ok(true));
        let (answer, _) = frame::first(&line.to_client).unwrap().unwrap();
        assert_eq!(answer, frame(transaction, 1, ANSWER));
    }
}

#[test]
fn a_server_that_does_not_answer_is_told_of_and_its_late_answer_dropped() {
    let mut line = Line::new();
    line.ask(&frame(7, 1, READ), &mut allow).unwrap();
    let number = line.forwarded();
    line.exchange
        .give_up(line.now + ANSWER_WITHIN / 2, &mut line.to_client);
    assert!(line.to_client.is_empty());
    line.exchange
        .give_up(line.now + ANSWER_WITHIN, &mut line.to_client);
    let (answer, _) = frame::first(&line.to_client).unwrap().unwrap();
    assert_eq!(answer, frame(7, 1, &[0x83, 0x0b]));
    let late = frame(number, 1, ANSWER);
    assert_eq!(line.exchange.answer(&late, &mut Vec::new()), Ok(false));
}

#[test]
fn only_so_many_requests_wait() {
    let mut line = Line::new();
    for _ in 0..MAX_UNANSWERED {
        assert!(!line.exchange.is_full());
        line.ask(&frame(1, 1, READ), &mut allow).unwrap();
    }
    assert!(line.exchange.is_full());
    line.exchange
        .give_up(line.now + ANSWER_WITHIN, &mut line.to_client);
    assert!(!line.exchange.is_full());
}

#[test]
fn a_number_under_way_is_not_given_again() {
    let mut line = Line::new();
    line.exchange.number = u16::MAX;
    line.ask(&frame(1, 1, READ), &mut allow).unwrap();
    let held = line.forwarded();
    line.exchange.number = held.wrapping_sub(1);
    assert_ne!(line.exchange.fresh_number(), held);
}
