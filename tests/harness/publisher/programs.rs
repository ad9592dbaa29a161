//! Real programs of Debian packages, as the files of an app.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use edgeward_apps::manifest::Resources;

use crate::process::run;

/// The static BusyBox of the package `busybox-static`.
const BUSYBOX: &str = "/bin/busybox";
const LOADER: &str = "lib/ld-linux-x86-64.so.2";

/// What a publisher releases, before it is cut and signed.
#[derive(Clone, Debug)]
pub struct Program {
    pub files: BTreeMap<String, Content>,
    pub entry: String,
    pub args: Vec<String>,
    pub identity: Option<String>,
    pub host_libraries: bool,
    pub resources: Resources,
}

#[derive(Clone, Debug)]
pub enum Content {
    File {
        bytes: Vec<u8>,
        executable: bool,
    },
    /// A symbolic link.
    Link(String),
}

impl Program {
    /// A static program: nothing of the machine is needed to run it.
    pub fn busybox(args: &[&str]) -> anyhow::Result<Self> {
        let bytes = std::fs::read(BUSYBOX).context("package busybox-static")?;
        Ok(Self {
            files: BTreeMap::from([("bin/busybox".to_owned(), executable(bytes))]),
            entry: "bin/busybox".to_owned(),
            args: args.iter().map(|word| (*word).to_owned()).collect(),
            identity: None,
            host_libraries: false,
            resources: Resources::default(),
        })
    }

    /// A dynamic program with every library it needs and their loader, which is what is started.
    pub fn dynamic(program: &str, args: &[&str]) -> anyhow::Result<Self> {
        let name = Path::new(program)
            .file_name()
            .and_then(|name| name.to_str())
            .context("a program has a name")?;
        let mut files = BTreeMap::new();
        for library in libraries(program)? {
            let file = Path::new(&library)
                .file_name()
                .and_then(|name| name.to_str())
                .context("a library has a name")?;
            let bytes = std::fs::read(&library)?;
            files.insert(format!("lib/{file}"), executable(bytes));
        }
        anyhow::ensure!(
            files.contains_key(LOADER),
            "no loader among {:?}",
            files.keys()
        );
        let own = format!("bin/{name}");
        files.insert(own.clone(), executable(std::fs::read(program)?));
        let begin = ["--library-path", "/app/lib"].map(str::to_owned);
        Ok(Self {
            files,
            entry: LOADER.to_owned(),
            args: begin
                .into_iter()
                .chain([format!("/app/{own}")])
                .chain(args.iter().map(|word| (*word).to_owned()))
                .collect(),
            identity: None,
            host_libraries: false,
            resources: Resources::default(),
        })
    }

    /// A script with the interpreter that runs it, which takes its libraries from the machine.
    pub fn python(script: &str) -> anyhow::Result<Self> {
        let interpreter = std::fs::canonicalize("/usr/bin/python3").context("package python3")?;
        let entry = "bin/python3".to_owned();
        let program = Self {
            files: BTreeMap::from([(entry.clone(), executable(std::fs::read(interpreter)?))]),
            entry,
            args: ["-I", "-S", "/app/main.py"].map(str::to_owned).into(),
            identity: None,
            host_libraries: true,
            resources: Resources::default(),
        };
        Ok(program.with_file("main.py", script.as_bytes()))
    }

    /// With one more file, which is no program.
    #[must_use]
    pub fn with_file(mut self, path: &str, bytes: &[u8]) -> Self {
        let content = Content::File {
            bytes: bytes.to_vec(),
            executable: false,
        };
        self.files.insert(path.to_owned(), content);
        self
    }

    #[must_use]
    pub fn with_link(mut self, path: &str, target: &str) -> Self {
        self.files
            .insert(path.to_owned(), Content::Link(target.to_owned()));
        self
    }

    #[must_use]
    pub fn with_identity(mut self, path: &str) -> Self {
        self.identity = Some(path.to_owned());
        self
    }

    /// Writes its files below a folder, as a publisher has them before signing.
    pub fn write_to(&self, folder: &Path) -> anyhow::Result<()> {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        for (path, content) in &self.files {
            let at = folder.join(path);
            std::fs::create_dir_all(at.parent().context("below the folder")?)?;
            match content {
                Content::Link(target) => symlink(target, &at)?,
                Content::File { bytes, executable } => {
                    std::fs::write(&at, bytes)?;
                    let mode = if *executable { 0o755 } else { 0o644 };
                    std::fs::set_permissions(&at, std::fs::Permissions::from_mode(mode))?;
                }
            }
        }
        Ok(())
    }
}

fn executable(bytes: Vec<u8>) -> Content {
    Content::File {
        bytes,
        executable: true,
    }
}

/// What the loader would map for a program, the loader among it.
fn libraries(program: &str) -> anyhow::Result<Vec<String>> {
    let listed = run(Command::new("ldd").arg(program))?;
    Ok(listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(str::to_owned)
        .collect())
}
