//! `edgeward-guard supervise|watch|launch`, started by the system and by itself.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use edgeward_guard::level::Level;
use edgeward_guard::{launch, supervise, watch};

/// Applications are launched behind their walls, and the kernel asks about nothing.
const LAUNCHER_ONLY: &str = "--launcher-only";

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let command = args.next().unwrap_or_default();
    let rest: Vec<PathBuf> = args.map(PathBuf::from).collect();
    let failed = match (command.to_str(), rest.as_slice()) {
        (Some("supervise"), [volume, socket, apps]) => {
            supervise(volume, socket, apps, Level::Kernel)
        }
        (Some("supervise"), [only, volume, socket, apps]) if only == Path::new(LAUNCHER_ONLY) => {
            supervise(volume, socket, apps, Level::Launcher)
        }
        (Some("watch"), [] | [_]) => watch::run(rest.first().map(PathBuf::as_path))
            .map_or_else(|error| error.to_string(), |()| "ended".to_owned()),
        (Some("launch"), []) => {
            launch::run().map_or_else(|error| error.to_string(), |never| match never {})
        }
        _ => {
            tell(
                "usage: edgeward-guard supervise [--launcher-only] VOLUME SOCKET CGROUP | watch [FOLDER] | launch",
            );
            return ExitCode::from(2);
        }
    };
    tell(&format!("edgeward-guard: {failed}"));
    ExitCode::FAILURE
}

fn supervise(volume: &Path, socket: &Path, apps: &Path, most: Level) -> String {
    let settings = supervise::Settings {
        volume: volume.to_owned(),
        socket: socket.to_owned(),
        apps: apps.to_owned(),
        most,
        program: PathBuf::from("/proc/self/exe"),
    };
    supervise::run(settings).map_or_else(|error| error.to_string(), |never| match never {})
}

#[expect(
    clippy::print_stderr,
    reason = "the only place where this program speaks to people"
)]
fn tell(text: &str) {
    eprintln!("{text}");
}
