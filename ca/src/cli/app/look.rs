//! What was published.

use edgeward_runtime::screen::Table;

use super::super::client::encode;
use super::super::progress::watch;
use super::super::screen::or_dash;
use super::super::{Failure, Session};
use super::sign::Named;
use super::{APPS, release_name};
use crate::api::Items;
use crate::api::views::{AppView, ReleaseDetail};

/// Digits of a digest that people see; JSON has all.
const SHOWN: usize = 12;

pub(super) async fn list(session: &Session, name: Option<&str>) -> Result<(), Failure> {
    let client = session.client()?;
    let mut apps: Items<AppView> = watch(&session.screen, "listing apps", client.get(APPS)).await?;
    if let Some(name) = name {
        let publisher = format!("{name}/");
        apps.items
            .retain(|view| view.app == name || view.app.starts_with(&publisher));
        if apps.items.is_empty() {
            session
                .screen
                .note(&format!("nothing is published as {name}"));
        }
    }
    session.screen.tabulate(&apps.items, |apps| {
        let mut table = Table::new(&["RELEASE", "PUBLISHED", "BYTES", "STATE", "SHA256"]);
        for app in apps {
            for release in &app.versions {
                let state = match release.revoked {
                    Some(_) => "revoked",
                    None => "active",
                };
                table.row([
                    release_name(&app.app, &release.version),
                    release.published.to_string(),
                    release.size.to_string(),
                    state.to_owned(),
                    release.digest.chars().take(SHOWN).collect(),
                ]);
            }
        }
        table
    });
    Ok(())
}

pub(super) async fn show(session: &Session, named: &Named) -> Result<(), Failure> {
    let client = session.client()?;
    let path = path_of(named);
    let detail: ReleaseDetail =
        watch(&session.screen, "asking for the release", client.get(&path)).await?;
    session.screen.tabulate(&detail, |detail| {
        let mut table = Table::new(&["WHAT", "VALUE"]);
        let release = &detail.release;
        let rows = [
            ("release", release_name(&detail.app, &release.version)),
            ("sha256", release.digest.clone()),
            ("published", release.published.to_string()),
            ("revoked", or_dash(release.revoked.clone())),
            ("bytes", release.size.to_string()),
            ("entries", detail.entries.to_string()),
            ("chunks", detail.chunks.to_string()),
            (
                "starts",
                [std::slice::from_ref(&detail.entry), &detail.args]
                    .concat()
                    .join(" "),
            ),
            ("identity", or_dash(detail.identity.clone())),
            ("image", or_dash(detail.image.clone())),
            (
                "writable",
                or_dash(Some(detail.writable.join(" ")).filter(|text| !text.is_empty())),
            ),
            ("host libraries", detail.host_libraries.to_string()),
        ];
        rows.into_iter()
            .for_each(|(what, value)| table.row([what.to_owned(), value]));
        table
    });
    Ok(())
}

/// Where a release is asked for.
pub(super) fn path_of(named: &Named) -> String {
    format!(
        "{APPS}/{}/{}/{}",
        encode(named.app.publisher().as_str()),
        encode(named.app.name()),
        named.version
    )
}
