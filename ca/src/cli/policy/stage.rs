//! `edgeward policy stage`.

use clap::Subcommand;
use serde_json::json;

use super::PATH;
use super::apply::{next_number, sign};
use super::history::table;
use crate::api::views::{PolicyAbort, PolicyView, RolloutView};
use crate::cli::client::Client;
use crate::cli::progress::watch;
use crate::cli::{Failure, Session};

/// `edgeward policy stage`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show how far it came, and what its nodes were denied
    Status,
    /// Stop: nothing goes on until it is resumed
    Pause,
    /// Go on: the stage is held once more, and its denials do not stop it again
    Resume,
    /// Give up: what was in force before is so again everywhere, as a new policy that you sign
    Abort,
}

pub(super) async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    let client = session.client()?;
    let path = |what: &str| format!("{PATH}/stage{what}");
    let nothing = json!({});
    let view: RolloutView = match command {
        Command::Status => {
            let path = path("");
            watch(&session.screen, "asking for the stage", client.get(&path)).await?
        }
        Command::Pause => {
            let path = path("/pause");
            watch(&session.screen, "stopping", client.post(&path, &nothing)).await?
        }
        Command::Resume => {
            let path = path("/resume");
            watch(&session.screen, "going on", client.post(&path, &nothing)).await?
        }
        Command::Abort => {
            let applied = watch(&session.screen, "going back", abort(&client)).await?;
            session
                .screen
                .tabulate(&vec![applied], |policies| table(policies));
            return Ok(());
        }
    };
    show(session, &view);
    Ok(())
}

async fn abort(client: &Client) -> Result<PolicyView, Failure> {
    let base: PolicyView = client.get(&format!("{PATH}/current")).await?;
    let number = next_number(client).await?;
    let request = PolicyAbort {
        number,
        signature: sign(client, number, &base.hash)?,
    };
    client.post(&format!("{PATH}/stage/abort"), &request).await
}

fn show(session: &Session, view: &RolloutView) {
    if session.wants_json() {
        session.screen.json(view);
        return;
    }
    lines(view)
        .iter()
        .for_each(|line| session.screen.line(line));
}

fn lines(view: &RolloutView) -> Vec<String> {
    let denials = &view.denials;
    let stages: Vec<String> = view.stages.iter().map(|step| format!("{step}%")).collect();
    let mut lines = vec![
        format!(
            "policy {} over {}: {} at {}% of {}",
            view.number,
            view.base,
            view.phase,
            view.percent,
            stages.join(", ")
        ),
        format!(
            "nodes     {} of {}, {} connected: {}",
            view.node_count,
            view.node_count + view.other_nodes,
            view.connected,
            view.nodes.join(" ")
        ),
        format!(
            "denials   {} reported since {}; {} expected, at most {} tolerated{}",
            denials.found,
            view.entered,
            denials.expected,
            denials.tolerated,
            match denials.watched {
                true => "",
                false => "; not asked about any more in this stage",
            }
        ),
        format!(
            "change    {}: rising denials {}",
            view.change,
            match view.returns_by_itself {
                true => "take it back",
                false => "only stop it, since going back would open what it closes",
            }
        ),
    ];
    match (&view.why, &view.next) {
        (Some(why), _) => lines.push(format!("paused    {why}")),
        (None, Some(next)) => lines.push(format!("goes on   {next}")),
        (None, None) => {}
    }
    lines
}
