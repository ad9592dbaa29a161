use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use edgeward_audit::EventKind;
use edgeward_policy::l7::Patterns;
use edgeward_policy::slice::{GroupId, Sources};
use edgeward_policy::{ActionId, L7, SliceInterface};
use futures::channel::mpsc;
use http::{HeaderMap, Request, Response};
use hyper::body::{Body as HttpBody, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::headers::{CLIENT_CERT, SPIFFE_ID};
use crate::gateway::testing::*;

/// `b` may read below /status, call one method of a service, and stream; nothing else.
fn http_interface(port: u16, to: SocketAddr) -> SliceInterface {
    let action = |name: &str, patterns: &[&str]| Patterns {
        action: name.to_owned(),
        any_of: patterns.iter().map(|text| text.parse().unwrap()).collect(),
    };
    let l7 = L7::Http(vec![
        action(
            "read",
            &[
                "GET /status/**",
                "HEAD /status/**",
                "POST /status/form",
                "POST /test.Echo/Chat",
            ],
        ),
        action("write", &["* /**"]),
    ]);
    let mut interface = interface(port, to, Some(l7));
    interface.rows[0].actions = vec![ActionId(0)];
    interface
}

/// A service that keeps what it gets, byte for byte, and answers each request with `ok`.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<String>>);

impl Recorder {
    async fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let all = self.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(all.clone().answer(stream));
            }
        });
        address
    }

    async fn answer(self, mut stream: TcpStream) {
        let mut buffer = [0; 4096];
        let mut unanswered = String::new();
        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            self.0.lock().push_str(&text);
            unanswered.push_str(&text);
            let whole = unanswered.ends_with("\r\n\r\n") || unanswered.ends_with("=end");
            if whole && !unanswered.ends_with("chunked\r\n\r\n") {
                unanswered.clear();
                let answer =
                    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nkeep-alive: timeout=9\r\n\r\nok";
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    }

    fn text(&self) -> String {
        self.0.lock().to_ascii_lowercase()
    }
}

async fn rig(to: SocketAddr) -> (Rig, u16) {
    let port = port();
    let rig = Rig::start(vec![http_interface(port, to)]).await;
    rig.up().await;
    (rig, port)
}

/// Sends bytes, and reads until the connection ends or is silent.
async fn send(port: u16, bytes: &str) -> String {
    let mut stream = dial(B_AT, port).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    let silence = Duration::from_millis(300);
    while let Ok(Ok(length @ 1..)) = tokio::time::timeout(silence, stream.read(&mut buffer)).await {
        answer.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8(answer).unwrap()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

#[tokio::test]
async fn an_allowed_request_reaches_the_service_with_its_callers_identity_and_no_forged_one() {
    let service = Recorder::default();
    let (_rig, port) = rig(service.listen().await).await;
    let answer = send(
        port,
        "GET /status/%61?q=1 HTTP/1.1\r\nHost: h\r\nX-Edgeward-Spiffe-Id: spiffe://plant.example/node/admin\r\n\
         x_edgeward_spiffe_id: spiffe://plant.example/node/admin\r\nConnection: x-edgeward-spiffe-id\r\n\
         X-Forwarded-Client-Cert: URI=spiffe://plant.example/node/admin\r\nAccept: a\r\n\r\n",
    )
    .await;
    assert_eq!(status(&answer), "200", "{answer}");
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    assert!(!answer.contains("keep-alive"), "{answer}");
    let got = service.text();
    assert!(got.starts_with("get /status/a?q=1 http/1.1\r\n"), "{got}");
    assert!(
        got.contains("\r\nx-edgeward-spiffe-id: spiffe://plant.example/node/b\r\n"),
        "{got}"
    );
    let certificate = "\r\nx-forwarded-client-cert: by=spiffe://plant.example/node/a;uri=spiffe://plant.example/node/b\r\n";
    assert!(got.contains(certificate), "{got}");
    assert!(
        got.contains("\r\nhost: h\r\n") && got.contains("\r\naccept: a\r\n"),
        "{got}"
    );
    assert!(
        !got.contains("admin") && !got.contains("connection:"),
        "{got}"
    );
}

#[tokio::test]
async fn a_denied_request_is_answered_and_not_forwarded() {
    let service = Recorder::default();
    let (rig, port) = rig(service.listen().await).await;
    for request in [
        "POST /status/a",
        "GET /config",
        "GET /statuses",
        "DELETE /status/form",
    ] {
        let answer = send(port, &format!("{request} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        assert_eq!(status(&answer), "403", "{request}: {answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
        assert!(answer.contains("\"code\":\"denied\""), "{answer}");
        assert!(!answer.contains("rule"), "{answer}");
    }
    assert_eq!(service.text(), "");
    eventually("denials are recorded with their action", async || {
        let denied = rig.journal.of(EventKind::FlowDenied);
        denied
            .iter()
            .any(|event| event["detail"]["action"] == "write")
    })
    .await;
}

#[tokio::test]
async fn several_requests_of_one_connection_are_each_decided() {
    let service = Recorder::default();
    let (_rig, port) = rig(service.listen().await).await;
    let answer = send(
        port,
        "GET /status/1 HTTP/1.1\r\nHost: h\r\n\r\nGET /config HTTP/1.1\r\nHost: h\r\n\r\nGET /status/2 HTTP/1.1\r\nHost: h\r\n\r\n",
    )
    .await;
    let statuses: Vec<&str> = answer
        .matches("HTTP/1.1 200")
        .chain(answer.matches("HTTP/1.1 403"))
        .collect();
    assert_eq!(statuses.len(), 3, "{answer}");
    let got = service.text();
    assert!(
        got.contains("/status/1") && got.contains("/status/2") && !got.contains("/config"),
        "{got}"
    );
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused_and_recorded() {
    let service = Recorder::default();
    let (rig, port) = rig(service.listen().await).await;
    for target in [
        "/status/../config",
        "/status/%2e%2e/config",
        "/status//a",
        "/status/a%2fb",
        "/status/a;b",
        "/status/a%00",
        "/status\\a",
    ] {
        let answer = send(port, &format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        assert_eq!(status(&answer), "400", "{target}: {answer}");
    }
    for request in [
        "GET /status/a HTTP/1.1\r\n\r\n",
        "GET /status/a HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n",
        "GET http://other/status/a HTTP/1.1\r\nHost: h\r\n\r\n",
    ] {
        assert_eq!(status(&send(port, request).await), "400", "{request}");
    }
    assert_eq!(service.text(), "");
    eventually("it is recorded", async || {
        let denied = rig.journal.of(EventKind::FlowDenied);
        denied
            .iter()
            .any(|event| event["detail"]["request"] == "path-dot-segment")
    })
    .await;
}

#[tokio::test]
async fn tunnels_and_upgrades_are_refused_with_a_code() {
    let service = Recorder::default();
    let (_rig, port) = rig(service.listen().await).await;
    let upgrade =
        "GET /status/a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let answer = send(port, upgrade).await;
    assert_eq!(status(&answer), "501", "{answer}");
    assert!(answer.contains("\"code\":\"upgrade-refused\""), "{answer}");
    let answer = send(port, "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n").await;
    assert_eq!(status(&answer), "501", "{answer}");
    assert!(answer.contains("\"code\":\"connect-refused\""), "{answer}");
    assert_eq!(service.text(), "");
}

#[tokio::test]
async fn no_framing_of_the_client_makes_the_service_see_another_request() {
    let service = Recorder::default();
    let (rig, port) = rig(service.listen().await).await;
    let hidden = "GET /secret HTTP/1.1\r\nHost: h\r\n\r\n";
    let post = "POST /status/form HTTP/1.1\r\nHost: h\r\n";
    let hidden_length = hidden.len();
    let attacks = [
        // Content-Length and Transfer-Encoding, both ways around.
        format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!(
            "{post}Transfer-Encoding: chunked\r\nContent-Length: {hidden_length}\r\n\r\n0\r\n\r\n{hidden}"
        ),
        // Two lengths.
        format!("{post}Content-Length: 0\r\nContent-Length: {hidden_length}\r\n\r\n{hidden}"),
        format!("{post}Content-Length: 0, {hidden_length}\r\n\r\n{hidden}"),
        format!("{post}Content-Length: +0\r\n\r\n{hidden}"),
        // Encodings that some take for chunked.
        format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"),
        format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{hidden}"),
        // Folded lines, bare returns, spaces where none may be, a NUL.
        format!("{post}X: a\r\n Content-Length: 0\r\n\r\n{hidden}"),
        format!("{post}X: a\rContent-Length: {hidden_length}\r\n\r\n{hidden}"),
        format!("{post}X: a\0b\r\n\r\n{hidden}"),
        // Chunks that lie.
        format!("{post}Transfer-Encoding: chunked\r\n\r\n1;\r\n\r\nX\r\n{hidden}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n{hidden}"),
    ];
    for attack in &attacks {
        let answer = send(port, attack).await;
        // What follows is at most a request of its own, and that one is denied.
        let got = service.text();
        assert!(!got.contains("/secret"), "{attack:?}\n{got}\n{answer}");
    }
    eventually("broken syntax is recorded", async || {
        let denied = rig.journal.of(EventKind::FlowDenied);
        denied
            .iter()
            .any(|event| event["detail"]["request"] == "http-syntax")
    })
    .await;
}

#[tokio::test]
async fn a_body_goes_through_whole_and_a_head_that_is_too_large_does_not() {
    let service = Recorder::default();
    let (_rig, port) = rig(service.listen().await).await;
    let answer = send(
        port,
        "POST /status/form HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\n\r\nabc=end",
    )
    .await;
    assert_eq!(status(&answer), "200", "{answer}");
    assert!(
        service.text().ends_with("\r\n\r\nabc=end"),
        "{}",
        service.text()
    );
    let large = "x".repeat(super::MAX_HEAD_BYTES);
    let answer = send(
        port,
        &format!("GET /status/a HTTP/1.1\r\nHost: h\r\nX: {large}\r\n\r\n"),
    )
    .await;
    assert!(
        ["431", "none"].contains(&status(&answer)),
        "{}",
        status(&answer)
    );
    let many = "A: b\r\n".repeat(super::MAX_FIELDS + 1);
    let answer = send(
        port,
        &format!("GET /status/a HTTP/1.1\r\nHost: h\r\n{many}\r\n"),
    )
    .await;
    assert!(
        ["431", "400", "none"].contains(&status(&answer)),
        "{answer}"
    );
}

#[tokio::test]
async fn a_service_that_is_not_there_is_told_of_by_a_code() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let (_rig, port) = rig(nobody).await;
    let answer = send(port, "GET /status/a HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(status(&answer), "502", "{answer}");
    assert!(answer.contains("\"code\":\"service-failed\""), "{answer}");
}

#[tokio::test]
async fn a_response_under_way_breaks_off_when_its_request_is_allowed_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        while stream.write_all(b"1\r\n.\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let (rig, port) = rig(to).await;
    let mut stream = dial(B_AT, port).await.unwrap();
    stream
        .write_all(b"GET /status/stream HTTP/1.1\r\nHost: h\r\n\r\n")
        .await
        .unwrap();
    let mut buffer = [0; 4096];
    for _ in 0..5 {
        assert!(stream.read(&mut buffer).await.unwrap() > 0);
    }
    // `b` may still do something here, but reading is no longer it.
    let mut changed = http_interface(port, to);
    changed.rows[0].actions = vec![ActionId(1)];
    changed.rows[0].from = Sources::Groups(vec![GroupId(0)]);
    let deny = {
        let mut deny = changed.rows[0].clone();
        deny.rule = "no-reading".into();
        deny.effect = edgeward_policy::Effect::Deny;
        deny.actions = vec![ActionId(0)];
        deny
    };
    changed.rows.push(deny);
    rig.put(vec![changed]);
    let ended = tokio::time::timeout(Duration::from_secs(1), async {
        while let Ok(1..) = stream.read(&mut buffer).await {}
    });
    ended.await.expect("the stream ends within a second");
}

/// A gRPC-like service: answers each message with itself, and with trailers at the end of the request.
async fn chat() -> (SocketAddr, Arc<Mutex<Vec<HeaderMap>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::<Mutex<Vec<HeaderMap>>>::default();
    let keep = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let keep = Arc::clone(&keep);
            let handler = service_fn(move |request: Request<Incoming>| {
                keep.lock().push(request.headers().clone());
                async move {
                    let answer = Response::builder()
                        .header("content-type", "application/grpc")
                        .body(Chat(request.into_body(), false));
                    Ok::<_, Infallible>(answer.unwrap())
                }
            });
            tokio::spawn(async move {
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), handler)
                    .await
            });
        }
    });
    (address, seen)
}

struct Chat(Incoming, bool);

impl HttpBody for Chat {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        use std::task::Poll;
        if self.1 {
            return Poll::Ready(None);
        }
        let polled = std::pin::Pin::new(&mut self.0).poll_frame(cx);
        match polled {
            Poll::Ready(None) => {
                self.1 = true;
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            other => other,
        }
    }
}

/// What a client sends, message by message.
struct Messages(mpsc::UnboundedReceiver<Bytes>);

impl HttpBody for Messages {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        use futures::Stream;
        std::pin::Pin::new(&mut self.0)
            .poll_next(cx)
            .map(|message| message.map(|message| Ok(Frame::data(message))))
    }
}

async fn call(port: u16, path: &str) -> (mpsc::UnboundedSender<Bytes>, Response<Incoming>) {
    let stream = dial(B_AT, port).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let (send, receive) = mpsc::unbounded();
    send.unbounded_send(Bytes::from_static(b"first")).unwrap();
    let request = Request::post(format!("http://echo{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("x-edgeward-spiffe-id", "spiffe://plant.example/node/admin")
        .body(Messages(receive))
        .unwrap();
    let answer = tokio::time::timeout(SOON, sender.send_request(request));
    (send, answer.await.unwrap().unwrap())
}

async fn next(incoming: &mut Incoming) -> Option<Result<Frame<Bytes>, hyper::Error>> {
    let frame = std::future::poll_fn(|cx| std::pin::Pin::new(&mut *incoming).poll_frame(cx));
    tokio::time::timeout(SOON, frame)
        .await
        .expect("a frame or an end")
}

#[tokio::test]
async fn grpc_streams_both_ways_and_keeps_its_trailers() {
    let (to, seen) = chat().await;
    let (_rig, port) = rig(to).await;
    let (send, answer) = call(port, "/test.Echo/Chat").await;
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    let first = next(&mut body).await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "first");
    send.unbounded_send(Bytes::from_static(b"second")).unwrap();
    let second = next(&mut body).await.unwrap().unwrap();
    assert_eq!(second.into_data().unwrap(), "second");
    drop(send);
    // The end of the request may come as an empty message.
    let mut last = next(&mut body).await.unwrap().unwrap();
    while last.data_ref().is_some_and(Bytes::is_empty) {
        last = next(&mut body).await.unwrap().unwrap();
    }
    assert_eq!(
        last.into_trailers().unwrap().get("grpc-status").unwrap(),
        "0"
    );
    let seen = seen.lock();
    assert_eq!(seen.len(), 1);
    assert_eq!(
        seen[0].get(SPIFFE_ID).unwrap(),
        "spiffe://plant.example/node/b"
    );
    assert_eq!(seen[0].get_all(SPIFFE_ID).iter().count(), 1);
    assert!(seen[0].contains_key(CLIENT_CERT));
    assert_eq!(seen[0].get("te").unwrap(), "trailers");
}

#[tokio::test]
async fn a_grpc_method_that_is_denied_is_answered_in_grpcs_way() {
    let (to, seen) = chat().await;
    let (_rig, port) = rig(to).await;
    let (_send, answer) = call(port, "/test.Echo/Other").await;
    assert_eq!(answer.headers().get("grpc-status").unwrap(), "7");
    assert!(seen.lock().is_empty());
}

#[tokio::test]
async fn a_live_grpc_stream_ends_when_its_caller_is_cut() {
    let (to, _) = chat().await;
    let (rig, port) = rig(to).await;
    let (send, answer) = call(port, "/test.Echo/Chat").await;
    let mut body = answer.into_body();
    assert!(next(&mut body).await.unwrap().is_ok());
    rig.cut_b();
    let ended = tokio::time::timeout(Duration::from_secs(1), next(&mut body)).await;
    assert!(!matches!(ended.unwrap(), Some(Ok(_))));
    drop(send);
}

#[tokio::test]
async fn a_breach_of_http2_ends_the_connection_and_is_recorded() {
    let (to, _) = chat().await;
    let (rig, port) = rig(to).await;
    let mut stream = dial(B_AT, port).await.unwrap();
    // The preface, empty settings, then DATA on a stream that nobody opened.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x01\0\0\0\0\0\x05x";
    stream.write_all(preface).await.unwrap();
    let mut rest = Vec::new();
    let _reset = tokio::time::timeout(SOON, stream.read_to_end(&mut rest))
        .await
        .unwrap();
    eventually("the breach is recorded", async || {
        let denied = rig.journal.of(EventKind::FlowDenied);
        denied
            .iter()
            .any(|event| event["detail"]["request"] == "http2")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_speaks_http2_over_tls_to_a_service_of_http1() {
    let service = Recorder::default();
    let port = port();
    let mut interface = http_interface(port, service.listen().await);
    interface.rows[0].from = Sources::Groups(vec![GroupId(1)]);
    let rig = Rig::start(vec![interface]).await;
    rig.up().await;
    let ada = rig.authority.svid("operator/ada");
    let stream = rig.tls(B_AT, port, &ada, &[b"h2"]).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://line3/status/x")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(super::body::Body::whole(Bytes::new()))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let got = service.text();
    assert!(got.starts_with("get /status/x http/1.1\r\n"), "{got}");
    assert!(
        got.contains("spiffe-id: spiffe://plant.example/operator/ada\r\n"),
        "{got}"
    );
    assert!(got.contains("\r\nhost: line3\r\n"), "{got}");
    assert!(got.contains("\r\ncookie: a=1; b=2\r\n"), "{got}");
}
