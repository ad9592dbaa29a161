//! A newcomer's mistakes: each is told clearly, with the exit code that scripts rely on.

use std::process::Command;

use edgeward_tests::process::output;
use edgeward_tests::{bin_dir, cloud::clean_environment};

fn told(program: &str, arguments: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
    let mut command = Command::new(bin_dir()?.join(program));
    clean_environment(&mut command);
    let output = output(command.args(arguments))?;
    let text = [output.stdout, output.stderr].concat();
    Ok((
        output.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    ))
}

#[test]
fn help_is_worth_reading_and_succeeds() -> anyhow::Result<()> {
    for program in ["edgeward", "edgeward-agent"] {
        let (code, text) = told(program, &["--help"])?;
        assert_eq!(code, Some(0), "{program}: {text}");
        assert!(text.contains("Exit codes"), "{program}: {text}");
    }
    Ok(())
}

#[test]
fn a_wrong_flag_is_usage() -> anyhow::Result<()> {
    for program in ["edgeward", "edgeward-agent"] {
        let (code, text) = told(program, &["--frobnicate"])?;
        assert_eq!(code, Some(2), "{program}: {text}");
    }
    Ok(())
}

#[test]
fn an_unknown_key_in_the_configuration_is_named_with_its_line() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("config.toml");
    std::fs::write(
        &file,
        "trust_domain = \"plant.example\"\nlisten_on = \"0.0.0.0:1\"\n",
    )?;
    let path = file.display().to_string();
    let (code, text) = told("edgeward", &["serve", "--check", "--config", &path])?;
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains(&format!("{path}:2:1")), "{text}");
    std::fs::write(&file, "\nstate_dirs = \"/tmp\"\n")?;
    let (code, text) = told("edgeward-agent", &["run", "--check", "--config", &path])?;
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains(&format!("{path}:2:1")), "{text}");
    Ok(())
}

#[test]
fn a_policy_with_a_typo_names_file_line_and_what_would_have_been_accepted() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("line.toml");
    std::fs::write(
        &file,
        "schema = \"edgeward-policy/1\"\nowner = \"ot\"\nscope = \"any\"\n[group.gateways]\nmatch = { role = [\"gateway\"] }\nprofil = \"x\"\n",
    )?;
    let path = folder.path().display().to_string();
    let (code, text) = told("edgeward", &["policy", "check", &path])?;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("line.toml:6:1"), "{text}");
    assert!(text.contains("profile"), "{text}");
    Ok(())
}

#[test]
fn nothing_answers_and_that_is_said() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().display().to_string();
    let (code, text) = told("edgeward", &["--context", &path, "node", "list"])?;
    assert_eq!(code, Some(1), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    Ok(())
}
