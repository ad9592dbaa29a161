//! `edgeward ek-roots`.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use edgeward_evidence::ek::roots::{MAX_FILE_BYTES, certificates_of};
use edgeward_runtime::screen::Table;

use super::client::{Client, encode};
use super::progress::watch;
use super::screen::or_dash;
use super::{Failure, Session};
use crate::api::Items;
use crate::api::views::{EkImportRequest, EkImportedView, EkRequest, EkRootView, EkView};
use crate::ek::pins;
use crate::store::eks::EkList;

const ROOTS: &str = "/api/v1/ek-roots";
const EKS: &str = "/api/v1/eks";
/// Certificates in one request.
const BATCH: usize = 16;
/// Most certificates that are imported at once.
const MAX_CERTIFICATES: usize = 1024;

/// `edgeward ek-roots`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the certificates and the tier that each proves
    List,
    /// Import certificates of TPM makers from files or folders (PEM or DER, from any source)
    #[command(after_help = "\
A certificate that the built-in list knows by its SHA-256 gets the tier written there, wherever you have it from; any other
one is refused unless you say what an EK under it proves. `edgeward ek-roots pins` prints the list.

Examples:
  edgeward ek-roots import /usr/share/tpm-certs                  what is known is taken, the rest is named
  edgeward ek-roots import swtpm-ca.pem --trust virtual          your own simulator's authority
  edgeward ek-roots import maker.pem --trust hardware            you checked the fingerprint with its maker")]
    Import(Import),
    /// Remove an imported certificate; nodes that enrolled under it stay
    Remove {
        /// SHA-256 of the certificate, as `list` shows it
        fingerprint: String,
    },
    /// Print the built-in list of TPM makers' certificates
    Pins,
    /// List the EKs that were allowed or denied here
    Eks,
    /// Let a TPM without a certificate enrol: tier `listed`
    #[command(after_help = "\
Examples:
  edgeward-agent check                                           on the machine: shows its EK's SHA-256
  edgeward ek-roots allow 5f0c…e1 --note 'gw-3, read by hand'")]
    Allow(Ek),
    /// Keep a TPM from enrolling, whatever its certificate says
    Deny(Ek),
    /// Accept one EK certificate whose names break DER (a set out of order)
    Lenient(Ek),
    /// Take an EK or EK certificate off a list
    Forget {
        /// Which list
        #[arg(value_parser = ["allowed", "denied", "encoding"])]
        list: String,
        /// SHA-256, as `eks` shows it
        digest: String,
    },
}

/// What to import, and on which terms.
#[derive(Debug, Args)]
pub struct Import {
    /// Files, or folders of *.pem, *.crt, *.cer and *.der
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// What an EK under a certificate proves that the built-in list does not know; it never raises a known one
    #[arg(long, value_parser = ["hardware", "listed", "virtual"])]
    trust: Option<String>,
    /// Count what they issued after its end: their maker is gone. Enrolments say so in the audit log
    #[arg(long)]
    after_its_end: bool,
    /// Forgive names that break DER (a set out of order), in them and in what they issued
    #[arg(long)]
    sets_in_any_order: bool,
}

/// One EK.
#[derive(Debug, Args)]
pub struct Ek {
    /// SHA-256 of the EK's public area (of the certificate for `lenient`), hex
    digest: String,
    /// Which machine, and why; for people
    #[arg(long, default_value = "")]
    note: String,
}

pub(super) async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    if matches!(command, Command::Pins) {
        session.screen.line(pins::TEXT.trim_end());
        return Ok(());
    }
    let client = session.client()?;
    let screen = &session.screen;
    match command {
        Command::Pins => {}
        Command::List => {
            let list: Items<EkRootView> =
                watch(screen, "listing certificates", client.get(ROOTS)).await?;
            screen.tabulate(&list.items, |roots| roots_table(roots));
        }
        Command::Import(import) => return import_all(session, &client, &import).await,
        Command::Remove { fingerprint } => {
            let path = format!("{ROOTS}/{}", encode(&fingerprint));
            watch(screen, "removing", client.delete(&path)).await?;
            screen.note(&format!("{fingerprint} is removed"));
        }
        Command::Eks => {
            let list: Items<EkView> = watch(screen, "listing EKs", client.get(EKS)).await?;
            screen.tabulate(&list.items, |eks| eks_table(eks));
        }
        Command::Allow(ek) => put(session, &client, ek, EkList::Allowed).await?,
        Command::Deny(ek) => put(session, &client, ek, EkList::Denied).await?,
        Command::Lenient(ek) => put(session, &client, ek, EkList::Encoding).await?,
        Command::Forget { list, digest } => {
            let path = format!("{EKS}/{list}/{}", encode(&digest));
            watch(screen, "taking it off", client.delete(&path)).await?;
            screen.note(&format!("{digest} is not on the list {list} any more"));
        }
    }
    Ok(())
}

async fn put(session: &Session, client: &Client, ek: Ek, list: EkList) -> Result<(), Failure> {
    let request = EkRequest {
        digest: ek.digest,
        list,
        note: ek.note,
    };
    let screen = &session.screen;
    let view: EkView = watch(screen, "putting it on the list", client.post(EKS, &request)).await?;
    screen.tabulate(&view, |view| eks_table(std::slice::from_ref(view)));
    if list == EkList::Denied && !view.nodes.is_empty() {
        screen.note(&format!(
            "it cannot enrol again; these nodes hold certificates and stay until you cut them: edgeward node quarantine {}",
            view.nodes.join(" ")
        ));
    }
    Ok(())
}

async fn import_all(session: &Session, client: &Client, import: &Import) -> Result<(), Failure> {
    let screen = &session.screen;
    let mut certificates = Vec::new();
    let mut failed = false;
    for path in &import.paths {
        for file in files_of(path)? {
            match read(&file) {
                Ok(found) => certificates.extend(found),
                Err(reason) => {
                    failed = true;
                    screen.note(&format!("{}: {reason}", file.display()));
                }
            }
        }
    }
    if certificates.len() > MAX_CERTIFICATES {
        return Err(Failure::Usage(format!(
            "more than {MAX_CERTIFICATES} certificates"
        )));
    }
    let mut outcomes: Vec<EkImportedView> = Vec::new();
    for batch in certificates.chunks(BATCH) {
        let request = EkImportRequest {
            certificates: batch.iter().map(|der| STANDARD.encode(der)).collect(),
            trust: import.trust.clone(),
            after_its_end: import.after_its_end,
            sets_in_any_order: import.sets_in_any_order,
        };
        let answer: Items<EkImportedView> =
            watch(screen, "importing", client.post(ROOTS, &request)).await?;
        outcomes.extend(answer.items);
    }
    screen.tabulate(&outcomes, |outcomes| imported_table(outcomes));
    let refused = outcomes.iter().filter(|one| one.refused.is_some()).count();
    let unknown = outcomes
        .iter()
        .filter(|one| one.refused.as_deref() == Some("ek_roots_not_pinned"))
        .count();
    screen.note(&format!(
        "{} taken, {refused} refused",
        outcomes.len() - refused
    ));
    if unknown > 0 {
        screen.note(&format!(
            "{unknown} are not in the built-in list: check their fingerprints with their maker, then import them with --trust TIER"
        ));
    }
    match failed || refused > 0 {
        true => Err(Failure::Quiet),
        false => Ok(()),
    }
}

/// The file itself, or the certificates in a folder, by name.
fn files_of(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let fault = |error: std::io::Error| Failure::Usage(format!("{}: {error}", path.display()));
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(fault)? {
        let file = entry.map_err(fault)?.path();
        let ending = file.extension().and_then(|ending| ending.to_str());
        if ending.is_some_and(|ending| ["pem", "crt", "cer", "der"].contains(&ending)) {
            files.push(file);
        }
    }
    files.sort();
    match files.is_empty() {
        true => Err(Failure::Usage(format!(
            "{}: no certificates (*.pem, *.crt, *.cer, *.der) in it",
            path.display()
        ))),
        false => Ok(files),
    }
}

fn read(file: &Path) -> Result<Vec<Vec<u8>>, String> {
    let about = fs::metadata(file).map_err(|error| error.to_string())?;
    if about.len() > u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX) {
        return Err(format!("larger than {MAX_FILE_BYTES} bytes"));
    }
    let bytes = fs::read(file).map_err(|error| error.to_string())?;
    certificates_of(&bytes).map_err(|refused| refused.to_string())
}

fn roots_table(roots: &[EkRootView]) -> Table {
    let mut table = Table::new(&[
        "NAME", "TIER", "EXPIRES", "FROM", "KNOWN", "REFUSED", "SHA-256",
    ]);
    for root in roots {
        table.row([
            root.name.clone(),
            root.tier.clone(),
            root.expires.to_string(),
            root.source.clone(),
            yes(root.pinned),
            or_dash(root.refused.clone()),
            root.fingerprint.clone(),
        ]);
    }
    table
}

fn imported_table(outcomes: &[EkImportedView]) -> Table {
    let mut table = Table::new(&["NAME", "TIER", "KNOWN", "REFUSED", "SHA-256"]);
    for outcome in outcomes {
        table.row([
            outcome.name.clone(),
            or_dash(outcome.tier.clone()),
            yes(outcome.pinned),
            or_dash(outcome.refused.clone()),
            outcome.fingerprint.clone(),
        ]);
    }
    table
}

fn eks_table(eks: &[EkView]) -> Table {
    let mut table = Table::new(&["SHA-256", "LIST", "NODES", "NOTE", "ADDED", "BY"]);
    for ek in eks {
        table.row([
            ek.digest.clone(),
            ek.list.as_str().to_owned(),
            or_dash((!ek.nodes.is_empty()).then(|| ek.nodes.join(", "))),
            ek.note.clone(),
            ek.added.to_string(),
            ek.added_by.clone(),
        ]);
    }
    table
}

fn yes(yes: bool) -> String {
    if yes { "yes" } else { "-" }.to_owned()
}
