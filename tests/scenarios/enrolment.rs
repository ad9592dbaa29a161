//! Enrolment with real TPMs: who gets in, who does not, and what each refusal leaves behind.

use edgeward_tests::Lab;
use edgeward_tests::agent::Node;
use edgeward_tests::cloud::CloudOptions;

#[test]
fn a_token_makes_one_node_and_every_other_attempt_is_refused_and_recorded() -> anyhow::Result<()> {
    let mut lab = Lab::with_policy(&CloudOptions::default())?;
    let token = lab.cloud.token(&[
        "--name",
        "a",
        "--label",
        "site=quickstart",
        "--label",
        "role=gateway",
    ])?;
    let a = lab.node("a")?;
    a.enrol(&token)?;
    let nodes = lab.cloud.json(&["node", "list"])?;
    let text = nodes.to_string();
    assert!(
        text.contains("\"virtual\""),
        "the tier of a software TPM: {text}"
    );

    let thief = lab.node("thief")?;
    refused(&lab, &thief, &token, "token_used")?;
    let wrong = altered(&token);
    assert!(!thief.try_enrol(&wrong)?.status.success());
    assert!(!thief.try_enrol("edgeward1.nonsense")?.status.success());

    let other = lab.cloud.token(&["--name", "b"])?;
    lab.cloud
        .edgeward(&["token", "revoke", token_id(&lab, "b")?.as_str()])?;
    refused(&lab, &thief, &other, "token_revoked")?;

    let taken = lab.cloud.token(&["--name", "a"])?;
    refused(&lab, &thief, &taken, "node_name_taken")?;

    let nodes = lab.cloud.json(&["node", "list"])?.to_string();
    assert!(
        !nodes.contains("thief"),
        "a refusal changed something: {nodes}"
    );
    Ok(())
}

#[test]
fn an_ek_that_leads_to_no_pinned_root_is_refused() -> anyhow::Result<()> {
    let mut lab = Lab::new(&CloudOptions::default())?;
    lab.cloud.start()?;
    let node = lab.node("a")?;
    let token = lab.cloud.token(&["--name", "a"])?;
    refused(&lab, &node, &token, "ek_chain_untrusted")
}

#[test]
fn a_tpm_maker_is_imported_by_an_explicit_word_and_takes_effect_without_a_restart()
-> anyhow::Result<()> {
    let mut lab = Lab::new(&CloudOptions::default())?;
    lab.cloud.start()?;
    let node = lab.node("a")?;
    let token = lab.cloud.token(&["--name", "a"])?;
    refused(&lab, &node, &token, "ek_chain_untrusted")?;
    let root = lab.maker.roots();
    let root = root
        .first()
        .and_then(|path| path.to_str())
        .ok_or_else(|| anyhow::anyhow!("the TPM maker has no root"))?;
    let unknown = lab.cloud.try_edgeward(&["ek-roots", "import", root])?;
    let told = String::from_utf8_lossy(&unknown.stdout);
    assert_eq!(unknown.status.code(), Some(1), "{told}");
    assert!(told.contains("ek_roots_not_pinned"), "{told}");
    refused(&lab, &node, &token, "ek_chain_untrusted")?;
    for root in lab.maker.roots() {
        let root = root.display().to_string();
        lab.cloud
            .edgeward(&["ek-roots", "import", &root, "--trust", "virtual"])?;
    }
    node.enrol(&token)?;
    let shown = lab.cloud.json(&["node", "show", "a"])?;
    assert!(shown.to_string().contains("\"virtual\""), "{shown}");
    lab.cloud.await_event(&["--type", "ekroot.trusted"])?;
    Ok(())
}

#[test]
fn a_tpm_that_nobody_vouches_for_enrols_once_an_operator_approves_it() -> anyhow::Result<()> {
    let mut lab = Lab::new(&CloudOptions::default())?;
    lab.cloud.start()?;
    let node = lab.node("a")?;
    let token = lab.cloud.token(&["--name", "a", "--approval"])?;
    std::thread::scope(|scope| {
        let enrolling = scope.spawn(|| node.enrol(&token));
        edgeward_tests::eventually::eventually(
            "the machine waits",
            std::time::Duration::from_secs(20),
            || {
                let nodes = lab.cloud.json(&["node", "list", "--status", "pending"])?;
                anyhow::ensure!(nodes.to_string().contains("\"a\""), "{nodes}");
                Ok(())
            },
        )?;
        let eks = lab.cloud.json(&["ek-roots", "eks"])?;
        anyhow::ensure!(eks == serde_json::json!([]), "believed unasked: {eks}");
        lab.cloud.edgeward(&["node", "approve", "a"])?;
        enrolling
            .join()
            .map_err(|_| anyhow::anyhow!("the enrolment panicked"))?
    })?;
    let eks = lab.cloud.json(&["ek-roots", "eks"])?.to_string();
    assert!(eks.contains("approved as a"), "{eks}");
    let shown = lab.cloud.json(&["node", "show", "a"])?;
    assert!(shown.to_string().contains("\"listed\""), "{shown}");
    Ok(())
}

/// The attempt fails with this code, and the code is in the audit log.
fn refused(lab: &Lab, node: &Node, token: &str, code: &str) -> anyhow::Result<()> {
    let output = node.try_enrol(token)?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    anyhow::ensure!(!output.status.success(), "{code}: enrolled all the same");
    anyhow::ensure!(told.contains(code), "{code}: the machine was told: {told}");
    edgeward_tests::eventually::eventually(
        "the refusal is recorded",
        std::time::Duration::from_secs(10),
        || {
            let events = lab.cloud.events(&["--verdict", "deny"])?;
            anyhow::ensure!(
                events.iter().any(|event| event.to_string().contains(code)),
                "{code} is not in the audit log"
            );
            Ok(())
        },
    )
}

fn token_id(lab: &Lab, name: &str) -> anyhow::Result<String> {
    let tokens = lab.cloud.json(&["token", "list"])?;
    let list = tokens
        .as_array()
        .or_else(|| tokens.get("tokens").and_then(|list| list.as_array()))
        .ok_or_else(|| anyhow::anyhow!("not a list: {tokens}"))?;
    list.iter()
        .find(|token| token["name"] == name)
        .and_then(|token| token["id"].as_str())
        .map(str::to_owned)
        .ok_or_else(|| anyhow::anyhow!("no token for {name}: {tokens}"))
}

/// The same token with one character of its body changed.
fn altered(token: &str) -> String {
    let mut bytes = token.as_bytes().to_vec();
    let at = bytes.len() / 2;
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    String::from_utf8(bytes).unwrap_or_default()
}
