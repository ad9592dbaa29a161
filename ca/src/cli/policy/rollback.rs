//! `edgeward policy rollback`.

use super::PATH;
use super::apply::{next_number, sign};
use super::history::table;
use crate::api::Items;
use crate::api::views::{PolicyRollback, PolicyView};
use crate::cli::client::Client;
use crate::cli::progress::watch;
use crate::cli::{Failure, Session};

pub(super) async fn run(session: &Session, number: Option<u64>) -> Result<(), Failure> {
    let client = session.client()?;
    let applied = watch(&session.screen, "going back", send(&client, number)).await?;
    session
        .screen
        .tabulate(&vec![applied], |policies| table(policies));
    Ok(())
}

async fn send(client: &Client, to: Option<u64>) -> Result<PolicyView, Failure> {
    let to = match to {
        Some(to) => to,
        None => before_current(client).await?,
    };
    let earlier: PolicyView = client.get(&format!("{PATH}/{to}")).await?;
    let number = next_number(client).await?;
    let request = PolicyRollback {
        to,
        number,
        signature: sign(client, number, &earlier.hash)?,
    };
    client.post(&format!("{PATH}/rollback"), &request).await
}

/// What was in force before the policy that is now: what was only tried does not count.
async fn before_current(client: &Client) -> Result<u64, Failure> {
    let current: PolicyView = client.get(&format!("{PATH}/current")).await?;
    let list: Items<PolicyView> = client.get(PATH).await?;
    let was_in_force =
        |policy: &&PolicyView| policy.stage.as_deref().is_none_or(|stage| stage == "done");
    list.items
        .iter()
        .filter(was_in_force)
        .map(|policy| policy.number)
        .filter(|number| *number < current.number)
        .max()
        .ok_or_else(|| Failure::Usage("there is no earlier policy to go back to".to_owned()))
}
