//! `edgeward audit sites` and `erase`.

use std::path::Path;

use edgeward_runtime::screen::Table;

use crate::api::Items;
use crate::api::views::{EraseRequest, ErasedView, SiteView};
use crate::cli::client::encode;
use crate::cli::progress::watch;
use crate::cli::screen::or_dash;
use crate::cli::{Failure, Session};
use crate::keys::sites::Site;

const PATH: &str = "/api/v1/audit/sites";

pub(super) async fn list(session: &Session) -> Result<(), Failure> {
    let client = session.client()?;
    let sites: Items<SiteView> =
        watch(&session.screen, "asking for the sites", client.get(PATH)).await?;
    session.screen.tabulate(&sites.items, |sites| {
        let mut table = Table::new(&["SITE", "KEY SINCE", "ERASED", "LAST ERASED", "ERASABLE"]);
        for site in sites {
            table.row([
                site.site.clone(),
                or_dash(site.since.map(|when| when.to_string())),
                site.erased.to_string(),
                or_dash(site.last_erased.map(|when| when.to_string())),
                if site.erasable { "yes" } else { "no" }.to_owned(),
            ]);
        }
        table
    });
    Ok(())
}

/// Asks for the site's name once more, unless `yes`.
pub(super) async fn erase(session: &Session, site: &str, yes: bool) -> Result<(), Failure> {
    if site == Site::cloud().as_str() {
        return Err(Failure::Usage(format!(
            "the events of {site} are not erased: they tell who erased what"
        )));
    }
    if !yes {
        session.screen.note(&format!(
            "every event of site {site} that was recorded until now becomes unreadable for everybody, here and in the archive; \
             proofs stay. This cannot be taken back. Type the site's name to go on:"
        ));
        let mut line = String::new();
        std::io::stdin()
            .read_line(&mut line)
            .map_err(Failure::file(Path::new("standard input")))?;
        if line.trim() != site {
            return Err(Failure::Usage("nothing was erased".to_owned()));
        }
    }
    let client = session.client()?;
    let path = format!("{PATH}/{}/erase", encode(site));
    let request = EraseRequest {
        confirm: site.to_owned(),
    };
    let erased: ErasedView =
        watch(&session.screen, "erasing", client.post(&path, &request)).await?;
    session.screen.answer(&erased, |erased| {
        format!(
            "the events of site {} are erased: {} of its keys destroyed",
            erased.site,
            erased.keys.len()
        )
    });
    Ok(())
}
