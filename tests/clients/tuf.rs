//! A client under test for tuf-conformance (its CLIENT-CLI.md) over the node's own refresh of metadata. It has neither
//! downloads nor a search through delegations, because nodes have neither: `tuf.xfails` says what follows from that.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use edgeward_apps::image::{ImageFloors, Refresh};
use edgeward_identity::{Clock as _, SystemClock};

/// Longest head of an HTTP answer, in bytes.
const MAX_HEAD_BYTES: u64 = 64 * 1024;

fn main() -> anyhow::Result<()> {
    let (mut folder, mut url, mut words) = (None, None, Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(word) = args.next() {
        match word.as_str() {
            "--metadata-dir" => folder = args.next(),
            "--metadata-url" => url = args.next(),
            "--target-name" | "--target-dir" | "--target-base-url" => drop(args.next()),
            _ => words.push(word),
        }
    }
    let folder = PathBuf::from(folder.context("--metadata-dir is missing")?);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["init", root] => init(&folder, Path::new(root)),
        ["refresh"] => refresh(&folder, &url.context("--metadata-url is missing")?),
        other => anyhow::bail!("a node does not do that: {other:?}"),
    }
}

fn init(folder: &Path, root: &Path) -> anyhow::Result<()> {
    let root = std::fs::read(root)?;
    Refresh::new(&root, ImageFloors::default(), vec![], SystemClock.now())?;
    Ok(std::fs::write(folder.join("root.json"), root)?)
}

fn refresh(folder: &Path, url: &str) -> anyhow::Result<()> {
    let kept = folder.join("floors");
    let floors = match std::fs::read(&kept) {
        Ok(bytes) => serde_json::from_slice(&bytes)?,
        Err(_) => ImageFloors::default(),
    };
    let root = std::fs::read(folder.join("root.json"))?;
    let mut refresh = Refresh::new(&root, floors, vec![], SystemClock.now())?;
    while let Some(wanted) = refresh.wanted()? {
        let address = format!("{}/{}", url.trim_end_matches('/'), wanted.name);
        let bytes = get(&address, wanted.max_bytes)?;
        let taken = refresh.give(bytes.as_deref());
        // What was verified counts, also where the rest does not hold.
        std::fs::write(&kept, serde_json::to_vec(refresh.floors())?)?;
        taken?;
        if let Some(bytes) = bytes {
            let plain = wanted
                .name
                .trim_start_matches(|first: char| first.is_ascii_digit())
                .trim_start_matches('.');
            std::fs::write(folder.join(plain), bytes)?;
        }
    }
    let image = refresh.finish()?;
    Ok(std::fs::write(kept, serde_json::to_vec(image.floors())?)?)
}

/// `GET` by HTTP/1.0, from the suite's server on this machine.
fn get(url: &str, max_bytes: u64) -> anyhow::Result<Option<Vec<u8>>> {
    let rest = url.strip_prefix("http://").context("not http")?;
    let (host, path) = rest.split_once('/').context("no path")?;
    let mut stream = std::net::TcpStream::connect(host)?;
    write!(
        stream,
        "GET /{path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream
        .take(max_bytes + MAX_HEAD_BYTES)
        .read_to_end(&mut answer)?;
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .context("no head")?;
    let (head, body) = answer.split_at(end + 4);
    let head = String::from_utf8_lossy(head);
    match head.split(' ').nth(1) {
        Some("200") if body.len() as u64 <= max_bytes => Ok(Some(body.to_vec())),
        Some("403" | "404") => Ok(None),
        status => anyhow::bail!("{url}: status {status:?}, {} bytes", body.len()),
    }
}
