//! What is to be launched, as the agent says it.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Longest order, in bytes.
pub const MAX_ORDER_BYTES: usize = 64 * 1024;
/// Most arguments, and most variables.
const MAX_ITEMS: usize = 256;
/// Most folders in the state that are made beforehand.
const MAX_WRITABLE: usize = 16;
/// Where programs look for the address of the Workload API.
const WORKLOAD_VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";
/// Variables that change which code a program loads.
const LOADER_PREFIXES: [&str; 2] = ["LD_", "GLIBC_TUNABLES"];

/// A checked order.
#[derive(Clone, Debug)]
pub struct Order {
    /// Folder of the unpacked application, on the volume.
    pub tree: PathBuf,
    /// Program in it.
    pub program: PathBuf,
    pub digest: Digest,
    pub name: CString,
    pub args: Vec<CString>,
    pub env: Vec<CString>,
    pub uid: u32,
    pub gid: u32,
    pub cgroup: PathBuf,
    /// Folder that the application may write to.
    pub state: PathBuf,
    /// Folders in the state that are there when it starts.
    pub writable: Vec<PathBuf>,
    /// Whether the machine's own libraries are shown to it, read-only.
    pub host_libraries: bool,
    /// The socket at which it learns who it is. Its folder is shown: the socket in it may be made anew.
    pub workload: Option<PathBuf>,
    pub limits: Limits,
}

/// What an application may use at most. `None`: what the machine gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Of one processor, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u32>,
}

/// An order as it is said, unchecked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    pub tree: PathBuf,
    pub program: PathBuf,
    pub digest: Digest,
    #[serde(default)]
    pub args: Vec<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    pub uid: u32,
    pub gid: u32,
    pub cgroup: PathBuf,
    pub state: PathBuf,
    #[serde(default)]
    pub writable: Vec<PathBuf>,
    #[serde(default)]
    pub host_libraries: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<PathBuf>,
    #[serde(default)]
    pub limits: Limits,
}

#[derive(Debug, thiserror::Error)]
pub enum BadOrder {
    #[error("order is longer than the limit in bytes: {MAX_ORDER_BYTES}")]
    TooLong,
    #[error("order is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("path is not absolute, or leads upwards: {}", .0.display())]
    Path(PathBuf),
    #[error("program is not a path below the application: {}", .0.display())]
    Program(PathBuf),
    #[error("writable folder is not a path below the application's state: {}", .0.display())]
    Writable(PathBuf),
    #[error("applications do not run as root, nor in its group")]
    Root,
    #[error("a limit of zero starts nothing")]
    Limits,
    #[error("more arguments or variables than the limit: {MAX_ITEMS}")]
    TooMany,
    #[error("text holds a zero byte")]
    Zero,
    #[error("not a name of a variable: {0:?}")]
    Variable(String),
    #[error("variable would change which code is loaded: {0}")]
    Loader(String),
}

impl Order {
    pub fn parse(text: &[u8]) -> Result<Self, BadOrder> {
        if text.len() > MAX_ORDER_BYTES {
            return Err(BadOrder::TooLong);
        }
        serde_json::from_slice::<Written>(text)?.check()
    }
}

impl Written {
    /// The one maker of [`Order`].
    pub fn check(self) -> Result<Order, BadOrder> {
        let written = self;
        let folders = [&written.tree, &written.cgroup, &written.state];
        for path in folders.into_iter().chain(&written.workload) {
            if !path.is_absolute() || !is_plain(path) {
                return Err(BadOrder::Path(path.clone()));
            }
        }
        let program = &written.program;
        if !is_below(program) {
            return Err(BadOrder::Program(program.clone()));
        }
        // The highest numbers mean "no change" to the kernel.
        let good = |id: u32| id != 0 && id != u32::MAX;
        if !good(written.uid) || !good(written.gid) {
            return Err(BadOrder::Root);
        }
        if written.args.len() > MAX_ITEMS || written.env.len() > MAX_ITEMS {
            return Err(BadOrder::TooMany);
        }
        let name = format!("{}/{}", super::root::APP, program.display());
        if let Some(bad) = written.writable.iter().find(|path| !is_below(path)) {
            return Err(BadOrder::Writable(bad.clone()));
        }
        if written.writable.len() > MAX_WRITABLE {
            return Err(BadOrder::TooMany);
        }
        if written.limits.has_zero() {
            return Err(BadOrder::Limits);
        }
        let mut env = written
            .env
            .into_iter()
            .map(|(name, value)| variable(&name, &value))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(socket) = &written.workload {
            let name = socket.file_name().unwrap_or_default().to_string_lossy();
            let address = format!("unix://{}/{name}", super::root::RUN);
            env.push(variable(WORKLOAD_VARIABLE, &address)?);
        }
        Ok(Order {
            name: text_of(name)?,
            args: written
                .args
                .into_iter()
                .map(text_of)
                .collect::<Result<_, _>>()?,
            env,
            tree: written.tree,
            program: written.program,
            digest: written.digest,
            uid: written.uid,
            gid: written.gid,
            cgroup: written.cgroup,
            state: written.state,
            writable: written.writable,
            host_libraries: written.host_libraries,
            workload: written.workload,
            limits: written.limits,
        })
    }
}

impl Limits {
    fn has_zero(&self) -> bool {
        self.memory_bytes == Some(0) || self.cpu_percent == Some(0) || self.tasks == Some(0)
    }
}

/// A path that stays below whatever it is put to.
fn is_below(path: &Path) -> bool {
    path.is_relative() && is_plain(path) && path.file_name().is_some()
}

fn is_plain(path: &Path) -> bool {
    path.components()
        .all(|part| matches!(part, Component::Normal(_) | Component::RootDir))
}

fn variable(name: &str, value: &str) -> Result<CString, BadOrder> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(good)
    {
        return Err(BadOrder::Variable(name.to_owned()));
    }
    if LOADER_PREFIXES
        .iter()
        .any(|prefix| name.starts_with(prefix))
    {
        return Err(BadOrder::Loader(name.to_owned()));
    }
    text_of(format!("{name}={value}"))
}

fn text_of(text: String) -> Result<CString, BadOrder> {
    CString::new(text).map_err(|_| BadOrder::Zero)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn order() -> Value {
        json!({
            "tree": "/apps/acme/collector/2.3.0",
            "program": "bin/collector",
            "digest": "00".repeat(32),
            "args": ["--fast"],
            "env": { "LANG": "C" },
            "uid": 990,
            "gid": 990,
            "cgroup": "/sys/fs/cgroup/edgeward-apps/collector",
            "state": "/var/lib/edgeward-apps/collector",
        })
    }

    fn with(key: &str, value: Value) -> Result<Order, BadOrder> {
        let mut order = order();
        order[key] = value;
        Order::parse(order.to_string().as_bytes())
    }

    #[test]
    fn an_order_that_leads_out_of_its_folders_is_refused() {
        for path in ["bin/../../x", "/bin/sh", "..", ".", ""] {
            let refused = with("program", json!(path));
            assert!(matches!(refused, Err(BadOrder::Program(_))), "{path}");
        }
        for key in ["tree", "cgroup", "state"] {
            for path in ["apps", "/apps/../etc", ""] {
                assert!(
                    matches!(with(key, json!(path)), Err(BadOrder::Path(_))),
                    "{key} {path}"
                );
            }
        }
    }

    #[test]
    fn writable_folders_stay_below_the_state_and_limits_leave_something() {
        for path in ["/etc", "..", "data/../../x", ""] {
            let refused = with("writable", json!([path]));
            assert!(matches!(refused, Err(BadOrder::Writable(_))), "{path}");
        }
        let many = vec!["data"; MAX_WRITABLE + 1];
        assert!(matches!(
            with("writable", json!(many)),
            Err(BadOrder::TooMany)
        ));
        for limit in ["memory_bytes", "cpu_percent", "tasks"] {
            let refused = with("limits", json!({ limit: 0 }));
            assert!(matches!(refused, Err(BadOrder::Limits)), "{limit}");
            assert!(with("limits", json!({ limit: 1 })).is_ok(), "{limit}");
        }
        assert!(with("writable", json!(["data/cache"])).is_ok());
    }

    #[test]
    fn an_application_is_never_root() {
        for key in ["uid", "gid"] {
            for id in [0, u32::MAX] {
                assert!(
                    matches!(with(key, json!(id)), Err(BadOrder::Root)),
                    "{key} {id}"
                );
            }
        }
    }

    #[test]
    fn no_variable_reaches_the_loader() {
        for name in [
            "LD_PRELOAD",
            "LD_AUDIT",
            "LD_LIBRARY_PATH",
            "GLIBC_TUNABLES",
        ] {
            assert!(
                matches!(with("env", json!({ name: "x" })), Err(BadOrder::Loader(_))),
                "{name}"
            );
        }
        for name in ["", "A=B", "1A", "A\nB", "Ä"] {
            assert!(
                matches!(
                    with("env", json!({ name: "x" })),
                    Err(BadOrder::Variable(_))
                ),
                "{name}"
            );
        }
        assert!(matches!(
            with("env", json!({ "A": "\0" })),
            Err(BadOrder::Zero)
        ));
        assert!(matches!(with("args", json!(["\0"])), Err(BadOrder::Zero)));
    }

    #[test]
    fn an_order_has_its_limits_and_no_unknown_keys() {
        assert!(matches!(
            with("args", json!(vec!["a"; MAX_ITEMS + 1])),
            Err(BadOrder::TooMany)
        ));
        assert!(matches!(
            with("more", json!(1)),
            Err(BadOrder::Malformed(_))
        ));
        let long = vec![b' '; MAX_ORDER_BYTES + 1];
        assert!(matches!(Order::parse(&long), Err(BadOrder::TooLong)));
        let good = with("uid", json!(991)).unwrap();
        assert_eq!(good.name.to_str().unwrap(), "/app/bin/collector");
        assert_eq!(good.env, [CString::new("LANG=C").unwrap()]);
    }
}
