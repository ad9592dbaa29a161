//! `edgeward ca`.

use clap::Subcommand;
use edgeward_runtime::screen::Table;

use super::client::encode;
use super::progress::watch;
use super::{Failure, Session};
use crate::api::views::{AuthorityView, CaView, RetireRequest, RotateRequest};
use crate::keys::ledger::Role;

const PATH: &str = "/api/v1/ca";
/// Digits of a key that people see; enough to name it.
const SHOWN: usize = 16;

/// `edgeward ca`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show every signing authority, who relies on it, and which nodes lack the newest roots
    #[command(after_help = "\
Examples:
  edgeward ca status
  edgeward ca status -o json | jq '.missing'            nodes that do not hold the newest roots")]
    Status,
    /// Make a new authority and let it take over from the one that signs
    #[command(after_help = "\
Examples:
  edgeward ca rotate issuing                            signs from now on; nodes renew as their certificates age
  edgeward ca rotate root --activate-at 95              signs once 95 % of the active nodes hold it
  edgeward ca rotate root --now                         do not wait (again): it signs at once
  edgeward ca rotate director                           another key says what each node should run; at once
The key of the root that signs must be here; it may be taken away again when the command is done.")]
    Rotate {
        #[arg(value_enum)]
        kind: Turned,
        /// Percent of active nodes that must hold a new root before it signs [default: 100]
        #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
        activate_at: Option<u8>,
        /// Do not wait for nodes: those that lack the new root learn it when they come
        #[arg(long)]
        now: bool,
    },
    /// Renew at once whatever an old authority signed; it is retired when nobody relies on it any more
    #[command(after_help = "\
Examples:
  edgeward ca rotate issuing && edgeward ca taint 3fa8c1
A key is named by the beginning of its hash, as edgeward ca status shows it.")]
    Taint { key: String },
    /// Trust an authority no longer; gives up a rotation that is still under way
    #[command(after_help = "\
Examples:
  edgeward ca retire 3fa8c1
  edgeward ca retire 3fa8c1 --force                     also if nodes rely on it: they must recover or enrol again")]
    Retire {
        key: String,
        /// Although somebody relies on it
        #[arg(long)]
        force: bool,
    },
}

/// What is turned over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Turned {
    /// Signs issuing certificates, the key set and the next set of roots
    Root,
    /// Signs SVIDs
    Issuing,
    /// Signs what each node should have of applications
    Director,
}

pub(super) async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    let client = session.client()?;
    let screen = &session.screen;
    let view: CaView = match command {
        Command::Status => watch(screen, "asking for authorities", client.get(PATH)).await?,
        Command::Rotate {
            kind: Turned::Director,
            activate_at,
            now,
        } => {
            if activate_at.is_some() || now {
                let why = "nobody is waited for where the director's key is turned over";
                return Err(Failure::Usage(why.to_owned()));
            }
            let path = format!("{PATH}/director");
            watch(screen, "rotate", client.post(&path, &())).await?
        }
        Command::Rotate {
            kind,
            activate_at,
            now,
        } => {
            let kind = match kind {
                Turned::Root => Role::Root,
                _ => Role::Issuing,
            };
            let request = RotateRequest {
                kind,
                activate_at,
                now,
            };
            let path = format!("{PATH}/rotate");
            watch(screen, "rotate", client.post(&path, &request)).await?
        }
        Command::Taint { key } => {
            let path = format!("{PATH}/authorities/{}/taint", encode(&key));
            watch(screen, "taint", client.post(&path, &())).await?
        }
        Command::Retire { key, force } => {
            let path = format!("{PATH}/authorities/{}/retire", encode(&key));
            watch(
                screen,
                "retire",
                client.post(&path, &RetireRequest { force }),
            )
            .await?
        }
    };
    screen.tabulate(&view, table);
    if !session.wants_json() {
        explain(session, &view);
    }
    Ok(())
}

fn explain(session: &Session, view: &CaView) {
    let mut note = format!(
        "roots: bundle {}, held by {} of {} active nodes",
        view.bundle, view.held_by, view.nodes
    );
    if let Some(percent) = view.activates_at {
        note.push_str(&format!("; the new root signs from {percent} % on"));
    }
    session.screen.note(&note);
    if !view.missing.is_empty() {
        let note = format!("not yet: {}", view.missing.join(" "));
        session.screen.note(&note);
    }
    for authority in view.authorities.iter().filter(|one| one.relied_on_by > 0) {
        let key: String = authority.key.chars().take(SHOWN).collect();
        let names = authority.relying.join(" ");
        let note = format!("{key} is relied on by {}: {names}", authority.relied_on_by);
        session.screen.note(&note);
    }
}

fn table(view: &CaView) -> Table {
    let mut table = Table::new(&[
        "KIND",
        "KEY",
        "STATE",
        "SINCE",
        "UNTIL",
        "SVIDS",
        "RELYING",
        "PRIVATE KEY",
    ]);
    for authority in &view.authorities {
        table.row(row(authority));
    }
    table
}

fn row(authority: &AuthorityView) -> [String; 8] {
    let place = match authority.key_is_here {
        true => authority.key_at.clone(),
        false => format!("not here ({})", authority.key_at),
    };
    [
        authority.kind.as_str().to_owned(),
        authority.key.chars().take(SHOWN).collect(),
        authority.state.as_str().to_owned(),
        authority.since.to_string(),
        authority.until.to_string(),
        authority.svids.to_string(),
        authority.relied_on_by.to_string(),
        place,
    ]
}
