//! The commands as a shell sees them: a real cloud on loopback, exit codes, standard output and standard error.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, as tests do"
)]

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const EDGEWARD: &str = env!("CARGO_BIN_EXE_edgeward");

/// A cloud with a folder of its own; ends with it.
struct Cloud {
    folder: tempfile::TempDir,
    process: Child,
}

impl Cloud {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (port, metrics) = (free_port(), free_port());
        let config = format!(
            "trust_domain = \"plant.example\"\nlisten = \"127.0.0.1:{port}\"\ndata_dir = {:?}\nmetrics_listen = \"127.0.0.1:{metrics}\"\n",
            folder.path().join("data"),
        );
        std::fs::write(folder.path().join("edgeward.toml"), config).unwrap();
        let process = bare(folder.path())
            .args(["serve", "--config"])
            .arg(folder.path().join("edgeward.toml"))
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let cloud = Self { folder, process };
        let deadline = Instant::now() + Duration::from_secs(30);
        while cloud.run(&["status"]).status.code() != Some(0) {
            assert!(Instant::now() < deadline, "{}", cloud.log());
            std::thread::park_timeout(Duration::from_millis(50));
        }
        cloud
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// As the first operator.
    fn run(&self, arguments: &[&str]) -> Output {
        self.run_as(&self.path("data/admin"), arguments)
    }

    fn run_as(&self, context: &Path, arguments: &[&str]) -> Output {
        bare(self.folder.path())
            .env("EDGEWARD_CONTEXT", context)
            .args(arguments)
            .output()
            .unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["-o", "json"]].concat());
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}",
            err(&output)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The command without anything from the environment of whoever runs the tests.
fn bare(home: &Path) -> Command {
    let mut command = Command::new(EDGEWARD);
    command
        .env_clear()
        .env("HOME", home)
        .current_dir(home)
        .stdin(Stdio::null());
    command
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn exit_codes_tell_usage_configuration_and_failure_apart() {
    let folder = tempfile::tempdir().unwrap();
    let code = |arguments: &[&str]| {
        let output = bare(folder.path()).args(arguments).output().unwrap();
        assert!(
            output.stdout.is_empty() || output.status.success(),
            "{arguments:?}"
        );
        output.status.code().unwrap()
    };
    assert_eq!(code(&["frobnicate"]), 2);
    assert_eq!(code(&["audit", "query", "--limit", "many"]), 2);
    std::fs::write(folder.path().join("bad.toml"), "listne = 1\n").unwrap();
    assert_eq!(code(&["serve", "--config", "bad.toml"]), 64);
    assert_eq!(code(&["serve", "--config", "bad.toml", "--check"]), 64);
    assert_eq!(code(&["serve", "--config", "none.toml"]), 64);
    assert_eq!(code(&["--context", "./nowhere", "status"]), 1);
    assert_eq!(code(&["--context", "unknown", "status"]), 64);
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    assert_eq!(code(&["policy", "check", "empty"]), 1);
    assert_eq!(code(&["--help"]), 0);
    assert_eq!(code(&["completions", "bash"]), 0);
}

#[test]
fn a_private_key_that_others_may_read_is_not_used() {
    let cloud = Cloud::start();
    let key = cloud.path("data/admin/admin.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = cloud.run(&["status"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(err(&output).contains("chmod 600"), "{}", err(&output));
}

#[test]
fn an_operator_may_do_what_the_role_says_until_revoked() {
    let cloud = Cloud::start();
    let li = cloud.path("li");
    let added = cloud.run(&[
        "operator",
        "add",
        "li",
        "--role",
        "auditor",
        "--out",
        li.to_str().unwrap(),
    ]);
    assert_eq!(added.status.code(), Some(0), "{}", err(&added));
    assert_eq!(
        std::fs::metadata(li.join("operator.key"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    assert_eq!(cloud.run_as(&li, &["node", "list"]).status.code(), Some(0));
    let refused = cloud.run_as(&li, &["token", "create"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).contains("(forbidden)"), "{}", err(&refused));
    assert!(out(&refused).is_empty());
    // Taken over as a named context.
    let taken = bare(cloud.folder.path())
        .args(["context", "add", li.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(taken.status.code(), Some(0), "{}", err(&taken));
    let listed = bare(cloud.folder.path())
        .args(["operator", "list"])
        .output()
        .unwrap();
    assert!(out(&listed).contains("auditor"), "{}", err(&listed));
    assert_eq!(
        cloud.run(&["operator", "revoke", "li"]).status.code(),
        Some(0)
    );
    let refused = cloud.run_as(&li, &["node", "list"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).contains("refuse"), "{}", err(&refused));
    let last = cloud.run(&["operator", "revoke", "admin"]);
    assert!(err(&last).contains("(last_admin)"), "{}", err(&last));
}

#[test]
fn an_api_key_reads_the_story_of_its_own_making() {
    let cloud = Cloud::start();
    let created = cloud.run(&["apikey", "create", "grafana", "--role", "auditor"]);
    let file = cloud.path("key");
    std::fs::write(&file, &created.stdout).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let file = file.to_str().unwrap();
    let query = [
        "--api-key-file",
        file,
        "audit",
        "query",
        "--type",
        "apikey.created",
        "-o",
        "json",
    ];
    let output = cloud.run(&query);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let event: Value = serde_json::from_str(out(&output).lines().next().unwrap()).unwrap();
    assert_eq!(event["actor"], "spiffe://plant.example/operator/admin");
    assert_eq!(event["subject"], "apikey:grafana");
    let read = cloud.run(&["audit", "query", "--actor", "apikey:grafana", "-o", "json"]);
    assert!(out(&read).contains("audit.read"));
    assert_eq!(
        cloud.run(&["apikey", "revoke", "grafana"]).status.code(),
        Some(0)
    );
    assert_eq!(cloud.run(&query).status.code(), Some(1));
}

#[test]
fn a_policy_is_checked_applied_and_shown_back() {
    let cloud = Cloud::start();
    let folder = cloud.path("policies");
    std::fs::create_dir(&folder).unwrap();
    let dir = folder.to_str().unwrap();
    let good = "schema = \"edgeward-policy/1\"\nowner = \"ot\"\nscope = \"any\"\n\
        [profile.p]\ntier = [\"virtual\"]\npcr_bank = \"sha256\"\n\
        pcr = { 0 = [\"sha256:0000000000000000000000000000000000000000000000000000000000000000\"] }\n\
        [group.a]\nmatch = { role = [\"a\"] }\nprofile = \"p\"\n\
        [service.web]\non = \"a\"\n[service.web.interface.http]\nnet = \"mesh\"\nl4 = \"tcp/80\"\n\
        [[rule]]\nid = \"r\"\neffect = \"allow\"\nfrom = [\"group:a\"]\nto = [\"web/http\"]\ndo = [\"connect\"]\n";
    std::fs::write(folder.join("a.toml"), good.replace("web/http", "web/https")).unwrap();
    for command in ["check", "apply"] {
        let refused = cloud.run(&["policy", command, dir]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(out(&refused).contains("a.toml:"), "{}", out(&refused));
    }
    std::fs::write(folder.join("a.toml"), good).unwrap();
    for number in 1..=2 {
        let applied = cloud.run(&["policy", "apply", dir]);
        assert_eq!(applied.status.code(), Some(0), "{}", err(&applied));
        assert_eq!(cloud.json(&["policy", "history"])[0]["number"], number);
    }
    assert!(out(&cloud.run(&["policy", "show", "1"])).contains("owner = \"ot\""));
    assert_eq!(cloud.json(&["status"])["policy"], 2);
}

#[test]
fn tables_and_json_say_the_same_and_neither_is_coloured_in_a_pipe() {
    let cloud = Cloud::start();
    let token = cloud.run(&[
        "token",
        "create",
        "--name",
        "gw-3",
        "--label",
        "role=gateway",
        "--ttl",
        "1h",
    ]);
    assert!(out(&token).starts_with("edgeward1."), "{}", err(&token));
    assert!(err(&token).contains("not shown again"));
    let list = cloud.json(&["token", "list"]);
    let id = list[0]["id"].as_str().unwrap();
    let table = out(&cloud.run(&["token", "list"]));
    assert!(table.lines().nth(1).unwrap().starts_with(id), "{table}");
    assert!(!table.contains('\u{1b}'));
    let coloured = out(&cloud.run(&["token", "list", "--color", "always"]));
    assert!(coloured.contains("\u{1b}[32musable"));
    let missing = cloud.run(&["token", "revoke", "nothing"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(err(&missing).contains("(not_found)"));
}

#[test]
fn a_sign_of_life_is_shown_on_a_terminal_that_can_take_it_back_and_nowhere_else() {
    let cloud = Cloud::start();
    let signal = |name: &str| {
        let process = cloud.process.id().to_string();
        let sent = Command::new("kill").args([name, &process]).status();
        assert!(sent.unwrap().success());
    };
    let context = cloud.path("data/admin");
    // A terminal of its own, whose text comes out of standard output.
    let on_terminal = |kind: Option<&str>| {
        let mut script = Command::new("script");
        script
            .env_clear()
            .envs(kind.map(|kind| ("TERM", kind)))
            .args([
                "-qec",
                &format!("{EDGEWARD} --color never node list"),
                "/dev/null",
            ]);
        script
    };
    let mut in_pipe = bare(cloud.folder.path());
    in_pipe.env("TERM", "xterm").args(["node", "list"]);
    // The cloud is slow for once.
    signal("-STOP");
    let asked = [
        in_pipe,
        on_terminal(Some("xterm")),
        on_terminal(Some("dumb")),
        on_terminal(None),
    ]
    .map(|mut command| {
        command
            .env("EDGEWARD_CONTEXT", &context)
            .env("HOME", cloud.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    });
    std::thread::park_timeout(Duration::from_millis(2500));
    signal("-CONT");
    let [pipe, terminal, dumb, unnamed] = asked.map(|child| child.wait_with_output().unwrap());
    assert_eq!(err(&pipe), "");
    assert!(
        out(&terminal).contains("\r- listing nodes"),
        "{}",
        out(&terminal)
    );
    for plain in [&pipe, &dumb, &unnamed] {
        let text = out(plain);
        assert!(plain.status.success() && text.starts_with("NAME"), "{text}");
        assert!(!text.contains("listing"), "{text}");
    }
}

#[test]
fn an_unreachable_cloud_is_a_failure_that_names_the_address() {
    let cloud = Cloud::start();
    let output = cloud.run(&["--cloud", "127.0.0.1:1", "status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("127.0.0.1:1"), "{}", err(&output));
}

#[test]
fn nothing_recorded_is_lost_when_the_cloud_is_killed() {
    let mut cloud = Cloud::start();
    for round in 0..3 {
        for number in 0..5 {
            let name = format!("k{round}-{number}");
            assert_eq!(
                cloud
                    .run(&["apikey", "create", &name, "--role", "auditor"])
                    .status
                    .code(),
                Some(0)
            );
        }
        // SIGKILL.
        cloud.process.kill().unwrap();
        cloud.process.wait().unwrap();
        cloud.process = bare(cloud.folder.path())
            .args(["serve", "--config", "edgeward.toml"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while cloud.run(&["status"]).status.code() != Some(0) {
            assert!(Instant::now() < deadline);
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
    let found = out(&cloud.run(&["audit", "query", "--type", "apikey.created", "-o", "json"]));
    assert_eq!(found.lines().count(), 15);
    assert_eq!(cloud.json(&["audit", "coverage"])["complete"], true);
}

#[test]
fn profiles_are_made_of_evidence_and_of_nothing_else() {
    let cloud = Cloud::start();
    let unknown = cloud.run(&["profile", "record", "gw-3"]);
    assert_eq!(unknown.status.code(), Some(1), "{}", err(&unknown));
    assert!(err(&unknown).contains("not_found"), "{}", err(&unknown));
    let unknown = cloud.run(&["profile", "diff", "gw-3"]);
    assert!(err(&unknown).contains("not_found"), "{}", err(&unknown));

    let policy = cloud.path("policy");
    std::fs::create_dir_all(&policy).unwrap();
    let text = "schema = \"edgeward-policy/1\"\nowner = \"ot\"\nscope = \"any\"\n[profile.p]\ntier = [\"virtual\"]\nima = { allow = \"p.allow\" }\n[group.g]\nmatch = { role = [\"g\"] }\nprofile = \"p\"\n";
    std::fs::write(policy.join("p.toml"), text).unwrap();
    let missing = cloud.run(&["policy", "check", "policy"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        out(&missing).contains("p.toml:6:17: error[unknown-name]"),
        "{}",
        out(&missing)
    );
    let line = format!("sha256:{} /usr/bin/one\n", "ab".repeat(32));
    std::fs::write(policy.join("p.allow"), &line).unwrap();
    let nobody = cloud.run(&["profile", "propose", "policy", "--group", "g"]);
    assert_eq!(nobody.status.code(), Some(2), "{}", err(&nobody));
    assert!(err(&nobody).contains("no node"), "{}", err(&nobody));
    let whose = cloud.run(&["profile", "propose", "policy"]);
    assert_eq!(whose.status.code(), Some(2), "{}", err(&whose));

    // The list goes with the policy, signed with it, and comes back byte for byte.
    let applied = cloud.run(&["policy", "apply", "policy"]);
    assert_eq!(applied.status.code(), Some(0), "{}", err(&applied));
    let stored = cloud.json(&["policy", "show"]);
    assert_eq!(stored["summary"]["lists"], 1, "{stored:#}");
    let files = stored["files"].as_array().unwrap();
    let list = files.iter().find(|file| file["path"] == "p.allow").unwrap();
    assert_eq!(list["text"], line);
}

/// Root, image role and publisher acme, each of one key, in the cloud's folder.
fn ceremony(cloud: &Cloud) {
    let run = |arguments: &[&str]| {
        let done = cloud.run(arguments);
        assert_eq!(done.status.code(), Some(0), "{arguments:?}: {}", err(&done));
        out(&done).trim().to_owned()
    };
    let ops = run(&["publisher", "key", "--new", "ops.key"]);
    let acme = run(&["publisher", "key", "--new", "acme.key"]);
    let online = run(&["publisher", "online-key"]);
    let one = ["--threshold", "1", "--repo", "repo"];
    let init = [
        "publisher",
        "root",
        "init",
        "--key",
        &ops,
        "--online",
        &online,
    ];
    run(&[&init[..], &one[..]].concat());
    run(&[&["publisher", "add", "acme", "--key", &acme][..], &one[..]].concat());
    for file in ["1.root.json", "1.targets.json"] {
        let path = format!("repo/image/metadata/{file}");
        run(&["publisher", "sign", &path, "--signer", "ops.key"]);
    }
}

/// A folder with an app of some content, and what says so.
fn app(cloud: &Cloud, version: &str, changed: u8) {
    let folder = cloud.path("app");
    std::fs::create_dir_all(&folder).unwrap();
    let mut content: Vec<u8> = (0..500_000u32)
        .flat_map(|at| at.wrapping_mul(at).to_be_bytes())
        .collect();
    *content.get_mut(1_000_000).unwrap() ^= changed;
    std::fs::write(folder.join("tool"), content).unwrap();
    std::fs::set_permissions(folder.join("tool"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let text = format!("app = \"acme/tool\"\nversion = \"{version}\"\n[entry]\npath = \"tool\"\n");
    std::fs::write(cloud.path("app.toml"), text).unwrap();
}

const SIGN: [&str; 9] = [
    "app",
    "sign",
    "app",
    "--manifest",
    "app.toml",
    "--repo",
    "repo",
    "--signer",
    "acme.key",
];

#[test]
fn what_nobody_signed_for_does_not_come_to_the_cloud() {
    let cloud = Cloud::start();
    let refused = |arguments: &[&str], code: i32| {
        let done = cloud.run(arguments);
        assert_eq!(
            done.status.code(),
            Some(code),
            "{arguments:?}: {}",
            out(&done)
        );
        err(&done)
    };
    ceremony(&cloud);
    app(&cloud, "1.0", 0);
    assert_eq!(cloud.run(&SIGN).status.code(), Some(0));
    let publish = ["app", "publish", "--repo", "repo"];
    refused(&publish, 1);
    let metadata = |name: &str| format!("repo/image/metadata/{name}");
    let (root, targets) = (metadata("1.root.json"), metadata("1.targets.json"));
    // The image role before the root that says who signs it.
    refused(&["publisher", "submit", &targets], 1);
    refused(&["publisher", "submit", &metadata("1.acme.json")], 2);
    assert_eq!(
        cloud
            .run(&["publisher", "submit", &root, &targets])
            .status
            .code(),
        Some(0)
    );
    // A second root that the cloud's operators did not sign under the first.
    let stranger = cloud.run(&["publisher", "key", "--new", "stranger.key"]);
    let add = [
        "publisher",
        "root",
        "add-key",
        "stranger.key.pub",
        "--repo",
        "repo",
    ];
    std::fs::write(cloud.path("stranger.key.pub"), &stranger.stdout).unwrap();
    assert_eq!(cloud.run(&add).status.code(), Some(0));
    let second = metadata("2.root.json");
    let told = refused(&["publisher", "submit", &second], 1);
    assert!(told.contains("signatures are missing"), "{told}");
    // An auditor carries nothing here.
    let made = cloud.run(&[
        "operator", "add", "ann", "--role", "auditor", "--out", "ann",
    ]);
    assert_eq!(made.status.code(), Some(0), "{}", err(&made));
    let by_auditor = cloud.run_as(&cloud.path("ann"), &publish);
    assert_eq!(by_auditor.status.code(), Some(1), "{}", out(&by_auditor));
    assert!(cloud.json(&["app", "list"]).as_array().unwrap().is_empty());
}

#[test]
fn a_release_comes_to_the_cloud_and_what_it_shares_with_the_last_does_not_travel() {
    let cloud = Cloud::start();
    ceremony(&cloud);
    let good = |arguments: &[&str]| {
        let done = cloud.run(arguments);
        assert_eq!(done.status.code(), Some(0), "{arguments:?}: {}", err(&done));
        err(&done)
    };
    let metadata = |name: &str| format!("repo/image/metadata/{name}");
    good(&[
        "publisher",
        "submit",
        &metadata("1.root.json"),
        &metadata("1.targets.json"),
    ]);
    app(&cloud, "1.0", 0);
    good(&SIGN);
    let publish = ["app", "publish", "--repo", "repo"];
    let published = cloud.json(&publish);
    assert_eq!(published["published"][0]["app"], "acme/tool");
    // Once more changes nothing and sends nothing.
    let told = good(&publish);
    assert!(told.contains(" 0 chunks"), "{told}");
    app(&cloud, "1.1", 1);
    good(&SIGN);
    let told = good(&publish);
    let sent: u64 = told
        .split("; ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=3).contains(&sent), "a byte changed: {told}");
    let list = cloud.json(&["app", "list"]);
    let versions: Vec<&str> = list[0]["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|release| release["version"].as_str().unwrap())
        .collect();
    assert_eq!(versions, ["1.1", "1.0"]);
    let shown = cloud.json(&["app", "show", "acme/tool@1.1"]);
    assert_eq!(shown["entry"], "tool");
    assert_eq!(shown["size"], 2_000_000);
    assert_eq!(
        cloud.run(&["app", "show", "acme/tool@9"]).status.code(),
        Some(1)
    );
    // No node has enrolled.
    assert!(
        cloud
            .json(&["app", "nodes", "acme/tool"])
            .as_array()
            .unwrap()
            .is_empty()
    );
    let publishers = cloud.json(&["publisher", "list"]);
    assert_eq!(publishers["publishers"][0]["releases"], 2);
    // What the cloud has is what another publisher's desk goes on from.
    good(&["publisher", "fetch", "--repo", "other"]);
    for name in ["1.root.json", "1.targets.json", "2.acme.json"] {
        let both = ["repo", "other"].map(|repo| {
            std::fs::read(cloud.path(&format!("{repo}/image/metadata/{name}"))).unwrap()
        });
        assert!(both[0] == both[1], "{name}");
    }
    assert!(cloud.run(&["app", "list", "acme"]).stdout.len() > 40);
    let release = ["app", "revoke", "acme/tool@1.0", "--reason", "a hole"];
    let revoked = cloud.json(&release);
    assert_eq!(revoked["digest"], published["published"][0]["digest"]);
    let list = cloud.json(&["app", "list"]);
    assert_eq!(list[0]["versions"][1]["revoked"], "a hole");
    assert!(list[0]["versions"][0].get("revoked").is_none());
    let unknown = ["app", "revoke", "acme/tool@7", "--reason", "a hole"];
    assert_eq!(cloud.run(&unknown).status.code(), Some(1));
    let short = ["app", "revoke", "sha256:00", "--reason", "a hole"];
    assert_eq!(cloud.run(&short).status.code(), Some(2));
    let nowhere = [
        "app",
        "back",
        "acme/tool",
        "--node",
        "none",
        "--reason",
        "slow",
    ];
    assert_eq!(cloud.run(&nowhere).status.code(), Some(1));
    let stick = [
        "app",
        "export",
        "--app",
        "acme/tool@1.1",
        "--node",
        "none",
        "--to",
        "stick",
    ];
    assert_eq!(cloud.run(&stick).status.code(), Some(1));
    assert!(
        !cloud.path("stick").exists(),
        "a stick without a director's word is of no use"
    );
}
