//! `edgeward break-glass approve`: read what an envelope opens, and sign that it may, without a cloud.

use std::path::{Path, PathBuf};

use clap::Args;
use edgeward_identity::{Clock, KeySet, SignedObject, SystemClock};
use edgeward_runtime::screen::Table;
use edgeward_wire::break_glass::{Grant, MAX_SEALED_BYTES, approve, unseal};

use super::CodeArgs;
use super::file::{code, line, read, write_new};
use crate::cli::context::{self, Credential};
use crate::cli::{Failure, Session};

/// `edgeward break-glass approve`.
#[derive(Debug, Args)]
pub struct Approve {
    /// The sealed file
    file: PathBuf,
    #[command(flatten)]
    code: CodeArgs,
    /// Where to write the approval; FILE.<your name>.approval if absent
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Sign without asking
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(session: &Session, arguments: &Approve) -> Result<(), Failure> {
    let context = context::load(session.global.context.as_deref())?;
    let Credential::Certificate(svid) = &context.credential else {
        return Err(Failure::Usage(
            "this is signed, so it needs an operator certificate, not an API key".to_owned(),
        ));
    };
    let sealed = read(&arguments.file, MAX_SEALED_BYTES)?;
    let refused =
        |reason: String| Failure::Usage(format!("{}: {reason}", arguments.file.display()));
    let contents =
        unseal(&sealed, &code(session, &arguments.code)?).map_err(|e| refused(e.to_string()))?;
    let now = SystemClock.now();
    let domain = context.bundle.trust_domain();
    let keys = SignedObject::parse(&contents.key_set)
        .map_err(|error| refused(error.to_string()))
        .and_then(|object| {
            KeySet::open(&object, &context.bundle.root_keys(), domain, 0, now)
                .map_err(|error| refused(format!("key set: {error}")))
        })?;
    let grant = Grant::open_for_any(&contents.grant, &keys, domain, now)
        .map_err(|error| refused(error.to_string()))?;
    let own = svid.signer().public_key();
    let named = grant.body().approvers.iter().find(|one| one.key == *own);
    let Some(named) = named.filter(|one| one.id == *svid.id()) else {
        return Err(refused(format!(
            "{} may not open this grant with this key",
            svid.id()
        )));
    };
    if !session.wants_json() {
        session.screen.table(&shown(&grant));
    }
    if !arguments.yes {
        session
            .screen
            .note("type yes to sign that this may be opened:");
        if line()? != "yes" {
            return Err(Failure::Usage("not signed".to_owned()));
        }
    }
    let approval = approve(&grant, &named.id, svid.signer().as_ref(), now)?;
    let out = arguments
        .out
        .clone()
        .unwrap_or_else(|| beside(&arguments.file, named.id.name()));
    write_new(&out, &approval)?;
    session.screen.line(&out.display().to_string());
    Ok(())
}

fn beside(file: &Path, name: &str) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(format!(".{name}.approval"));
    path.into()
}

fn shown(grant: &Grant) -> Table {
    let body = grant.body();
    let names: Vec<&str> = body.approvers.iter().map(|one| one.id.name()).collect();
    let mut table = Table::new(&["FIELD", "VALUE"]);
    for (field, value) in [
        ("grant", grant.number().to_string()),
        ("name", body.name.clone()),
        ("node", grant.node().to_owned()),
        ("opens", body.rules.join(" ")),
        (
            "for",
            humantime::format_duration(std::time::Duration::from_secs(body.ttl_seconds))
                .to_string(),
        ),
        ("takes", format!("{} of {}", body.quorum, names.join(" "))),
        ("issued", crate::when::format(grant.issued())),
        ("ends", crate::when::format(grant.expires())),
    ] {
        table.row([field.to_owned(), value]);
    }
    table
}
