use tokio::io::{DuplexStream, duplex};

use super::*;

const PATIENCE: Duration = Duration::from_millis(500);

/// Passes lines on in capitals; `!` from either side is malformed, `?` is refused with an answer.
struct Capitals {
    last_words: &'static [u8],
}

impl Between for Capitals {
    fn client_sent(
        &mut self,
        bytes: &mut Inbox,
        out: &mut Outboxes,
        _now: Instant,
    ) -> Result<(), End> {
        let (given, taken) = lines(bytes.untaken());
        if given.contains(&b'!') {
            return Err(End::Malformed("bang"));
        }
        if given.contains(&b'?') {
            out.to_client.bytes.extend_from_slice(b"no\n");
            return Err(End::Refused);
        }
        out.to_server.bytes.extend(given.to_ascii_uppercase());
        bytes.take(taken);
        Ok(())
    }

    fn server_sent(&mut self, bytes: &mut Inbox, out: &mut Outboxes) -> Result<(), End> {
        let (given, taken) = lines(bytes.untaken());
        if given.contains(&b'!') {
            return Err(End::ServerMalformed("bang"));
        }
        out.to_client.bytes.extend(given);
        bytes.take(taken);
        Ok(())
    }

    fn last_words(&mut self) -> Vec<u8> {
        self.last_words.to_vec()
    }
}

fn lines(bytes: &[u8]) -> (Vec<u8>, usize) {
    let taken = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    (bytes[..taken].to_vec(), taken)
}

struct Ends {
    client: DuplexStream,
    server: DuplexStream,
    relayed: tokio::task::JoinHandle<End>,
}

fn start(buffer: usize, last_words: &'static [u8]) -> Ends {
    let (client, mut inner_client) = duplex(buffer);
    let (server, inner_server) = duplex(buffer);
    let relayed = tokio::spawn(async move {
        let between = Capitals { last_words };
        relay_with(&mut inner_client, inner_server, between, PATIENCE).await
    });
    Ends {
        client,
        server,
        relayed,
    }
}

async fn all(stream: &mut DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test]
async fn malformed_bytes_reach_nobody_and_end_it() {
    let mut ends = start(64, b"bye");
    ends.client.write_all(b"a!\n").await.unwrap();
    assert!(matches!(ends.relayed.await.unwrap(), End::Malformed(_)));
    assert_eq!(all(&mut ends.server).await, b"bye");
    assert_eq!(all(&mut ends.client).await, b"");
}

#[tokio::test]
async fn what_the_server_garbles_is_not_passed_on() {
    let mut ends = start(64, b"");
    ends.server.write_all(b"!\n").await.unwrap();
    assert!(matches!(
        ends.relayed.await.unwrap(),
        End::ServerMalformed(_)
    ));
    assert_eq!(all(&mut ends.client).await, b"");
}

#[tokio::test]
async fn a_refusal_is_heard_before_the_end() {
    let mut ends = start(64, b"bye");
    ends.client.write_all(b"?\n").await.unwrap();
    assert!(matches!(ends.relayed.await.unwrap(), End::Refused));
    assert_eq!(all(&mut ends.client).await, b"no\n");
    assert_eq!(all(&mut ends.server).await, b"bye");
}

#[tokio::test]
async fn dropping_it_ends_it_with_its_last_words_and_nothing_to_the_client() {
    let mut ends = start(64, b"bye");
    ends.client.write_all(b"a\n").await.unwrap();
    let mut heard = [0; 2];
    ends.server.read_exact(&mut heard).await.unwrap();
    ends.relayed.abort();
    assert!(ends.relayed.await.unwrap_err().is_cancelled());
    assert_eq!(
        (&heard, all(&mut ends.server).await),
        (b"A\n", b"bye".to_vec())
    );
    assert_eq!(all(&mut ends.client).await, b"");
}

#[tokio::test]
async fn a_message_that_is_half_out_is_finished_before_the_last_words() {
    let mut ends = start(4, b"bye");
    ends.client.write_all(b"abcdefgh\n").await.unwrap();
    let mut heard = vec![0; 2];
    ends.server.read_exact(&mut heard).await.unwrap();
    ends.relayed.abort();
    heard.extend(all(&mut ends.server).await);
    assert_eq!(heard, b"ABCDEFGH\nbye");
    drop(ends.relayed);
}

#[tokio::test]
async fn either_side_closing_closes_the_other() {
    let mut ends = start(64, b"");
    drop(ends.client);
    assert!(matches!(ends.relayed.await.unwrap(), End::ClientClosed));
    assert_eq!(all(&mut ends.server).await, b"");
    let mut ends = start(64, b"bye");
    drop(ends.server);
    assert!(matches!(ends.relayed.await.unwrap(), End::ServerClosed));
    assert_eq!(all(&mut ends.client).await, b"");
}

#[tokio::test]
async fn both_sides_may_send_much_before_either_reads() {
    // Each sends more than fits into pipe and buffers one way, then reads all that the other sent.
    const LINES: usize = 20_000;
    let Ends {
        client,
        server,
        relayed,
    } = start(1024, b"");
    let send_and_read = |stream: DuplexStream, line: &'static [u8], other: &'static [u8]| async move {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let sent = async {
            for _ in 0..LINES {
                writer.write_all(line).await.unwrap();
            }
        };
        let read = async {
            let mut bytes = vec![0; LINES * other.len()];
            reader.read_exact(&mut bytes).await.unwrap();
            bytes
        };
        let ((), bytes) = tokio::join!(sent, read);
        assert!(bytes.chunks(other.len()).all(|chunk| chunk == other));
        (reader, writer)
    };
    let client = tokio::spawn(send_and_read(client, b"from client\n", b"from server\n"));
    let server = tokio::spawn(send_and_read(server, b"from server\n", b"FROM CLIENT\n"));
    let client = client.await.unwrap();
    server.await.unwrap();
    drop(client);
    let _ = relayed.await.unwrap();
}

#[tokio::test]
async fn a_side_that_takes_nothing_is_given_up() {
    let mut ends = start(4, b"");
    ends.client.write_all(b"abcdefgh\n").await.unwrap();
    // Nobody reads the server's end.
    let end = ends.relayed.await.unwrap();
    assert!(matches!(end, End::Stalled), "{end:?}");
    drop(ends.server);
}
