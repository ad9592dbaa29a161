//! Requests on the control socket, parsed.

use std::net::SocketAddr;
use std::time::Duration;

use edgeward_identity::Secret;
use ipnet::IpNet;

/// Longest request, in bytes.
pub const MAX_REQUEST_BYTES: usize = 1 << 20;
/// Most peers in one request.
pub const MAX_PEERS: usize = 4096;
/// Most prefixes of one peer in one request.
pub const MAX_PREFIXES: usize = 1024;

/// One request.
#[derive(Debug)]
pub enum Request {
    Get,
    Set(Box<SetRequest>),
}

/// A change of the interface. What is `None` stays as it is.
#[derive(Debug, Default)]
pub struct SetRequest {
    /// All zeros removes the key.
    pub private_key: Option<Secret<[u8; 32]>>,
    pub listen_port: Option<u16>,
    pub fwmark: Option<u32>,
    /// Peers not named are removed.
    pub replace_peers: bool,
    pub peers: Vec<PeerChange>,
}

/// A change of one peer.
#[derive(Debug)]
pub struct PeerChange {
    pub public_key: [u8; 32],
    pub remove: bool,
    /// Nothing happens if the peer is not there.
    pub update_only: bool,
    /// All zeros removes the key.
    pub psk: Option<Secret<[u8; 32]>>,
    pub endpoint: Option<SocketAddr>,
    /// Zero switches it off.
    pub persistent_keepalive: Option<Duration>,
    pub replace_allowed_ips: bool,
    pub allowed_ips: Vec<IpNet>,
}

/// Why a request was refused. The client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    #[error("longer than the limit in bytes: {MAX_REQUEST_BYTES}")]
    TooLong,
    #[error("not text, or a line without =")]
    Syntax,
    #[error("neither get=1 nor set=1")]
    Operation,
    #[error("unknown key in line: {0}")]
    Key(usize),
    #[error("bad value in line: {0}")]
    Value(usize),
    #[error("more peers or prefixes than allowed")]
    Limit,
}

/// Reads one request, up to and without its empty line.
pub fn parse(bytes: &[u8]) -> Result<Request, BadRequest> {
    if bytes.len() > MAX_REQUEST_BYTES {
        return Err(BadRequest::TooLong);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| BadRequest::Syntax)?;
    let mut lines = text
        .lines()
        .enumerate()
        .take_while(|(_, line)| !line.is_empty());
    match lines.next() {
        Some((_, "get=1")) => match lines.next() {
            None => Ok(Request::Get),
            Some((number, _)) => Err(BadRequest::Key(number + 1)),
        },
        Some((_, "set=1")) => {
            let mut change = SetRequest::default();
            for (number, line) in lines {
                let (key, value) = line.split_once('=').ok_or(BadRequest::Syntax)?;
                change.line(key, value, number + 1)?;
            }
            Ok(Request::Set(Box::new(change)))
        }
        _ => Err(BadRequest::Operation),
    }
}

impl SetRequest {
    fn line(&mut self, key: &str, value: &str, number: usize) -> Result<(), BadRequest> {
        let bad = BadRequest::Value(number);
        if key == "public_key" {
            if self.peers.len() >= MAX_PEERS {
                return Err(BadRequest::Limit);
            }
            let public_key = *parse_key(value).ok_or(bad)?.expose();
            self.peers.push(PeerChange::new(public_key));
            return Ok(());
        }
        if let Some(peer) = self.peers.last_mut() {
            return peer.line(key, value, number);
        }
        match key {
            "private_key" => self.private_key = Some(parse_key(value).ok_or(bad)?),
            "listen_port" => self.listen_port = Some(value.parse().map_err(|_| bad)?),
            "fwmark" => self.fwmark = Some(value.parse().map_err(|_| bad)?),
            "replace_peers" => self.replace_peers = parse_true(value).ok_or(bad)?,
            _ => return Err(BadRequest::Key(number)),
        }
        Ok(())
    }
}

impl PeerChange {
    /// A change of nothing: the peer is to exist.
    pub fn new(public_key: [u8; 32]) -> Self {
        Self {
            public_key,
            remove: false,
            update_only: false,
            psk: None,
            endpoint: None,
            persistent_keepalive: None,
            replace_allowed_ips: false,
            allowed_ips: Vec::new(),
        }
    }

    fn line(&mut self, key: &str, value: &str, number: usize) -> Result<(), BadRequest> {
        let bad = BadRequest::Value(number);
        match key {
            "remove" => self.remove = parse_true(value).ok_or(bad)?,
            "update_only" => self.update_only = parse_true(value).ok_or(bad)?,
            "preshared_key" => self.psk = Some(parse_key(value).ok_or(bad)?),
            "endpoint" => self.endpoint = Some(value.parse().map_err(|_| bad)?),
            "persistent_keepalive_interval" => {
                let secs: u16 = value.parse().map_err(|_| bad)?;
                self.persistent_keepalive = Some(Duration::from_secs(secs.into()));
            }
            "replace_allowed_ips" => self.replace_allowed_ips = parse_true(value).ok_or(bad)?,
            "allowed_ip" => {
                if self.allowed_ips.len() >= MAX_PREFIXES {
                    return Err(BadRequest::Limit);
                }
                self.allowed_ips.push(value.parse().map_err(|_| bad)?);
            }
            "protocol_version" if value == "1" => {}
            "protocol_version" => return Err(bad),
            _ => return Err(BadRequest::Key(number)),
        }
        Ok(())
    }
}

fn parse_key(value: &str) -> Option<Secret<[u8; 32]>> {
    let mut key = [0; 32];
    hex::decode_to_slice(value, &mut key).ok()?;
    Some(Secret::new(key))
}

/// The protocol has no `false`.
fn parse_true(value: &str) -> Option<bool> {
    (value == "true").then_some(true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_malformed_request_is_refused_with_its_own_reason() {
        let key = "11".repeat(32);
        for (text, expected) in [
            (String::new(), BadRequest::Operation),
            ("get=2\n".into(), BadRequest::Operation),
            ("get=1\nset=1\n".into(), BadRequest::Key(2)),
            ("set=1\nlisten_port\n".into(), BadRequest::Syntax),
            ("set=1\nlisten_port=65536\n".into(), BadRequest::Value(2)),
            ("set=1\nprivate_key=00\n".into(), BadRequest::Value(2)),
            ("set=1\nreplace_peers=false\n".into(), BadRequest::Value(2)),
            ("set=1\nallowed_ip=10.0.0.0/8\n".into(), BadRequest::Key(2)),
            (
                format!("set=1\npublic_key={key}\nendpoint=localhost:1\n"),
                BadRequest::Value(3),
            ),
            (
                format!("set=1\npublic_key={key}\nallowed_ip=10.0.0.0/33\n"),
                BadRequest::Value(3),
            ),
            (
                format!("set=1\npublic_key={key}\nlisten_port=1\n"),
                BadRequest::Key(3),
            ),
            (
                format!("set=1\npublic_key={key}\nprotocol_version=2\n"),
                BadRequest::Value(3),
            ),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err(), expected, "{text}");
        }
        assert_eq!(parse(&[0xff]).unwrap_err(), BadRequest::Syntax);
        let many = format!(
            "set=1\npublic_key={key}\n{}",
            "allowed_ip=10.0.0.0/8\n".repeat(MAX_PREFIXES + 1)
        );
        assert_eq!(parse(many.as_bytes()).unwrap_err(), BadRequest::Limit);
    }

    #[test]
    fn a_whole_configuration_is_read() {
        let text = format!(
            "set=1\nprivate_key={}\nlisten_port=51820\nfwmark=0\nreplace_peers=true\npublic_key={}\npreshared_key={}\n\
             endpoint=[2001:db8::1]:51820\npersistent_keepalive_interval=25\nreplace_allowed_ips=true\nallowed_ip=10.0.0.2/32\n\
             allowed_ip=fd00::/64\npublic_key={}\nremove=true\n\n",
            "01".repeat(32),
            "02".repeat(32),
            "03".repeat(32),
            "04".repeat(32),
        );
        let Ok(Request::Set(change)) = parse(text.as_bytes()) else {
            panic!("a set request");
        };
        assert_eq!(
            (change.listen_port, change.replace_peers, change.peers.len()),
            (Some(51820), true, 2)
        );
        let peer = &change.peers[0];
        assert_eq!((peer.public_key, peer.allowed_ips.len()), ([2; 32], 2));
        assert_eq!(peer.persistent_keepalive, Some(Duration::from_secs(25)));
        assert!(change.peers[1].remove);
        assert!(
            !format!("{change:?}").contains("0, 1, 1"),
            "no key in debug output"
        );
    }

    proptest! {
        #[test]
        fn no_request_panics(text in "(set=1\n)?([a-z_]{0,20}=[0-9a-f./:]{0,70}\n){0,10}", bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _request = parse(text.as_bytes());
            let _request = parse(&bytes);
        }
    }
}
