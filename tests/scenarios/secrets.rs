//! That no secret is in any log is looked for at the end of every lab. Here: that it would be seen.

use anyhow::Context;
use edgeward_tests::Lab;
use edgeward_tests::cloud::CloudOptions;
use edgeward_tests::postgres::Postgres;
use edgeward_tests::secrets;

#[test]
fn a_secret_that_got_into_a_log_or_an_event_fails_the_scenario_and_is_not_shown()
-> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    let mut a = lab.member("a", "gateway")?;
    let key = lab.cloud.folder().join("auditor.key");
    let made = lab
        .cloud
        .edgeward(&["apikey", "create", "auditor", "--role", "auditor"])?;
    std::fs::write(&key, made.trim())?;
    // Of the token, of the API key, of the cloud and the first admin, of the boot that runs.
    a.stop()?;
    let clean = lab.leaks()?;
    anyhow::ensure!(clean.is_empty(), "{clean:?}");
    let known = secrets::names(lab.folder());
    for part in [
        "bootstrap token",
        "api key",
        "issuing.key",
        "checkpoint.key",
        "admin.key",
    ] {
        let found = known.iter().any(|name| name.contains(part));
        anyhow::ensure!(found, "{part} is not among {known:?}");
    }

    // From now on it leaks: in an event's detail, which the database holds sealed, and in a log.
    lab.may_leak();
    let words = std::fs::read_to_string(&key)?;
    let secret = words.trim().splitn(3, '_').nth(2).context("a secret")?;
    let label = format!("x={}", &secret[..40]);
    lab.cloud
        .edgeward(&["token", "create", "--label", &label])?;
    lab.cloud.await_event(&["--type", "token.created"])?;
    let log = a.folder().join("log");
    let token = std::fs::read_to_string(a.folder().join("token"))?;
    let before = std::fs::read_to_string(&log)?;
    std::fs::write(&log, format!("{before}enrolled by {token}\n"))?;
    let leaks = edgeward_tests::eventually::eventually(
        "both are seen",
        std::time::Duration::from_secs(20),
        || {
            let leaks = lab.leaks()?;
            let places = [
                "audit export holds an api key",
                "a/log holds a bootstrap token",
            ];
            for place in places {
                let seen = leaks.iter().any(|leak| leak.to_string().ends_with(place));
                anyhow::ensure!(seen, "{place}: {leaks:?}");
            }
            Ok(leaks)
        },
    )?;
    let said = format!("{leaks:?}");
    anyhow::ensure!(!said.contains(&secret[..20]) && !said.contains(&token[20..40]));
    Ok(())
}

#[test]
fn a_secret_that_got_into_a_postgresql_database_is_found_in_a_text_and_in_bytes()
-> anyhow::Result<()> {
    edgeward_tests::require_root()?;
    let folder = tempfile::Builder::new().prefix("edgeward-pg-").tempdir()?;
    let postgres = Postgres::start(&folder.path().join("pg"))?;
    let mut lab = Lab::new(&CloudOptions {
        database: Some(postgres.url()),
        ..CloudOptions::default()
    })?;
    lab.cloud.start()?;
    let made = lab
        .cloud
        .edgeward(&["apikey", "create", "auditor", "--role", "auditor"])?;
    let clean = lab.leaks()?;
    anyhow::ensure!(clean.is_empty(), "{clean:?}");
    let word = made.trim();
    for value in [
        format!("'{word}', NULL"),
        format!("NULL, convert_to('{{\"key\": \"{word}\"}}', 'UTF8')"),
    ] {
        postgres.perform("CREATE TABLE planted (a text, b bytea)")?;
        postgres.perform(&format!("INSERT INTO planted VALUES ({value})"))?;
        let leaks: Vec<String> = lab.leaks()?.iter().map(ToString::to_string).collect();
        anyhow::ensure!(leaks == ["pg_dump holds an api key"], "{leaks:?}");
        postgres.perform("DROP TABLE planted")?;
    }
    Ok(())
}
