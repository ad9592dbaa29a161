//! `edgeward policy history` and `show`.

use edgeward_runtime::screen::Table;

use super::PATH;
use crate::api::Items;
use crate::api::views::PolicyView;
use crate::cli::progress::watch;
use crate::cli::{Failure, Session};

pub(super) async fn run(session: &Session) -> Result<(), Failure> {
    let list: Items<PolicyView> = watch(
        &session.screen,
        "listing policies",
        session.client()?.get(PATH),
    )
    .await?;
    session
        .screen
        .tabulate(&list.items, |policies| table(policies));
    Ok(())
}

pub(super) async fn show(session: &Session, number: Option<u64>) -> Result<(), Failure> {
    let path = match number {
        Some(number) => format!("{PATH}/{number}"),
        None => format!("{PATH}/current"),
    };
    let policy: PolicyView = watch(
        &session.screen,
        "asking for the policy",
        session.client()?.get(&path),
    )
    .await?;
    if session.wants_json() {
        session.screen.json(&policy);
        return Ok(());
    }
    session.screen.line(&format!(
        "# policy {} applied {} by {}",
        policy.number, policy.applied, policy.applied_by
    ));
    for file in policy.files.unwrap_or_default() {
        session.screen.line(&format!("\n# --- {}", file.path));
        file.text.lines().for_each(|line| session.screen.line(line));
    }
    Ok(())
}

pub(super) fn table(policies: &[PolicyView]) -> Table {
    let mut table = Table::new(&[
        "NUMBER", "APPLIED", "BY", "STAGE", "BACK TO", "RULES", "HASH",
    ]);
    for policy in policies {
        table.row([
            policy.number.to_string(),
            policy.applied.to_string(),
            policy.applied_by.clone(),
            policy.stage.clone().unwrap_or_else(|| "-".to_owned()),
            policy
                .returned_to
                .map_or_else(|| "-".to_owned(), |number| number.to_string()),
            policy
                .summary
                .get("rules")
                .copied()
                .unwrap_or(0)
                .to_string(),
            policy.hash.clone(),
        ]);
    }
    table
}
