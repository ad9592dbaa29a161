use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use edgeward_tests::eventually::eventually;
use edgeward_tests::process::{output, run};
use serde_json::{Value, json};

use super::{CALLER, Plant, await_listener, client, python, tool};

/// Envoy passes no certificate on at the first, and at the second it does.
const PORTS: [u16; 2] = [8443, 8444];
const BACKEND_PORT: u16 = 8091;
/// Root's processes may ask.
const CONFIG: &str = "[ext_authz]\nusers = [0]";

/// A service that says what it was asked for, and in whose name.
const BACKEND: &str = "
import http.server, json
class Told(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({'path': self.path, 'names': self.headers.get_all('x-edgeward-spiffe-id'),
                           'override': self.headers.get('x-http-method-override')}).encode()
        self.send_response(200)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
http.server.ThreadingHTTPServer(('127.0.0.1', 8091), Told).serve_forever()
";

/// Waits until the caller's tunnel is open: until then nothing is known of it.
fn await_bound(plant: &Plant) -> anyhow::Result<()> {
    eventually("the caller is bound", Duration::from_secs(60), || {
        let answers = ask(
            plant,
            &[
                json!({ "principal": CALLER, "service": "plant", "interface": "web", "method": "GET", "path": "/status/" }),
            ],
        )?;
        anyhow::ensure!(answers[0]["code"] == 0, "{answers:?}");
        Ok(())
    })
}

/// Asks with the published messages.
fn ask(plant: &Plant, questions: &[Value]) -> anyhow::Result<Vec<Value>> {
    let mut command = plant.machine.host().command(python()?);
    command.arg(client("ext_authz.py")).arg(socket(plant));
    command.args(questions.iter().map(Value::to_string));
    let told = run(&mut command)?;
    told.lines()
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect()
}

fn socket(plant: &Plant) -> PathBuf {
    plant.machine.folder().join("run/ext_authz.sock")
}

#[test]
fn published_messages_are_answered_by_policy_and_what_is_unclear_is_denied() -> anyhow::Result<()> {
    let plant = Plant::new(CONFIG)?;
    await_bound(&plant)?;
    let asks = |principal: &str, interface: &str, method: &str, path: &str| json!({ "principal": principal, "service": "plant", "interface": interface, "method": method, "path": path });
    let cases = [
        (asks(CALLER, "web", "GET", "/status/a?b=/../c"), "", 0),
        (asks(CALLER, "web", "POST", "/config/a"), "no-rule", 403),
        (asks(CALLER, "web", "GET", "/config/a"), "no-action", 403),
        (
            asks(CALLER, "web", "GET", "/status/../config/a"),
            "path-dot-segment",
            403,
        ),
        (
            asks(CALLER, "web", "GET", "/status/%2e%2e/config/a"),
            "path-dot-segment",
            403,
        ),
        (asks(CALLER, "web", "get", "/status/a"), "method", 403),
        (
            asks(CALLER, "nowhere", "GET", "/status/a"),
            "unknown-interface",
            403,
        ),
        (asks(CALLER, "broker", "GET", "/status/a"), "no-action", 403),
        (asks("", "web", "GET", "/status/a"), "principal", 403),
        (asks("CN=a", "web", "GET", "/status/a"), "principal", 403),
        (
            asks("spiffe://plant.example/node/c", "web", "GET", "/status/a"),
            "not-bound",
            403,
        ),
        (json!({ "principal": CALLER }), "interface", 403),
        (
            json!({ "principal": CALLER, "service": "plant", "interface": "web" }),
            "no-action",
            403,
        ),
    ];
    let questions: Vec<Value> = cases
        .iter()
        .map(|(question, ..)| question.clone())
        .collect();
    let answers = ask(&plant, &questions)?;
    anyhow::ensure!(answers.len() == cases.len(), "{answers:?}");
    for ((question, reason, http), answer) in cases.iter().zip(&answers) {
        let (code, headers) = match http {
            0 => (0, json!({ "x-edgeward-spiffe-id": CALLER })),
            _ => (7, json!({})),
        };
        let expected = json!({ "code": code, "reason": reason, "http": http, "headers": headers });
        anyhow::ensure!(*answer == expected, "{question}: {answer}");
    }
    plant.await_event("flow.denied", &["plant/web", "no-rule", CALLER])?;
    plant.await_event("flow.allowed", &["plant/web", "gateways-read-web", CALLER])?;

    // Another user's processes are not answered at all.
    let mut command = plant.machine.host().command("setpriv");
    command.args([
        "--reuid",
        "39992",
        "--regid",
        "39992",
        "--clear-groups",
        "curl",
        "-sS",
        "--http2-prior-knowledge",
    ]);
    command
        .arg("--unix-socket")
        .arg(socket(&plant))
        .args(["--max-time", "5", "http://local/"]);
    anyhow::ensure!(
        !output(&mut command)?.status.success(),
        "another user was answered"
    );

    plant.take_rules_away()?;
    eventually("the rule is gone", Duration::from_secs(30), || {
        let answers = ask(&plant, &[asks(CALLER, "web", "GET", "/status/a")])?;
        anyhow::ensure!(answers[0]["code"] == 7, "{answers:?}");
        Ok(())
    })
}

#[test]
fn envoy_itself_forwards_what_policy_allows_and_nothing_else() -> anyhow::Result<()> {
    let plant = Plant::new(CONFIG)?;
    let folder = plant.machine.folder().to_owned();
    let authority = Authority::new(&folder.join("proxy"))?;
    authority.certify("proxy", "DNS:proxy")?;
    authority.certify("caller", &format!("URI:{CALLER}"))?;
    authority.certify("stranger", "URI:spiffe://plant.example/node/c")?;
    let mut backend = plant.serve("backend", Path::new("python3"), &["-c", BACKEND])?;
    await_listener(&plant.machine, BACKEND_PORT, &mut backend)?;
    let config = folder.join("envoy.json");
    std::fs::write(&config, envoy(&plant, &authority).to_string())?;
    let config = config.display().to_string();
    let arguments = [
        "-c",
        &config,
        "--disable-hot-restart",
        "--concurrency",
        "1",
        "-l",
        "warning",
    ];
    let mut proxy = plant.serve("envoy", &tool("envoy")?, &arguments)?;
    await_listener(&plant.machine, PORTS[0], &mut proxy)?;
    await_bound(&plant)?;

    let get = |who: &str, port: u16, more: &[&str], path: &str| {
        let mut command = plant.caller.host().command("curl");
        command.args([
            "-sSk",
            "--max-time",
            "10",
            "--path-as-is",
            "-w",
            "\n%{http_code}",
        ]);
        command
            .arg("--cert")
            .arg(authority.file(who, "pem"))
            .arg("--key")
            .arg(authority.file(who, "key"));
        command.args(more).arg(format!(
            "https://{}:{port}{path}",
            plant.machine.host().ipv4()
        ));
        let told = run(&mut command)?;
        let (body, code) = told.rsplit_once('\n').context("no code")?;
        anyhow::Ok((code.to_owned(), body.to_owned()))
    };
    // What the client says of itself, and asks to be taken for, is lost on the way.
    let forged = [
        "-H",
        "x-edgeward-spiffe-id: spiffe://plant.example/node/root",
        "-H",
        "x-http-method-override: POST",
    ];
    for http in ["--http1.1", "--http2"] {
        let (code, body) = get(
            "caller",
            PORTS[0],
            &[&forged[..], &[http]].concat(),
            "/status/a?b=c",
        )?;
        let told: Value = serde_json::from_str(&body).with_context(|| format!("{code}: {body}"))?;
        anyhow::ensure!(
            code == "200"
                && told == json!({ "path": "/status/a?b=c", "names": [CALLER], "override": null }),
            "{code}: {told}"
        );
    }
    for (who, more, path) in [
        ("caller", &["-X", "POST"][..], "/config/a"),
        ("caller", &[], "/config/a"),
        ("caller", &[], "/status/../config/a"),
        ("caller", &[], "/status/%2e%2e/config/a"),
        ("caller", &[], "/status/a%2fb"),
        ("caller", &[], "//status/a"),
        ("stranger", &[], "/status/a"),
    ] {
        let (code, body) = get(who, PORTS[0], more, path)?;
        anyhow::ensure!(
            code == "403" && body.is_empty(),
            "{who} {path}: {code} {body}"
        );
    }
    // With the certificate at hand the agent compares its key with the one that the tunnel was opened with.
    let (code, _) = get("caller", PORTS[1], &[], "/status/a")?;
    anyhow::ensure!(
        code == "403",
        "a certificate of another authority was believed: {code}"
    );

    plant.take_rules_away()?;
    eventually("the rule is gone", Duration::from_secs(30), || {
        let (code, _) = get("caller", PORTS[0], &[], "/status/a")?;
        anyhow::ensure!(code == "403", "{code}");
        Ok(())
    })?;
    proxy.check()
}

/// The configuration of docs/ext-authz.md, with a service behind it.
fn envoy(plant: &Plant, authority: &Authority) -> Value {
    let kind = |name: &str| format!("type.googleapis.com/envoy.{name}");
    let address = |address: &str, port: u16| json!({ "socket_address": { "address": address, "port_value": port } });
    let cluster = |name: &str, address: Value| {
        json!({
            "name": name, "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }] },
        })
    };
    let file = |name: &str, extension: &str| json!({ "filename": authority.file(name, extension) });
    let tls = json!({ "name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": kind("extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
        "require_client_certificate": true,
        "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificates": [{ "certificate_chain": file("proxy", "pem"), "private_key": file("proxy", "key") }],
            "validation_context": { "trusted_ca": file("ca", "pem") },
        },
    } });
    let listener = |port: u16, with_certificate: bool| {
        let asks = json!({ "name": "envoy.filters.http.ext_authz", "typed_config": {
            "@type": kind("extensions.filters.http.ext_authz.v3.ExtAuthz"),
            "transport_api_version": "V3",
            "failure_mode_allow": false,
            "include_peer_certificate": with_certificate,
            "grpc_service": { "envoy_grpc": { "cluster_name": "edgeward" }, "timeout": "2s" },
        } });
        let names = json!({ "envoy.filters.http.ext_authz": {
            "@type": kind("extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"),
            "check_settings": { "context_extensions": { "service": "plant", "interface": "web" } },
        } });
        let router = json!({ "name": "envoy.filters.http.router", "typed_config": { "@type": kind("extensions.filters.http.router.v3.Router") } });
        let manager = json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": {
            "@type": kind("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "plant",
            "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "typed_per_filter_config": names,
                "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "backend" } }] }] },
            "http_filters": [asks, router],
        } });
        json!({ "address": address("0.0.0.0", port), "filter_chains": [{ "transport_socket": tls, "filters": [manager] }] })
    };
    let mut edgeward = cluster("edgeward", json!({ "pipe": { "path": socket(plant) } }));
    edgeward["typed_extension_protocol_options"] = json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": kind("extensions.upstreams.http.v3.HttpProtocolOptions"),
        "explicit_http_config": { "http2_protocol_options": {} },
    } });
    json!({ "static_resources": {
        "listeners": [listener(PORTS[0], false), listener(PORTS[1], true)],
        "clusters": [cluster("backend", address("127.0.0.1", BACKEND_PORT)), edgeward],
    } })
}

/// An authority that the proxy trusts: not Edgeward's own, whose keys never leave their TPMs.
struct Authority(PathBuf);

impl Authority {
    fn new(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let authority = Self(folder.to_owned());
        let mut command =
            authority.openssl(&["req", "-x509", "-nodes", "-days", "1", "-subj", "/CN=test"]);
        command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        command.arg("-keyout").arg(authority.file("ca", "key"));
        run(command.arg("-out").arg(authority.file("ca", "pem")))?;
        Ok(authority)
    }

    fn certify(&self, name: &str, san: &str) -> anyhow::Result<()> {
        let mut command =
            self.openssl(&["req", "-x509", "-nodes", "-days", "1", "-subj", "/O=test"]);
        command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        command.args(["-addext", &format!("subjectAltName={san}")]);
        command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        command.args(["-addext", "keyUsage=critical,digitalSignature"]);
        command.args(["-addext", "extendedKeyUsage=serverAuth,clientAuth"]);
        command
            .arg("-CA")
            .arg(self.file("ca", "pem"))
            .arg("-CAkey")
            .arg(self.file("ca", "key"));
        command.arg("-keyout").arg(self.file(name, "key"));
        run(command.arg("-out").arg(self.file(name, "pem"))).map(|_| ())
    }

    fn openssl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("openssl");
        command.args(arguments);
        command
    }

    fn file(&self, name: &str, extension: &str) -> PathBuf {
        self.0.join(format!("{name}.{extension}"))
    }
}
