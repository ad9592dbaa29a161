//! A real receiver: Debian's rsyslog, over TLS with certificates on both sides, killed in between.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use super::*;
use crate::dial::{Roots, Trust};

struct Rsyslog {
    folder: PathBuf,
    driver: &'static str,
    port: u16,
    process: Child,
}

impl Rsyslog {
    async fn start(folder: &Path, driver: &'static str, port: u16) -> Self {
        let at = folder.display();
        let port_file = folder.join("port");
        let _ = std::fs::remove_file(&port_file);
        let conf = format!(
            r#"
global(workDirectory="{at}" maxMessageSize="64k" defaultNetstreamDriverCAFile="{at}/ca.pem"
  defaultNetstreamDriverCertFile="{at}/server.pem" defaultNetstreamDriverKeyFile="{at}/server.key")
module(load="imtcp" streamDriver.name="{driver}" streamDriver.mode="1" streamDriver.authMode="x509/certvalid")
input(type="imtcp" port="{port}" address="127.0.0.1" listenPortFileName="{at}/port")
template(name="line" type="list") {{
  property(name="hostname") constant(value=" ") property(name="app-name") constant(value=" ")
  property(name="msgid") constant(value=" ") property(name="pri") constant(value=" ")
  property(name="structured-data") constant(value=" ") property(name="msg") constant(value="\n")
}}
action(type="omfile" file="{at}/out" template="line" asyncWriting="off" flushOnTXEnd="on")
"#
        );
        std::fs::write(folder.join("conf"), conf).unwrap();
        let _ = std::fs::remove_file(folder.join("pid"));
        let process = Command::new("/usr/sbin/rsyslogd")
            .arg("-n")
            .arg("-f")
            .arg(folder.join("conf"))
            .arg("-i")
            .arg(folder.join("pid"))
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(folder.join("said")).unwrap())
            .stderr(std::fs::File::create(folder.join("errors")).unwrap())
            .spawn()
            .expect(
                "rsyslog is installed (Debian: apt install rsyslog rsyslog-gnutls rsyslog-openssl)",
            );
        let end = tokio::time::Instant::now() + PATIENCE;
        let port = loop {
            // It writes the file only where it chose the port itself.
            let text = std::fs::read_to_string(&port_file).unwrap_or_default();
            let port = text.trim().parse().unwrap_or(port);
            if port != 0 && std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break port;
            }
            let errors = std::fs::read_to_string(folder.join("errors")).unwrap();
            assert!(tokio::time::Instant::now() < end, "no rsyslog: {errors}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        Self {
            folder: folder.to_owned(),
            driver,
            port,
            process,
        }
    }

    async fn again(mut self) -> Self {
        self.kill();
        let (folder, driver, port) = (self.folder.clone(), self.driver, self.port);
        drop(self);
        Self::start(&folder, driver, port).await
    }

    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    fn lines(&self) -> Vec<String> {
        std::fs::read_to_string(self.folder.join("out"))
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// Indices of what was written, as it came.
    fn indices(&self) -> Vec<u64> {
        self.lines()
            .iter()
            .filter_map(|line| {
                line.split_once("[edgeward@32473 index=\"")?
                    .1
                    .split_once('"')?
                    .0
                    .parse()
                    .ok()
            })
            .collect()
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An authority, a server's certificate for 127.0.0.1, a client's, and a stranger's authority.
fn certificates(folder: &Path) {
    let authority = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        Issuer::new(params, key)
    };
    let ca = authority("ca");
    authority("stranger");
    for (name, usage) in [
        ("server", ExtendedKeyUsagePurpose::ServerAuth),
        ("client", ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &ca).unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

fn export(folder: &Path, port: u16, format: Format, ca: &str) -> Export {
    Export {
        name: "siem".to_owned(),
        format,
        to: Target::Stream(Endpoint {
            host: "127.0.0.1".to_owned(),
            port,
            tls: Some(Trust {
                roots: Roots::File(folder.join(ca)),
                client: Some((folder.join("client.pem"), folder.join("client.key"))),
            }),
        }),
        kinds: None,
        from: Begin::Start,
        facility: 13,
        batch: 7,
        timeout: Duration::from_secs(1),
    }
}

async fn killed_in_between(driver: &'static str) {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let store = TestStore::sqlite().await;
    let bench = Bench::new(&store, 1).await;
    let mut rsyslog = Rsyslog::start(folder.path(), driver, 0).await;
    let exports = bench.start(&export(
        folder.path(),
        rsyslog.port,
        Format::Rfc5424,
        "ca.pem",
    ));
    let mut sent = 1;
    for round in 0..3 {
        bench.record(40).await;
        sent += 40;
        if round < 2 {
            rsyslog = rsyslog.again().await;
        }
    }
    bench.until_all_arrived().await;
    exports.finish().await;
    let arrived = rsyslog.indices();
    let unique: BTreeSet<u64> = arrived.iter().copied().collect();
    assert_eq!(unique, (0..sent).collect(), "lost: {arrived:?}");
    let lines = rsyslog.lines();
    let whole = lines
        .iter()
        .find(|line| line.contains("index=\"40\""))
        .unwrap();
    assert!(
        whole.starts_with("c.plant.example edgeward token.created 110 ["),
        "{whole}"
    );
    assert!(whole.contains("[detail@32473 number=\"39\"]"), "{whole}");
    assert!(
        whole.ends_with("token.created: a bootstrap token was created; by cloud"),
        "{whole}"
    );
}

#[tokio::test]
async fn rsyslog_with_gnutls_misses_nothing_though_it_is_killed() {
    killed_in_between("gtls").await;
}

#[tokio::test]
async fn rsyslog_with_openssl_misses_nothing_though_it_is_killed() {
    killed_in_between("ossl").await;
}

#[tokio::test]
async fn a_receiver_of_a_strange_authority_gets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let store = TestStore::sqlite().await;
    let bench = Bench::new(&store, 1).await;
    let rsyslog = Rsyslog::start(folder.path(), "gtls", 0).await;
    let exports = bench.start(&export(
        folder.path(),
        rsyslog.port,
        Format::Cef,
        "stranger.pem",
    ));
    let row = bench.until("fails", |row| row.failing.is_some()).await;
    let why = row.failing.unwrap().0;
    assert!(why.contains("no tls"), "{why}");
    assert!(why.contains("UnknownIssuer"), "{why}");
    assert!(rsyslog.lines().is_empty());
    exports.finish().await;
}

#[tokio::test]
async fn every_format_goes_through_syslog_whole() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let store = TestStore::sqlite().await;
    let bench = Bench::new(&store, 1).await;
    bench.record(3).await;
    let rsyslog = Rsyslog::start(folder.path(), "ossl", 0).await;
    for (format, mark) in [
        (Format::Cef, "CEF:0|Edgeward|"),
        (Format::Ocsf, "\"activity_id\":"),
        (Format::Json, "{\"schema\":\"edgeward.audit/1\""),
    ] {
        let mut export = export(folder.path(), rsyslog.port, format, "ca.pem");
        export.name = format.as_str().to_owned();
        let exports = bench.start(&export);
        let end = tokio::time::Instant::now() + PATIENCE;
        while rsyslog
            .lines()
            .iter()
            .filter(|line| line.contains(mark))
            .count()
            < 4
        {
            assert!(
                tokio::time::Instant::now() < end,
                "{mark}: {:#?}",
                rsyslog.lines()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        exports.finish().await;
    }
}
