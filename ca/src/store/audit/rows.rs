//! Many rows in one statement, in few shapes: each is prepared once.

use sqlx::any::AnyArguments;
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe};

use crate::store::StoreError;

/// Rows of one statement, largest first. Far below both databases' limits on parameters.
const SHAPES: [usize; 4] = [128, 32, 8, 1];

type Bound = Query<'static, Any, AnyArguments>;

/// Inserts all rows. `insert` is a fixed text up to `VALUES`, with so many columns.
pub(super) async fn insert_all<T>(
    connection: &mut AnyConnection,
    (insert, columns): (&'static str, usize),
    rows: &[T],
    bind: &(dyn Fn(Bound, &T) -> Bound + Sync),
) -> Result<(), StoreError> {
    let mut rest = rows;
    for shape in SHAPES {
        if rest.len() < shape {
            continue;
        }
        let text = statement(insert, columns, shape);
        while let Some((now, later)) = rest.split_at_checked(shape) {
            let query = sqlx::query(AssertSqlSafe(text.clone()));
            let query = now.iter().fold(query, bind);
            query.execute(&mut *connection).await?;
            rest = later;
        }
    }
    Ok(())
}

/// `$1, $2, …` for so many values.
pub(super) fn places(first: usize, count: usize) -> String {
    let places: Vec<String> = (first..first + count).map(|n| format!("${n}")).collect();
    places.join(", ")
}

fn statement(insert: &'static str, columns: usize, rows: usize) -> String {
    let rows: Vec<String> = (0..rows)
        .map(|row| format!("({})", places(row * columns + 1, columns)))
        .collect();
    format!("{insert} VALUES {}", rows.join(", "))
}
