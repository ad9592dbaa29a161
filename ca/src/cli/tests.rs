use clap::{CommandFactory, Parser};

use super::*;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn wrong_usage_has_its_exit_code() {
    for line in [
        "edgeward nodes",
        "edgeward token create --label role",
        "edgeward token create --approval --no-approval",
        "edgeward operator add li",
        "edgeward operator add li --role god",
        "edgeward node quarantine",
        "edgeward policy apply",
        "edgeward publisher add acme",
        "edgeward publisher rotate acme --key x",
        "edgeward publisher submit",
        "edgeward publisher key",
        "edgeward app sign x --repo r --signer k",
        "edgeward app sign --repo r --signer k",
        "edgeward app sign --add acme/x --signer k",
        "edgeward app sign --add acme/x@1 --renew acme --signer k",
        "edgeward app revoke acme/x@1",
        "edgeward app back acme/x --reason r",
        "edgeward app observed gw-3 --policy",
        "edgeward -o yaml status",
    ] {
        let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
        assert_eq!(error.exit_code(), i32::from(exit::USAGE), "{line}");
    }
}

#[test]
fn every_command_says_what_it_does() {
    fn walk(command: &clap::Command, path: &str) {
        for sub in command.get_subcommands() {
            let path = format!("{path} {}", sub.get_name());
            assert!(sub.get_about().is_some(), "{path}");
            for argument in sub
                .get_arguments()
                .filter(|argument| !argument.is_positional())
            {
                assert!(
                    argument.get_help().is_some(),
                    "{path} --{}",
                    argument.get_id()
                );
            }
            walk(sub, &path);
        }
    }
    walk(&Cli::command(), "edgeward");
}

#[test]
fn options_of_all_commands_may_stand_after_them() {
    let cli =
        Cli::try_parse_from(["edgeward", "audit", "query", "--from", "-1h", "-o", "json"]).unwrap();
    assert_eq!(cli.global.output, Format::Json);
    let cli = Cli::try_parse_from([
        "edgeward",
        "node",
        "list",
        "--cloud",
        "h:1",
        "--context",
        "./x",
    ])
    .unwrap();
    assert_eq!(cli.global.context.as_deref(), Some("./x"));
}

#[test]
fn the_twins_of_the_command_line_are_not_taken_for_keys_of_the_configuration() {
    fn walk(command: &clap::Command, found: &mut Vec<String>) {
        let twins = command.get_arguments().filter_map(clap::Arg::get_env);
        found.extend(twins.filter_map(|name| name.to_str()).map(str::to_owned));
        command.get_subcommands().for_each(|sub| walk(sub, found));
    }
    let mut twins = Vec::new();
    walk(&Cli::command(), &mut twins);
    assert!(twins.contains(&"EDGEWARD_COLOR".to_owned()));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edgeward.toml");
    std::fs::write(
        &path,
        "trust_domain = \"plant.example\"\nlisten = \"127.0.0.1:7443\"\n",
    )
    .unwrap();
    for twin in twins {
        let environment = std::iter::once((twin.clone(), "x".to_owned()));
        let loaded = crate::config::Config::load_with(&path, environment);
        assert!(loaded.is_ok(), "{twin}: {}", loaded.unwrap_err());
    }
}
