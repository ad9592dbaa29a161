//! `edgeward-guard supervise|watch|launch`, started by the agent and by itself.

use std::path::PathBuf;
use std::process::ExitCode;

use edgeward_guard::{launch, supervise, watch};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let command = args.next().unwrap_or_default();
    let rest: Vec<PathBuf> = args.map(PathBuf::from).collect();
    let failed = match (command.to_str(), rest.as_slice()) {
        (Some("supervise"), [volume, socket, apps]) => {
            let settings = supervise::Settings {
                volume: volume.clone(),
                socket: socket.clone(),
                apps: apps.clone(),
                program: PathBuf::from("/proc/self/exe"),
            };
            supervise::run(settings).map_or_else(|error| error.to_string(), |never| match never {})
        }
        (Some("watch"), []) => {
            watch::run().map_or_else(|error| error.to_string(), |()| "ended".to_owned())
        }
        (Some("launch"), []) => {
            launch::run().map_or_else(|error| error.to_string(), |never| match never {})
        }
        _ => {
            tell("usage: edgeward-guard supervise VOLUME SOCKET CGROUP | watch | launch");
            return ExitCode::from(2);
        }
    };
    tell(&format!("edgeward-guard: {failed}"));
    ExitCode::FAILURE
}

#[expect(
    clippy::print_stderr,
    reason = "the only place where this program speaks to people"
)]
fn tell(text: &str) {
    eprintln!("{text}");
}
