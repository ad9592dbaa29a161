//! `edgeward break-glass issue`: the cloud signs, this machine seals. The code is printed here and kept nowhere.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use edgeward_identity::Secret;
use edgeward_wire::break_glass::{CODE_BYTES, Code, Contents, NONCE_BYTES, SALT_BYTES, seal};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;

use super::PATH;
use super::file::write_new;
use crate::api::views::{GlassIssued, GlassRequest, GlassView};
use crate::cli::progress::watch;
use crate::cli::{Failure, Session};

/// `edgeward break-glass issue`.
#[derive(Debug, Args)]
pub struct Issue {
    /// [break-glass.<NAME>] of the policy in force
    name: String,
    /// The node on which it may be opened
    #[arg(long)]
    node: String,
    /// How long it may be opened, as in 90d (the default); at most a year
    #[arg(long)]
    valid: Option<String>,
    /// Where to write the sealed file
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Issued<'a> {
    grant: &'a GlassView,
    file: String,
    /// Shown once.
    code: &'a str,
}

pub(super) async fn run(session: &Session, issue: Issue) -> Result<(), Failure> {
    if issue.out.exists() {
        return Err(Failure::Usage(format!(
            "{} exists: choose another file with --out",
            issue.out.display()
        )));
    }
    let client = session.client()?;
    let request = GlassRequest {
        name: issue.name,
        node: issue.node,
        valid: issue.valid,
    };
    let issued: GlassIssued = watch(
        &session.screen,
        "signing the grant",
        client.post(PATH, &request),
    )
    .await?;
    let decoded = |text: &str| {
        STANDARD
            .decode(text)
            .map_err(|_| Failure::Answer("not base64".to_owned()))
    };
    let contents = Contents {
        grant: decoded(&issued.object)?,
        key_set: decoded(&issued.key_set)?,
    };
    let code = Code::new(Secret::new(random::<CODE_BYTES>()?));
    let salt = random::<SALT_BYTES>()?;
    let nonce = random::<NONCE_BYTES>()?;
    let sealed =
        seal(&contents, &code, salt, nonce).map_err(|error| Failure::Answer(error.to_string()))?;
    write_new(&issue.out, &sealed)?;
    let text = code.encode();
    if session.wants_json() {
        session.screen.json(&Issued {
            grant: &issued.grant,
            file: issue.out.display().to_string(),
            code: text.expose(),
        });
        return Ok(());
    }
    session.screen.line(text.expose());
    let grant = &issued.grant;
    session.screen.note(&format!(
        "the code above opens {}; it is shown once. Grant {} for {}: {} of {} ({}) may open {} for {} s, once, until {}",
        issue.out.display(),
        grant.number,
        grant.node,
        grant.quorum,
        grant.approvers.len(),
        grant.approvers.join(" "),
        grant.rules.join(" "),
        grant.ttl_seconds,
        grant.ends
    ));
    Ok(())
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Failure::Usage("the random source failed".to_owned()))?;
    Ok(bytes)
}
