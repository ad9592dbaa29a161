use edgeward_identity::BootTime;
use parking_lot::Mutex;

use super::*;
use crate::node::{PeerId, Role};

/// Shows one peer; takes changes if allowed to.
struct Fake {
    writable: bool,
    changes: Mutex<usize>,
}

impl Backend for Fake {
    fn get(&self) -> Interface {
        let status = PeerStatus {
            id: PeerId(1),
            name: "spiffe://plant.example/node/b".into(),
            role: Role::Responder,
            public_key: [0xab; 32],
            endpoint: Some("192.0.2.1:51820".parse().unwrap()),
            allowed_ips: vec!["10.0.0.2/32".parse().unwrap()],
            epoch: 3,
            open: Some(3),
            last_handshake: Some(BootTime::default()),
            valid_until: BootTime::default(),
            received_bytes: 11,
            sent_bytes: 22,
            persistent_keepalive: None,
        };
        Interface {
            private_key: None,
            listen_port: 51820,
            peers: vec![Peer {
                status,
                last_handshake: Some(Timestamp::from_millis(1_700_000_000_250)),
                psk: None,
            }],
        }
    }

    fn set(&self, _change: SetRequest) -> Result<(), Errno> {
        if !self.writable {
            return Err(Errno::EPERM);
        }
        *self.changes.lock() += 1;
        Ok(())
    }
}

fn ask(path: &Path, request: &[u8]) -> String {
    let mut client = UnixStream::connect(path).unwrap();
    client.write_all(request).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

fn serve_at(name: &str, writable: bool) -> (PathBuf, UapiServer, Arc<Fake>) {
    let folder = std::env::temp_dir().join(format!("edgeward-uapi-{}-{name}", std::process::id()));
    let path = folder.join("ew0.sock");
    let fake = Arc::new(Fake {
        writable,
        changes: Mutex::new(0),
    });
    let server = UapiServer::start(&path, Arc::clone(&fake) as Arc<dyn Backend>).unwrap();
    (path, server, fake)
}

#[test]
fn a_read_only_interface_refuses_every_change() {
    let (path, _server, fake) = serve_at("read-only", false);
    assert_eq!(ask(&path, b"set=1\nreplace_peers=true\n\n"), "errno=1\n\n");
    assert_eq!(*fake.changes.lock(), 0);
}

#[test]
fn a_peer_is_shown_without_any_secret() {
    let (path, _server, _fake) = serve_at("show", false);
    let answer = ask(&path, b"get=1\n\n");
    assert!(
        answer.starts_with("listen_port=51820\npublic_key=abab"),
        "{answer}"
    );
    for line in [
        "endpoint=192.0.2.1:51820",
        "last_handshake_time_sec=1700000000",
        "last_handshake_time_nsec=250000000",
        "rx_bytes=11",
        "tx_bytes=22",
        "allowed_ip=10.0.0.2/32",
        "errno=0",
    ] {
        assert!(
            answer.lines().any(|found| found == line),
            "{line} in {answer}"
        );
    }
    assert!(!answer.contains("private_key") && !answer.contains("preshared_key"));
    assert!(answer.ends_with("\n\n"));
}

#[test]
fn several_requests_and_bad_ones_are_answered_in_order() {
    let (path, _server, fake) = serve_at("order", true);
    let answer = ask(&path, b"set=1\n\nnonsense\n\nset=1\nlisten_port=1\n\n");
    assert_eq!(answer, "errno=0\n\nerrno=22\n\nerrno=0\n\n");
    assert_eq!(*fake.changes.lock(), 2);
}

#[test]
fn an_endless_request_is_cut_off() {
    let (path, _server, fake) = serve_at("endless", true);
    let mut client = UnixStream::connect(&path).unwrap();
    let line = [b'a'; 4096];
    let refused =
        (0..MAX_REQUEST_BYTES / line.len() + 64).any(|_| client.write_all(&line).is_err());
    assert!(refused);
    assert_eq!(*fake.changes.lock(), 0);
}

#[test]
fn the_socket_is_for_root_only_and_goes_with_its_server() {
    let (path, server, _fake) = serve_at("mode", true);
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let again = UapiServer::start(
        &path,
        Arc::new(Fake {
            writable: true,
            changes: Mutex::new(0),
        }),
    );
    assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    drop(server);
    assert!(!path.exists());
}
