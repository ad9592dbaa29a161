use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::*;
use crate::config::retention::S3;
use crate::dial::Endpoint;

const NAME: &str = "plant.example/audit/0000000000016384.segment";

/// S3-style storage that takes a request only if botocore, too, comes to its signature.
struct Server {
    _child: Child,
    port: u16,
    folder: PathBuf,
}

fn stand_in() -> (PathBuf, PathBuf) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    (
        root.join("target/tools/audit/bin/python"),
        root.join("tests/clients/s3_storage.py"),
    )
}

impl Server {
    async fn start(folder: &Path, port: u16) -> Self {
        let (python, script) = stand_in();
        let mut child = Command::new(&python)
            .arg(script)
            .args([folder.as_os_str(), port.to_string().as_ref()])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{} (tests/run installs it): {error}", python.display())
            });
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line());
        let port = line.await.unwrap().unwrap().unwrap().parse().unwrap();
        Self {
            _child: child,
            port,
            folder: folder.to_owned(),
        }
    }
}

fn storage(folder: &Path, port: u16, secret: &str) -> Target {
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    Target::new(&Archive::S3(Box::new(S3 {
        bucket: "audit-log".to_owned(),
        prefix: "plant/".to_owned(),
        endpoint: Endpoint {
            host: "127.0.0.1".to_owned(),
            port,
            tls: None,
        },
        region: "eu-central-1".to_owned(),
        key_file: file("key", "EDGEWARDKEY\n"),
        secret_file: file("secret", secret),
        token_file: None,
        timeout: Duration::from_secs(5),
    })))
}

#[tokio::test]
async fn storage_takes_nothing_under_a_wrong_secret_and_what_it_takes_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let stored = folder.path().join("stored");
    std::fs::create_dir(&stored).unwrap();
    let segment = Bytes::from(vec![7; 300_000]);
    // Nobody is there yet.
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = probe.local_addr().unwrap().port();
    drop(probe);
    let target = storage(folder.path(), port, "secret-of-the-plant\n");
    assert!(matches!(
        target.put(NAME, segment.clone()).await,
        Err(NotArchived::Down(_))
    ));
    let server = Server::start(&stored, port).await;
    assert_eq!(server.port, port);
    let stranger = storage(folder.path(), port, "secret-of-another\n");
    assert!(matches!(
        stranger.put(NAME, segment.clone()).await,
        Err(NotArchived::Refused(why)) if why.contains("SignatureDoesNotMatch")
    ));
    assert!(matches!(
        stranger.length_of(NAME).await,
        Err(NotArchived::Refused(_))
    ));
    assert!(!server.folder.join("audit-log/plant").join(NAME).exists());
    let target = storage(folder.path(), port, "secret-of-the-plant\n");
    target.put(NAME, segment.clone()).await.unwrap();
    let kept = server.folder.join("audit-log/plant").join(NAME);
    assert_eq!(std::fs::read(&kept).unwrap(), segment);
    // Again, as after a crash before it was written down.
    target.put(NAME, segment.clone()).await.unwrap();
    assert_eq!(target.length_of(NAME).await.unwrap(), Some(300_000));
    assert_eq!(
        target.length_of("plant.example/audit/x").await.unwrap(),
        None
    );
    // It forgets a byte and says nothing.
    let lossy = NAME.replace("16384", "99999");
    assert!(matches!(
        target.put(&lossy, segment).await,
        Err(NotArchived::Changed(_))
    ));
    for bad in ["", "two words"] {
        let target = storage(folder.path(), port, bad);
        assert!(matches!(
            target.put(NAME, Bytes::from_static(b"x")).await,
            Err(NotArchived::Refused(_))
        ));
    }
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_not_made_and_what_is_written_is_its_owners() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Target::new(&Archive::Folder(folder.path().join("not-mounted")));
    let segment = Bytes::from_static(b"a segment");
    assert!(matches!(
        missing.put(NAME, segment.clone()).await,
        Err(NotArchived::Refused(_))
    ));
    let target = Target::new(&Archive::Folder(folder.path().to_owned()));
    let path = folder.path().join(NAME);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path.with_extension("new"), "torn").unwrap();
    target.put(NAME, segment.clone()).await.unwrap();
    target.put(NAME, segment.clone()).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), segment);
    assert!(!path.with_extension("new").exists());
    assert_eq!(target.length_of(NAME).await.unwrap(), Some(9));
    assert_eq!(target.length_of("another").await.unwrap(), None);
    assert!(matches!(
        missing.length_of(NAME).await,
        Err(NotArchived::Refused(_))
    ));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
