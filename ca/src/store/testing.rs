//! Databases for tests: a SQLite file, and a PostgreSQL server of this test process's own.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use edgeward_audit::query::{Filter, MAX_LIMIT};
use sqlx::{Connection, Executor};
use tempfile::TempDir;

use super::audit::StoredEvent;
use super::database::Location;
use super::{Backend, Database, Store, StoreError, dialect, make_file};
use crate::keys::sites::SiteKeys;

/// A store of its own that goes away with it.
pub struct TestStore {
    store: Store,
    database: Database,
    site_keys: SiteKeys,
    _folder: Option<TempDir>,
}

/// Declares each case once and runs it on SQLite and on PostgreSQL.
#[macro_export]
macro_rules! store_tests {
    ($(async fn $name:ident($store:ident) $body:block)*) => {
        $(mod $name {
            use super::*;

            async fn case($store: $crate::store::testing::TestStore) $body

            #[tokio::test]
            async fn on_sqlite() {
                case($crate::store::testing::TestStore::sqlite().await).await;
            }

            #[tokio::test]
            async fn on_postgresql() {
                case($crate::store::testing::TestStore::postgresql().await).await;
            }
        })*
    };
}

impl TestStore {
    pub async fn sqlite() -> Self {
        let (database, folder) = new_sqlite();
        Self::of(database, Some(folder)).await
    }

    pub async fn postgresql() -> Self {
        Self::of(new_postgresql().await, None).await
    }

    async fn of(database: Database, folder: Option<TempDir>) -> Self {
        let site_keys = SiteKeys::temporary();
        Self {
            store: opened(&database, &site_keys).await,
            database,
            site_keys,
            _folder: folder,
        }
    }

    /// Opens the same database with keys that it was not written with.
    pub async fn with_other_keys(&self) -> Result<Store, StoreError> {
        Store::open(&self.database, SiteKeys::temporary()).await
    }

    /// Opens the same database once more, as a second cloud would.
    pub async fn another(&self) -> Store {
        opened(&self.database, &self.site_keys).await
    }
}

/// A file that is not there yet, and its folder.
pub fn new_sqlite() -> (Database, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    (Database::file(folder.path().join("store.db")), folder)
}

/// An empty database.
pub async fn new_postgresql() -> Database {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let server = server();
    sqlx::any::install_default_drivers();
    let mut admin = sqlx::AnyConnection::connect(&server.url("postgres"))
        .await
        .expect("the test's postgresql answers");
    admin
        .execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .await
        .expect("a database for the test");
    server.url(&name).parse().expect("a valid url")
}

/// Brings the schema to where events were rows.
pub async fn old_schema(database: &Database) -> sqlx::AnyPool {
    const FIRST_OF_BLOCKS: i64 = 160;
    sqlx::any::install_default_drivers();
    let kind = match database.location() {
        Location::Sqlite(path) => {
            make_file(path).expect("the file can be made");
            Backend::Sqlite
        }
        Location::Postgres(_) => Backend::Postgres,
    };
    let mut migrations = dialect::migrations(kind);
    let old = migrations
        .iter()
        .filter(|one| one.version < FIRST_OF_BLOCKS);
    migrations.migrations = old.cloned().collect::<Vec<_>>().into();
    let pool = sqlx::AnyPool::connect(&database.url())
        .await
        .expect("the database opens");
    migrations.run(&pool).await.expect("the schema is made");
    pool
}

impl std::ops::Deref for TestStore {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl Store {
    /// Every event of the log, oldest first.
    pub(crate) async fn all_events(&self) -> Vec<StoredEvent> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let (events, more) = self
                .events(&Filter::default(), after, MAX_LIMIT)
                .await
                .expect("the log is readable");
            after = events.last().map(|event| event.index);
            all.extend(events);
            if !more {
                return all;
            }
        }
    }

    /// Puts into blocks what a tree of `size` leaves would, without a tree.
    pub(crate) async fn make_blocks(&self, size: u64) {
        let blocks = self.blocks_up_to(size).await.expect("blocks can be made");
        let mut tx = self.begin("test").await.expect("the store is there");
        tx.put_blocks(&blocks).await.expect("blocks can be stored");
        tx.commit().await.expect("the store is there");
    }
}

/// Until a tree is kept over it, what is stored counts as covered.
async fn opened(database: &Database, site_keys: &SiteKeys) -> Store {
    let store = Store::open(database, site_keys.clone())
        .await
        .expect("the database opens");
    store.committed.cover_at_once(true);
    store
}

struct Server {
    folder: PathBuf,
    /// Its standard input is what keeps the server alive: the supervising shell ends it, and removes
    /// its folder, when this process ends however it ends.
    _supervisor: Child,
}

impl Server {
    fn url(&self, name: &str) -> String {
        format!(
            "postgres:///{name}?host={}&user=edgeward",
            self.folder.display()
        )
    }
}

/// `$1` folder, `$2` programs of PostgreSQL. It refuses to run as root, so root becomes `postgres`.
const SUPERVISOR: &str = r#"
set -eu
as=
if [ "$(id -u)" = 0 ]; then
    chown postgres "$1"
    as="setpriv --reuid=postgres --regid=postgres --clear-groups"
fi
cd "$1"
$as "$2/initdb" -D "$1/data" -U edgeward -A trust -E UTF8 --locale=C -N >"$1/log" 2>&1 || { cat "$1/log"; exit 1; }
$as "$2/postgres" -D "$1/data" -k "$1" -c listen_addresses= -c fsync=off -c max_connections=400 >>"$1/log" 2>&1 </dev/null &
server=$!
for i in $(seq 300); do
    if "$2/pg_isready" -q -h "$1" -U edgeward; then echo ready; break; fi
    sleep 0.05
done
read -r _ || true
kill -INT "$server" 2>/dev/null || true
wait "$server" || true
rm -rf "$1"
"#;

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let folder = tempfile::Builder::new()
            .prefix("edgeward-pg-")
            .tempdir()
            .expect("a temporary folder")
            .keep();
        let mut supervisor = Command::new("sh")
            .args(["-c", SUPERVISOR, "sh"])
            .arg(&folder)
            .arg(programs())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell starts");
        let mut said = String::new();
        BufReader::new(supervisor.stdout.take().expect("stdout was piped"))
            .read_line(&mut said)
            .expect("the supervisor speaks");
        assert_eq!(said.trim(), "ready", "postgresql did not start");
        Server {
            folder,
            _supervisor: supervisor,
        }
    })
}

/// The newest `bin` folder of Debian's PostgreSQL packages.
fn programs() -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("postgresql is installed (Debian: apt install postgresql)")
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|path| path.join("postgres").exists())
        .collect();
    versions.sort();
    versions.pop().expect("a version of postgresql")
}
