//! Services on nodes and attempts to reach them.

use std::net::Ipv6Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use edgeward_tests::agent::Node;
use edgeward_tests::eventually::eventually;
use edgeward_tests::process::{Process, output, run};

/// How long an allowed access may take to be possible: enrolment, bind and handshake included.
const OPEN_DEADLINE: Duration = Duration::from_secs(30);

/// The overlay address of a node, as everybody can compute it.
pub fn overlay(node: &Node) -> anyhow::Result<Ipv6Addr> {
    let id = format!(
        "spiffe://{}/node/{}",
        edgeward_tests::cloud::TRUST_DOMAIN,
        node.name()
    );
    Ok(edgeward_identity::overlay::ipv6_of(&id.parse()?))
}

/// A web server on every address of the node; its page is the node's name.
pub fn serve(node: &Node, port: u16) -> anyhow::Result<Process> {
    let folder = node.folder().join(format!("www-{port}"));
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("index.html"), node.name())?;
    let mut command = node.host().command("python3");
    command.args(["-m", "http.server", "--bind", "::", "--directory"]);
    command.arg(&folder).arg(port.to_string());
    let server = Process::start("http.server", command, &node.folder().join("www.log"))?;
    eventually(
        "the service answers on its own host",
        Duration::from_secs(10),
        || fetch(node, &format!("http://[::1]:{port}/"), 1).map(|_| ()),
    )?;
    Ok(server)
}

/// Whether `from` gets the page of `to` within `seconds`.
pub fn reaches(from: &Node, to: &Node, port: u16, seconds: u32) -> anyhow::Result<bool> {
    let url = format!("http://[{}]:{port}/", overlay(to)?);
    Ok(fetch(from, &url, seconds).is_ok_and(|page| page == to.name()))
}

/// Answers every line with itself.
const ECHO: &str = r#"
import socketserver, sys
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)
class Server(socketserver.ThreadingTCPServer):
    address_family = socketserver.socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True
Server(("::", int(sys.argv[1])), Echo).serve_forever()
"#;

/// Whether somebody listens.
const KNOCK: &str = "import socket, sys; socket.create_connection(('::1', int(sys.argv[1])))";

/// Asks again and again on one connection, and says when it was answered.
const ASK: &str = r#"
import socket, sys, time
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60) as s:
    f = s.makefile("rb")
    number = 0
    while True:
        number += 1
        asked = b"%d\n" % number
        s.sendall(asked)
        if f.readline() != asked:
            sys.exit("closed or wrong")
        print(number, flush=True)
        time.sleep(0.05)
"#;

/// One connection, held open through whatever comes.
pub struct Connection {
    _server: Process,
    client: Process,
}

impl Connection {
    /// To a port of `to` that nobody serves yet.
    pub fn open(from: &Node, to: &Node, port: u16) -> anyhow::Result<Self> {
        let mut server = to.host().command("python3");
        server.args(["-c", ECHO, &port.to_string()]);
        let server = Process::start("echo", server, &to.folder().join("echo.log"))?;
        eventually(
            "the echo answers on its own host",
            Duration::from_secs(10),
            || {
                let mut knock = to.host().command("python3");
                knock.args(["-c", KNOCK, &port.to_string()]);
                run(&mut knock).map(|_| ())
            },
        )?;
        let mut client = from.host().command("python3");
        client.args(["-c", ASK, &overlay(to)?.to_string(), &port.to_string()]);
        let client = Process::start("ask", client, &from.folder().join("ask.log"))?;
        Ok(Self {
            _server: server,
            client,
        })
    }

    /// How often it was answered so far.
    fn answers(&self) -> usize {
        self.client.log_text().lines().count()
    }

    /// Waits until it was answered some times more.
    pub fn goes_on(&mut self, deadline: Duration) -> anyhow::Result<()> {
        let before = self.answers();
        eventually("the open connection goes on", deadline, || {
            self.client.check()?;
            let since = self.answers() - before;
            anyhow::ensure!(since >= 5, "answered {since} times since");
            Ok(())
        })
    }

    /// Waits until nothing gets through any more.
    pub fn stands_still(&self, deadline: Duration) -> anyhow::Result<()> {
        eventually("the open connection stands still", deadline, || {
            let before = self.answers();
            std::thread::sleep(Duration::from_secs(1));
            let since = self.answers() - before;
            anyhow::ensure!(since == 0, "answered {since} times in a second");
            Ok(())
        })
    }
}

/// Waits until it does.
pub fn await_reach(from: &Node, to: &Node, port: u16) -> anyhow::Result<()> {
    let what = format!("{} reaches {} on {port}", from.name(), to.name());
    eventually(&what, OPEN_DEADLINE, || {
        anyhow::ensure!(
            reaches(from, to, port, 2)?,
            "{}\n--- {}:\n{}\n--- {}:\n{}",
            "it does not",
            from.name(),
            tail(&from.log_text()),
            to.name(),
            tail(&to.log_text())
        );
        Ok(())
    })
}

fn fetch(from: &Node, url: &str, seconds: u32) -> anyhow::Result<String> {
    let mut command: Command = from.host().command("curl");
    command.args(["-sS", "--max-time", &seconds.to_string(), url]);
    let output = output(&mut command)?;
    anyhow::ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).context("not text")
}

/// The end of a log.
pub fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
