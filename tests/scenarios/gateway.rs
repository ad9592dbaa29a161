//! HTTP at the gateway between two real agents: nginx (Debian) behind it, a gRPC service of grpcio with clients of
//! grpcio and of curl, and an operator with a certificate.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use edgeward_tests::agent::Node;
use edgeward_tests::cloud::CloudOptions;
use edgeward_tests::eventually::eventually;
use edgeward_tests::lab::{QUICKSTART_POLICY, copy_folder};
use edgeward_tests::process::{Process, output};
use edgeward_tests::{Lab, bin_dir};

use crate::traffic::{overlay, tail};

const HTTP: u16 = 8080;
const RPC: u16 = 9090;
const POLICY: &str = include_str!("gateway/policy.toml");
const GROUPS: &str = "groups.toml";

/// nginx says what it saw.
const NGINX: &str = r#"
daemon off; master_process off; worker_processes 1; error_log stderr warn; pid FOLDER/nginx.pid;
events { worker_connections 256; }
http {
  access_log FOLDER/nginx.access;
  client_body_temp_path FOLDER/nginx-body; proxy_temp_path FOLDER/nginx-proxy; fastcgi_temp_path FOLDER/nginx-fastcgi;
  uwsgi_temp_path FOLDER/nginx-uwsgi; scgi_temp_path FOLDER/nginx-scgi;
  underscores_in_headers on; default_type text/plain;
  server {
    listen 127.0.0.1:8180;
    location /status/slow { alias FOLDER/slow; limit_rate 4k; }
    location / { return 200 "$request_method $request_uri id=$http_x_edgeward_spiffe_id xfcc=$http_x_forwarded_client_cert\n"; }
  }
}
"#;

/// Node `a` is a gateway by its label, and calls; `b` is a machine with services behind its agent.
struct Scene {
    lab: Lab,
    a: Node,
    b: Node,
    _services: Vec<Process>,
}

#[test]
fn http_and_grpc_are_decided_request_by_request_and_live_ones_end_with_their_right()
-> anyhow::Result<()> {
    let scene = Scene::new()?;
    scene.requests_are_decided_by_method_and_path()?;
    scene.the_service_sees_who_calls_and_nothing_forged()?;
    scene.an_operator_stands_as_the_node_it_comes_from()?;
    scene.grpc_is_decided_by_method()?;
    scene.the_gateway_is_shown_and_recorded()?;
    scene.live_requests_end_with_their_right()
}

impl Scene {
    fn new() -> anyhow::Result<Self> {
        let mut lab = Lab::with_policy(&CloudOptions::default())?;
        apply(&lab, POLICY)?;
        let a = lab.member("a", "gateway")?;
        let b = lab.member("b", "machine")?;
        let services = vec![nginx(&b)?, grpc(&b)?];
        let scene = Self {
            lab,
            a,
            b,
            _services: services,
        };
        eventually("a reads b's status", Duration::from_secs(60), || {
            let (status, text) = scene.curl(&["-X", "GET"], "/status/first")?;
            anyhow::ensure!(
                status == 200,
                "{status} {text}\n--- a:\n{}\n--- b:\n{}",
                tail(&scene.a.log_text()),
                tail(&scene.b.log_text())
            );
            Ok(())
        })?;
        Ok(scene)
    }

    fn requests_are_decided_by_method_and_path(&self) -> anyhow::Result<()> {
        let cases = [
            ("GET", "/status/temperature?unit=c", 200),
            ("GET", "/status/%74emperature", 200),
            ("POST", "/status/temperature", 403),
            ("GET", "/config/a", 403),
            ("POST", "/config/a", 403),
            ("GET", "/status/../config/a", 400),
            ("GET", "/status/%2e%2e/config/a", 400),
            ("GET", "/status//config", 400),
        ];
        for (method, path, wanted) in cases {
            let (status, text) = self.curl(&["-X", method], path)?;
            anyhow::ensure!(status == wanted, "{method} {path}: {status} {text}");
            if wanted == 403 {
                anyhow::ensure!(text.contains("\"code\":\"denied\""), "{text}");
            }
        }
        // What was denied never came to the service.
        let seen = std::fs::read_to_string(self.b.folder().join("nginx.access"))?;
        anyhow::ensure!(!seen.contains("config") && !seen.contains("POST"), "{seen}");
        anyhow::ensure!(seen.contains("GET /status/temperature HTTP/1.1"), "{seen}");
        Ok(())
    }

    fn the_service_sees_who_calls_and_nothing_forged(&self) -> anyhow::Result<()> {
        let forged = "spiffe://plant.example/node/admin";
        let fields = [
            format!("X-Edgeward-Spiffe-Id: {forged}"),
            format!("x_edgeward_spiffe_id: {forged}"),
            format!("X-Forwarded-Client-Cert: URI={forged}"),
            "Connection: x-edgeward-spiffe-id".to_owned(),
        ];
        let words: Vec<&str> = fields.iter().flat_map(|field| ["-H", field]).collect();
        let (status, text) = self.curl(&words, "/status/who")?;
        let wanted = "GET /status/who id=spiffe://plant.example/node/a \
                      xfcc=By=spiffe://plant.example/node/b;URI=spiffe://plant.example/node/a\n";
        anyhow::ensure!(status == 200 && text == wanted, "{status} {text}");
        Ok(())
    }

    fn an_operator_stands_as_the_node_it_comes_from(&self) -> anyhow::Result<()> {
        let admin = self.lab.cloud.folder().join("data/admin");
        let (key, certificate) = (admin.join("admin.key"), admin.join("admin.crt"));
        let key = key.to_string_lossy();
        let certificate = certificate.to_string_lossy();
        let words = ["--cert", &certificate, "--key", &key];
        let (status, text) = self.curl_tls(&[&words[..], &["-X", "POST"]].concat(), "/config/a")?;
        let wanted = "id=spiffe://plant.example/operator/admin";
        anyhow::ensure!(status == 200 && text.contains(wanted), "{status} {text}");
        // What its node may do, it may not.
        let (status, _) = self.curl_tls(&words, "/status/who")?;
        anyhow::ensure!(status == 403, "{status}");
        // Without a certificate there is no TLS.
        anyhow::ensure!(
            self.curl_tls(&[], "/status/who").is_err(),
            "tls without a certificate"
        );
        Ok(())
    }

    fn grpc_is_decided_by_method(&self) -> anyhow::Result<()> {
        let address = format!("[{}]:{RPC}", overlay(&self.b)?);
        let say = |method: &str| -> anyhow::Result<String> {
            let mut command = self.python(&["say", &address, method])?;
            let output = output(&mut command)?;
            Ok(String::from_utf8(output.stdout)?.trim().to_owned())
        };
        let told = say("Say")?;
        anyhow::ensure!(told == "spiffe://plant.example/node/a hello", "{told}");
        let told = say("Stop")?;
        anyhow::ensure!(told == "PERMISSION_DENIED", "{told}");
        // Another make of client: curl writes the frame itself.
        let frame = self.a.folder().join("frame");
        std::fs::write(&frame, b"\0\0\0\0\x02hi")?;
        let mut command = self.a.host().command("curl");
        command.args([
            "-sS",
            "--max-time",
            "5",
            "--http2-prior-knowledge",
            "-D",
            "-",
            "--data-binary",
        ]);
        command.arg(format!("@{}", frame.display()));
        command.args([
            "-H",
            "content-type: application/grpc",
            "-H",
            "te: trailers",
            "--output",
            "-",
        ]);
        command.arg(format!("http://{address}/test.Echo/Say"));
        let output = output(&mut command)?;
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        anyhow::ensure!(
            told.contains("node/a hi") && told.contains("grpc-status: 0"),
            "{told}"
        );
        Ok(())
    }

    fn the_gateway_is_shown_and_recorded(&self) -> anyhow::Result<()> {
        let status = self.b.status()?;
        let gateways = status["gateways"].as_array().context("gateways")?;
        anyhow::ensure!(gateways.len() == 2, "{status}");
        for gateway in gateways {
            anyhow::ensure!(gateway["failed"].is_null(), "{gateway}");
            let addresses = gateway["addresses"].as_array().context("addresses")?;
            anyhow::ensure!(!addresses.is_empty(), "{gateway}");
        }
        let denied = ["--type", "flow.denied", "--node", "b"];
        eventually(
            "the denied write is in the log",
            Duration::from_secs(30),
            || {
                let events = self.lab.cloud.events(&denied)?;
                let found = events.iter().any(|event| {
                    let text = event.to_string();
                    text.contains("web/http")
                        && text.contains("\"write\"")
                        && text.contains("node/a")
                });
                anyhow::ensure!(found, "{events:?}");
                Ok(())
            },
        )
    }

    /// A slow download and a gRPC stream, under way when a rule goes.
    fn live_requests_end_with_their_right(&self) -> anyhow::Result<()> {
        let url = format!("http://[{}]:{HTTP}/status/slow", overlay(&self.b)?);
        let mut command = self.a.host().command("curl");
        command.args(["-sS", "--max-time", "60", "-o", "/dev/null", &url]);
        let mut download = Process::start("curl", command, &self.a.folder().join("slow.log"))?;
        let address = format!("[{}]:{RPC}", overlay(&self.b)?);
        let log = self.a.folder().join("chat.log");
        let mut chat = Process::start("chat", self.python(&["chat", &address])?, &log)?;
        eventually("the stream goes both ways", Duration::from_secs(20), || {
            let told = std::fs::read_to_string(&log)?;
            anyhow::ensure!(told.lines().count() > 3, "{told}");
            Ok(())
        })?;
        download.check()?;
        let narrower = POLICY.replace("do     = [\"read\"]", "do     = [\"write\"]");
        let narrower = narrower.replace("do     = [\"say\"]", "do     = [\"stop\"]");
        anyhow::ensure!(narrower != POLICY);
        apply(&self.lab, &narrower)?;
        let begun = Instant::now();
        for process in [&mut download, &mut chat] {
            eventually("it ends", Duration::from_secs(10), || {
                process.ended()?.context("still going on").map(|_| ())
            })?;
        }
        println!(
            "live requests ended {:?} after the policy was applied",
            begun.elapsed()
        );
        let told = std::fs::read_to_string(&log)?;
        anyhow::ensure!(
            told.contains("broken"),
            "the stream was not broken off: {told}"
        );
        let (status, _) = self.curl(&[], "/status/first")?;
        anyhow::ensure!(status == 403, "{status}");
        Ok(())
    }

    /// Status and body of one request from `a` to `b`'s HTTP interface.
    fn curl(&self, words: &[&str], path: &str) -> anyhow::Result<(u16, String)> {
        self.fetch("http", words, path)
    }

    fn curl_tls(&self, words: &[&str], path: &str) -> anyhow::Result<(u16, String)> {
        // curl knows no SPIFFE IDs: whom it speaks to is checked by other tests.
        self.fetch("https", &[words, &["-k"]].concat(), path)
    }

    fn fetch(&self, scheme: &str, words: &[&str], path: &str) -> anyhow::Result<(u16, String)> {
        let url = format!("{scheme}://[{}]:{HTTP}{path}", overlay(&self.b)?);
        let mut command = self.a.host().command("curl");
        command.args([
            "-sS",
            "--path-as-is",
            "--max-time",
            "5",
            "-w",
            "\n%{http_code}",
        ]);
        command.args(words).arg(url);
        let output = output(&mut command)?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::ensure!(output.status.success(), "{told}");
        let text = String::from_utf8(output.stdout)?;
        let (body, status) = text.rsplit_once('\n').context("no status")?;
        Ok((status.parse()?, body.to_owned()))
    }

    fn python(&self, words: &[&str]) -> anyhow::Result<Command> {
        python(&self.a, words)
    }
}

/// The quickstart's groups, and what this scenario grants.
fn apply(lab: &Lab, policy: &str) -> anyhow::Result<()> {
    let folder = lab.folder().join("gateway-policy");
    std::fs::create_dir_all(&folder)?;
    copy_folder(QUICKSTART_POLICY.as_ref(), &folder)?;
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path)?;
        let has_groups = text.contains("[group.");
        if !has_groups && !path.ends_with(GROUPS) {
            std::fs::remove_file(path)?;
        }
    }
    std::fs::write(folder.join("web.toml"), policy)?;
    let folder = folder.to_string_lossy();
    lab.cloud.edgeward(&["policy", "apply", &folder])?;
    Ok(())
}

fn nginx(node: &Node) -> anyhow::Result<Process> {
    let folder = node.folder();
    let text = NGINX.replace("FOLDER", &folder.to_string_lossy());
    std::fs::write(folder.join("nginx.conf"), text)?;
    std::fs::write(folder.join("slow"), vec![b'.'; 1 << 20])?;
    let mut command = node.host().command("nginx");
    command.arg("-p").arg(folder);
    command.arg("-c").arg(folder.join("nginx.conf"));
    Process::start("nginx", command, &folder.join("nginx.log"))
}

fn grpc(node: &Node) -> anyhow::Result<Process> {
    let command = python(node, &["serve", "127.0.0.1:9190"])?;
    Process::start("grpc", command, &node.folder().join("grpc.log"))
}

/// The gRPC client and service, in the environment that `tests/run` makes.
fn python(node: &Node, words: &[&str]) -> anyhow::Result<Command> {
    let target = bin_dir()?;
    let target = target.parent().context("a target folder")?;
    let interpreter: PathBuf = target.join("tools/protocols/bin/python");
    anyhow::ensure!(
        interpreter.exists(),
        "{}: made by tests/run",
        interpreter.display()
    );
    let mut command = node.host().command(interpreter);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/grpc_echo.py");
    command.arg(script).args(words);
    Ok(command)
}
