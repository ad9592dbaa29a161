//! Addresses of servers elsewhere, and how they are known.

use std::net::IpAddr;
use std::path::PathBuf;

/// Longest host, in bytes: that of a name.
const MAX_HOST_BYTES: usize = 253;

/// A server elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
    /// None: in the clear, which only this machine's own addresses or the operator's word allow.
    pub tls: Option<Trust>,
}

/// How a server elsewhere is known, and we to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// Who may have signed its certificate.
    pub roots: Roots,
    /// PEM certificate chain and key that we present.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// Those that the system keeps for the web.
    System,
    /// A file of PEM certificates, each of which must be usable.
    File(PathBuf),
}

/// What is wrong with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    // A secret would be in every listing of processes and files.
    #[error("no user and password belong here")]
    Secret,
    #[error("no port, or none that there is")]
    Port,
    #[error("not a host")]
    Host,
}

impl Endpoint {
    /// Reads `host`, `host:port`, `192.0.2.1:port` or `[2001:db8::1]:port`; `port` counts where there is none.
    pub fn read(text: &str, port: Option<u16>, tls: Option<Trust>) -> Result<Self, BadAddress> {
        if text.contains('@') {
            return Err(BadAddress::Secret);
        }
        let (host, given) = match text.rsplit_once(':') {
            Some((host, given)) if !given.ends_with(']') => (host, Some(given)),
            Some(_) | None => (text, None),
        };
        let port = match given {
            Some(given) => given.parse().ok(),
            None => port,
        };
        let port = port.filter(|port| *port != 0).ok_or(BadAddress::Port)?;
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let is_good = match bracketed {
            Some(host) => matches!(host.parse(), Ok(IpAddr::V6(_))),
            None => {
                (1..=MAX_HOST_BYTES).contains(&host.len())
                    && host
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
            }
        };
        match is_good {
            true => Ok(Self {
                host: bracketed.unwrap_or(host).to_owned(),
                port,
                tls,
            }),
            false => Err(BadAddress::Host),
        }
    }

    /// Whether it is this machine, by what is written.
    pub fn is_here(&self) -> bool {
        let address: Option<IpAddr> = self.host.parse().ok();
        self.host == "localhost" || address.is_some_and(|address| address.is_loopback())
    }

    /// `host:port`, with brackets where the host is an IPv6 address.
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_refused_by_what_is_wrong_with_it() {
        for (text, port, why) in [
            ("u:p@logs.example:1", None, BadAddress::Secret),
            ("logs.example", None, BadAddress::Port),
            ("logs.example:0", Some(1), BadAddress::Port),
            ("logs.example:65536", Some(1), BadAddress::Port),
            ("logs.example:", Some(1), BadAddress::Port),
            ("logs.example", Some(0), BadAddress::Port),
            ("", Some(1), BadAddress::Host),
            (":1", None, BadAddress::Host),
            ("a b:1", None, BadAddress::Host),
            ("a/b:1", None, BadAddress::Host),
            ("2001:db8::1:1", None, BadAddress::Host),
            ("[2001:db8::1:1", None, BadAddress::Host),
            ("[192.0.2.1]:1", None, BadAddress::Host),
            ("[]:1", None, BadAddress::Host),
        ] {
            assert_eq!(Endpoint::read(text, port, None), Err(why), "{text}");
        }
        let long = "a".repeat(MAX_HOST_BYTES + 1);
        assert_eq!(Endpoint::read(&long, Some(1), None), Err(BadAddress::Host));
    }

    #[test]
    fn an_address_is_shown_as_it_was_written() {
        for (text, shown, here) in [
            ("logs.example", "logs.example:443", false),
            ("192.0.2.1:6514", "192.0.2.1:6514", false),
            ("[2001:db8::1]", "[2001:db8::1]:443", false),
            ("[::1]:1514", "[::1]:1514", true),
            ("127.9.9.9:1", "127.9.9.9:1", true),
            ("localhost:1", "localhost:1", true),
            ("localhost.example:1", "localhost.example:1", false),
        ] {
            let endpoint = Endpoint::read(text, Some(443), None).unwrap();
            assert_eq!(
                (endpoint.authority().as_str(), endpoint.is_here()),
                (shown, here)
            );
        }
    }
}
