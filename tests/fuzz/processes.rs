//! Targets for what the two processes read besides what their cores parse.

use std::cell::RefCell;
use std::fs;

use edgeward_agent::logs::{LogPaths, LogReader};
use edgeward_agent::workload::cgroup;
use edgeward_wire::v1;
use tempfile::TempDir;

thread_local! {
    static FOLDER: RefCell<TempDir> = RefCell::new(tempfile::tempdir().unwrap());
}

/// The list as the kernel would serve it, from its start and from the middle, by one reader that remembers.
pub fn ima_list(bytes: &[u8]) {
    FOLDER.with_borrow(|folder| {
        let paths = LogPaths {
            boot: folder.path().join("boot"),
            ima: folder.path().join("ima"),
        };
        fs::write(&paths.ima, bytes).unwrap();
        let reader = LogReader::new(paths);
        for ima_known in [0, 1, u64::MAX] {
            let wanted = v1::LogsWanted {
                ima: true,
                ima_known,
                ..v1::LogsWanted::default()
            };
            let part = reader.read(&wanted, None).ima.unwrap();
            assert!(part.entries.len() <= bytes.len());
        }
    });
}

pub fn cgroup(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop(cgroup::read(text));
    }
}

pub fn cgroups() -> Vec<Vec<u8>> {
    [
        "0::/system.slice/collector.service\n",
        "0::/kubepods.slice/kubepods-pod0ad1f5c2_1b2c_4d3e_8f90_a1b2c3d4e5f6.slice/cri-containerd-aa.scope\n",
        "1:name=systemd:/user.slice/user-1000.slice/session-2.scope\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
