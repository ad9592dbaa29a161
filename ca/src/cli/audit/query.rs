//! Finding events, page by page.

use edgeward_runtime::screen::Table;

use super::super::client::{Client, encode};
use super::super::progress::watch;
use super::super::{Failure, Session};
use super::show::{HEADINGS, row};
use crate::api::views::EventPage;

/// Events asked for in one page.
const PAGE: u64 = 500;

pub(super) async fn query(
    session: &Session,
    client: &Client,
    base: &str,
    limit: u64,
    mut cursor: Option<String>,
) -> Result<(), Failure> {
    let mut left = limit;
    let mut table = Table::new(&HEADINGS);
    let more = loop {
        let mut path = format!("{base}&limit={}", left.clamp(1, PAGE));
        if let Some(cursor) = &cursor {
            path.push_str(&format!("&cursor={}", encode(cursor)));
        }
        let page: EventPage = watch(&session.screen, "reading the log", client.get(&path)).await?;
        left = left.saturating_sub(u64::try_from(page.items.len()).unwrap_or(u64::MAX));
        for event in &page.items {
            match session.wants_json() {
                true => session.screen.json_line(event),
                false => table.row(row(event)),
            }
        }
        cursor = page.cursor.or(cursor);
        // A page may be empty although there is more: the cloud looks at so much at a time.
        if !page.more || left == 0 || cursor.is_none() {
            break page.more;
        }
    };
    if !session.wants_json() {
        session.screen.table(&table);
    }
    if more && let Some(cursor) = cursor {
        session
            .screen
            .note(&format!("there are more: go on with --cursor {cursor}"));
    }
    Ok(())
}
