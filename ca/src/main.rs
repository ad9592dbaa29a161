//! `edgeward`: the cloud, and the commands that operate it.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use edgeward_ca::cli::{self, Cli, Command, ServeArgs};
use edgeward_ca::config::Config;
use edgeward_ca::run;
use edgeward_runtime::{exit, telemetry};
use tokio::runtime::Builder;

fn main() -> ExitCode {
    let cli = Cli::parse();
    ExitCode::from(match cli.command {
        Command::Serve(ref arguments) => serve(arguments),
        _ => operate(cli),
    })
}

fn serve(arguments: &ServeArgs) -> u8 {
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => return fail(exit::BAD_CONFIG, &error),
    };
    if let Err(error) = telemetry::init(&arguments.log, arguments.log_format) {
        return fail(exit::BAD_CONFIG, &error);
    }
    if arguments.check {
        // What the cloud would read beside its configuration, and end for.
        return match edgeward_ca::alerts::load(&config.alerts) {
            Ok(_) => exit::OK,
            Err(error) => fail(exit::BAD_CONFIG, &error),
        };
    }
    match Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => match runtime.block_on(run::run(config)) {
            Ok(()) => exit::OK,
            Err(error) => fail(exit::FAILED, &format!("{error:#}")),
        },
        Err(error) => fail(exit::FAILED, &error),
    }
}

fn operate(cli: Cli) -> u8 {
    match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(cli::run(cli)),
        Err(error) => fail(exit::FAILED, &error),
    }
}

fn fail(code: u8, error: &dyn Display) -> u8 {
    // Where nobody listens there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "error: {error}");
    code
}
