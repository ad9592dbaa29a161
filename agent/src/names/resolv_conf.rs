//! `/etc/resolv.conf` with this node's resolver in front, and how it gets back to what it was. Pure.
//!
//! The file that we write holds, in comments, the whole of what was there before, so that whoever finds it can put
//! that back: this agent at its end, or the next one after a crash. The name servers from before stay behind ours, so
//! that a machine whose agent has died still finds names, its cloud's among them.

use std::net::IpAddr;

/// Largest file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 64 * 1024;
/// Most name servers that resolvers read (resolv.conf(5), `MAXNS`).
pub const MAX_SERVERS: usize = 3;

/// The first line of a file of ours.
const MARK: &[u8] = b"# written by edgeward-agent; what was here before:\n";
/// Before each line of what was there.
const BEFORE: &[u8] = b"#< ";
/// What ends what was there; in place of it where there was no file.
const END: &[u8] = b"# end of what was here\n";
const END_WITHOUT_NEWLINE: &[u8] = b"# end of what was here, without a last newline\n";
const NO_FILE: &[u8] = b"# there was no file\n";

/// What was there before us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    NoFile,
    File(Vec<u8>),
}

/// What is found in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Present {
    /// Written by an agent, now or before it died.
    Ours(Before),
    Theirs(Vec<u8>),
}

impl Present {
    /// Reads a file. One of ours that somebody changed in its upper part is theirs.
    pub fn read(text: &[u8]) -> Self {
        match text.strip_prefix(MARK).and_then(read_before) {
            Some(before) => Self::Ours(before),
            None => Self::Theirs(text.to_vec()),
        }
    }

    pub fn before(self) -> Before {
        match self {
            Self::Ours(before) => before,
            Self::Theirs(text) => Before::File(text),
        }
    }
}

impl Before {
    /// The name servers to ask for what is not ours. None is how glibc says "this machine".
    pub fn servers(&self, own: IpAddr) -> Vec<IpAddr> {
        let Self::File(text) = self else {
            return Vec::new();
        };
        lines(text)
            .filter_map(server)
            .filter(|server| *server != own)
            .take(MAX_SERVERS)
            .collect()
    }

    /// The file with `own` in front.
    pub fn with(&self, own: IpAddr) -> Vec<u8> {
        let mut out = MARK.to_vec();
        match self {
            Self::NoFile => out.extend(NO_FILE),
            Self::File(text) => {
                for line in lines(text) {
                    out.extend(BEFORE);
                    out.extend(line);
                    out.push(b'\n');
                }
                out.extend(if text.is_empty() || text.ends_with(b"\n") {
                    END
                } else {
                    END_WITHOUT_NEWLINE
                });
            }
        }
        for server in std::iter::once(own)
            .chain(self.servers(own))
            .take(MAX_SERVERS)
        {
            out.extend(format!("nameserver {server}\n").as_bytes());
        }
        if let Self::File(text) = self {
            let kept = lines(text).filter(|line| is_setting(line));
            for line in kept {
                out.extend(line);
                out.push(b'\n');
            }
        }
        out
    }
}

/// Without the mark: what was there, to its end.
fn read_before(mut rest: &[u8]) -> Option<Before> {
    if rest.starts_with(NO_FILE) {
        return Some(Before::NoFile);
    }
    let mut text = Vec::new();
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n')? + 1;
        let (line, after) = rest.split_at_checked(end)?;
        if line == END {
            return Some(Before::File(text));
        }
        if line == END_WITHOUT_NEWLINE {
            text.pop();
            return Some(Before::File(text));
        }
        text.extend(line.strip_prefix(BEFORE)?);
        rest = after;
    }
}

/// Lines without their newlines; no empty one after the last newline.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let whole = text.strip_suffix(b"\n").unwrap_or(text);
    whole
        .split(|byte| *byte == b'\n')
        .take(if text.is_empty() { 0 } else { usize::MAX })
}

/// What stays in force: everything but name servers and comments.
fn is_setting(line: &[u8]) -> bool {
    let word = line.trim_ascii();
    !word.is_empty() && !word.starts_with(b"#") && !word.starts_with(b";") && server(line).is_none()
}

fn server(line: &[u8]) -> Option<IpAddr> {
    let rest = line.strip_prefix(b"nameserver")?;
    if !rest.first()?.is_ascii_whitespace() {
        return None;
    }
    let word = rest
        .trim_ascii_start()
        .split(u8::is_ascii_whitespace)
        .next()?;
    let text = std::str::from_utf8(word).ok()?;
    // A zone is where a link-local server is asked; such a server stays in the file only.
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 55));

    #[test]
    fn a_file_that_somebody_changed_or_cut_above_is_theirs() {
        let before = Before::File(b"nameserver 192.0.2.1\nsearch a\n".to_vec());
        let ours = before.with(OWN);
        for cut in 0..MARK.len() + BEFORE.len() {
            assert!(matches!(Present::read(&ours[..cut]), Present::Theirs(_)));
        }
        let changed = [b"nameserver 192.0.2.9\n".as_slice(), &ours].concat();
        assert!(matches!(Present::read(&changed), Present::Theirs(_)));
        let text = String::from_utf8(ours)
            .unwrap()
            .replace("#< search", "search");
        assert!(matches!(Present::read(text.as_bytes()), Present::Theirs(_)));
    }

    #[test]
    fn we_never_ask_ourselves_and_keep_at_most_what_resolvers_read() {
        let text = b"nameserver 127.0.0.55\nnameserver 192.0.2.1\nnameservers 192.0.2.8\n\
                     nameserver 2001:db8::1\nnameserver 192.0.2.3 # third\nnameserver fe80::1%eth0\n";
        let before = Before::File(text.to_vec());
        let asked: Vec<String> = before
            .servers(OWN)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(asked, ["192.0.2.1", "2001:db8::1", "192.0.2.3"]);
        let ours = String::from_utf8(before.with(OWN)).unwrap();
        let servers: Vec<&str> = ours
            .lines()
            .filter(|line| line.starts_with("nameserver "))
            .collect();
        assert_eq!(
            servers,
            [
                "nameserver 127.0.0.55",
                "nameserver 192.0.2.1",
                "nameserver 2001:db8::1",
                // Kept as it is: only the resolver knows what to make of its zone.
                "nameserver fe80::1%eth0"
            ]
        );
    }

    #[test]
    fn settings_stay_and_comments_do_not() {
        let before = Before::File(b"; a\n# b\nsearch x.example\noptions edns0 ndots:2\n".to_vec());
        let ours = String::from_utf8(before.with(OWN)).unwrap();
        let below = ours.split("end of what was here\n").nth(1).unwrap();
        assert_eq!(
            below,
            "nameserver 127.0.0.55\nsearch x.example\noptions edns0 ndots:2\n"
        );
    }

    #[test]
    fn where_there_was_no_file_none_is_put_back() {
        let ours = Before::NoFile.with(OWN);
        assert_eq!(Present::read(&ours), Present::Ours(Before::NoFile));
    }

    proptest! {
        #[test]
        fn what_was_there_comes_back_to_the_byte(
            text in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'#'), any::<u8>()], 0..200),
        ) {
            let before = Before::File(text);
            prop_assert_eq!(Present::read(&before.with(OWN)), Present::Ours(before));
        }
    }
}
