//! Questions that others answer: sent on as they are, but for their number.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use domain::base::Message;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::answer::{Carrier, MAX_QUESTION_BYTES};

/// How long one server may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most datagrams of one server that are looked at for one question: others may send some too.
const MAX_STRAY_DATAGRAMS: usize = 16;
/// The port of name servers.
pub(super) const PORT: u16 = 53;

/// Asks the servers in their order; the first answer counts. `None`: none answered.
pub(super) async fn ask(
    servers: &[SocketAddr],
    question: &[u8],
    carrier: Carrier,
) -> Option<Vec<u8>> {
    let (asked_as, rest) = question.split_first_chunk::<2>()?;
    for server in servers {
        let mut number = [0; 2];
        SystemRandom::new().fill(&mut number).ok()?;
        let renumbered = [&number[..], rest].concat();
        let asking = async {
            match carrier {
                Carrier::Datagram => by_datagram(*server, &renumbered).await,
                Carrier::Stream => by_stream(*server, &renumbered).await,
            }
        };
        let answered = tokio::time::timeout(PATIENCE, asking).await;
        if let Ok(Ok(Some(mut answer))) = answered
            && let Some(head) = answer.first_chunk_mut::<2>()
        {
            *head = *asked_as;
            return Some(answer);
        }
    }
    None
}

/// A port of its own for each question, which only this server can answer at.
async fn by_datagram(server: SocketAddr, question: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut room = vec![0; MAX_QUESTION_BYTES];
    for _ in 0..MAX_STRAY_DATAGRAMS {
        let length = socket.recv(&mut room).await?;
        let answer = room.get(..length).unwrap_or_default();
        if answers(answer, question) {
            return Ok(Some(answer.to_vec()));
        }
    }
    Ok(None)
}

async fn by_stream(server: SocketAddr, question: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(std::io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes()[..], question].concat())
        .await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answers(&answer, question).then_some(answer))
}

/// Whether the bytes are an answer to just this question (RFC 5452 9.1).
pub fn answers(answer: &[u8], question: &[u8]) -> bool {
    let (Ok(answer), Ok(question)) = (Message::from_slice(answer), Message::from_slice(question))
    else {
        return false;
    };
    let (Ok(one), Ok(other)) = (answer.sole_question(), question.sole_question()) else {
        return false;
    };
    answer.header().qr() && answer.header().id() == question.header().id() && one == other
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::base::iana::Rtype;
    use domain::base::{MessageBuilder, Name};

    fn message(id: u16, name: &str, response: bool) -> Vec<u8> {
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_id(id);
        builder.header_mut().set_qr(response);
        let mut builder = builder.question();
        let name = Name::<Vec<u8>>::vec_from_str(name).unwrap();
        builder.push((&name, Rtype::A)).unwrap();
        builder.finish()
    }

    #[test]
    fn an_answer_to_another_question_counts_for_nothing() {
        let question = message(7, "a.example", false);
        for other in [
            message(8, "a.example", true),
            message(7, "b.example", true),
            message(7, "a.example", false),
            message(7, "a.example", true)[..20].to_vec(),
            Vec::new(),
        ] {
            assert!(!answers(&other, &question));
        }
        assert!(answers(&message(7, "A.example", true), &question));
    }

    #[tokio::test]
    async fn a_server_that_is_silent_or_lies_is_passed_over() {
        let socket = |ip: &'static str| async move { UdpSocket::bind((ip, 0)).await.unwrap() };
        let (liar, honest) = (socket("127.0.0.1").await, socket("::1").await);
        let servers = [liar.local_addr().unwrap(), honest.local_addr().unwrap()];
        tokio::spawn(async move {
            let mut room = [0; 512];
            let (_, from) = liar.recv_from(&mut room).await.unwrap();
            let forged = message(0, "a.example", true);
            for _ in 0..MAX_STRAY_DATAGRAMS {
                liar.send_to(&forged, from).await.unwrap();
            }
        });
        tokio::spawn(async move {
            let mut room = [0; 512];
            let (length, from) = honest.recv_from(&mut room).await.unwrap();
            room[2] |= 0x80;
            honest.send_to(&room[..length], from).await.unwrap();
        });
        let question = message(7, "a.example", false);
        let answer = ask(&servers, &question, Carrier::Datagram).await.unwrap();
        assert_eq!(answer, message(7, "a.example", true));
    }
}
