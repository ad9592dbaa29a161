//! `edgeward-agent apps`: what applications this node has, and where else they may come from.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use edgeward_apps::advice::advice;

use super::{Failure, Session};
use crate::apps::desk::Checked;
use crate::apps::report::AppsReport;
use crate::apps::volume::{Image, Prepared, prepare};
use crate::status::{ask, import_apps, verify_apps};

/// `edgeward-agent apps`.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show what is installed, what runs, and why something is not
    List,
    /// Look into a folder for what is assigned: a stick, or what a publisher's tool wrote
    #[command(after_help = "\
Examples:
  edgeward app export --app acme/collector@2.3 --node gw-3 --to /media/stick     at the cloud
  edgeward-agent apps import /media/stick                                        at the node, cloud or no cloud

Nothing is trusted for where it lies: a release needs its publisher's signatures, the director's word for this node,
and a rule of the policy, as from anywhere else.")]
    Import(Import),
    /// Make the file system that installed releases lie on, in an image, and mount it; needs root, not the agent
    #[command(after_help = "\
Examples:
  edgeward-agent apps volume                       1 GiB, below the state folder; mounted where [apps] volume says
  edgeward-agent apps volume --mebibytes 4096

Does nothing where a file system is mounted already. edgeward-apps-volume.service runs it before guard and agent.")]
    Volume(MakeVolume),
    /// Read every installed file, against what its publisher signed; fails if one is another
    Verify,
}

/// `edgeward-agent apps import`.
#[derive(Clone, Debug, Args)]
pub struct Import {
    /// Has the folders image and director
    folder: PathBuf,
}

/// `edgeward-agent apps volume`.
#[derive(Clone, Debug, Args)]
pub struct MakeVolume {
    /// The image; by default apps.img in the state folder
    #[arg(long)]
    image: Option<PathBuf>,
    /// Size of the image when it is made; all of it is taken at once
    #[arg(long, default_value_t = 1024)]
    mebibytes: u64,
}

pub(super) async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    let socket = &session.config.enforce.status_socket;
    match command {
        Command::List => {
            let report = ask(socket).await?.apps;
            session.screen.answer(&report, text);
        }
        Command::Import(Import { folder }) => {
            let folder = std::path::absolute(&folder)
                .map_err(|error| Failure::Usage(format!("{}: {error}", folder.display())))?;
            let report = import_apps(socket, &folder).await?;
            session.screen.answer(&report, text);
            let lacking = report.apps.values().filter(|app| app.wanted.is_some());
            match lacking.count() {
                0 => {}
                lacking => return Err(Failure::Lacking(lacking)),
            }
        }
        Command::Volume(MakeVolume { image, mebibytes }) => {
            let Some(apps) = &session.config.apps else {
                let why = "the configuration has no [apps], which says where the volume is to be";
                return Err(Failure::Usage(why.to_owned()));
            };
            let in_state = || session.config.state_dir.join("apps.img");
            let image = Image {
                file: image.unwrap_or_else(in_state),
                bytes: mebibytes.saturating_mul(1024 * 1024),
                folder: apps.volume.clone(),
            };
            let prepared = prepare(&image)?;
            session.screen.answer(&prepared, |prepared| {
                let (file, folder) = (image.file.display(), image.folder.display());
                match prepared {
                    Prepared::There => format!("{folder}: is mounted already"),
                    Prepared::Mounted => format!("{folder}: {file} is mounted"),
                    Prepared::Made => format!("{folder}: {file} was made and is mounted"),
                }
            });
        }
        Command::Verify => {
            let releases = verify_apps(socket).await?;
            session
                .screen
                .answer(&releases, |releases| verified(releases));
            let wrong = releases.iter().filter(|one| one.wrong.is_some()).count();
            if wrong > 0 {
                return Err(Failure::Altered(wrong));
            }
        }
    }
    Ok(())
}

fn text(report: &AppsReport) -> String {
    let control = match report.control.as_str() {
        "" => "none: nothing is started here",
        word => word,
    };
    let mut lines = vec![
        format!("control   {control}"),
        format!("director  {}", report.director),
    ];
    if !report.standing.is_empty() {
        lines.push(format!("standing  {}", report.standing));
    }
    if report.apps.is_empty() {
        lines.push("no applications".to_owned());
    }
    for (app, said) in &report.apps {
        let version = said
            .version
            .as_ref()
            .map_or("-".to_owned(), ToString::to_string);
        let mut line = format!("{app}  {version}  {}", said.state.as_str());
        if let Some(wanted) = &said.wanted {
            line.push_str(&format!("  wanted {wanted}"));
        }
        if said.to_fetch > 0 {
            line.push_str(&format!("  {} of {} bytes", said.fetched, said.to_fetch));
        }
        if !said.code.is_empty() {
            line.push_str(&format!("  [{}] {}", said.code, said.reason));
        }
        lines.push(line.trim_end().to_owned());
        if let Some(advice) = advice(&said.code) {
            lines.push(format!("    {advice}"));
        }
    }
    lines.join("\n")
}

fn verified(releases: &[Checked]) -> String {
    if releases.is_empty() {
        return "nothing is installed".to_owned();
    }
    let line = |one: &Checked| {
        let found = one.wrong.as_deref().unwrap_or("as signed");
        let kept = if one.current {
            ""
        } else {
            " (kept for a way back)"
        };
        format!("{}  {}{kept}  {found}", one.app, one.version)
    };
    releases.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests;
