//! One libFuzzer binary for every target of the registry; `EDGEWARD_FUZZ_TARGET` names the one to run.
#![no_main]

#[path = "../targets.rs"]
mod targets;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let run = TARGET.get_or_init(|| {
        let name = std::env::var("EDGEWARD_FUZZ_TARGET").unwrap_or_default();
        match targets::TARGETS.iter().find(|target| target.name == name) {
            Some(target) => target.run,
            None => {
                let names: Vec<_> = targets::TARGETS.iter().map(|target| target.name).collect();
                panic!("EDGEWARD_FUZZ_TARGET must be one of {names:?}");
            }
        }
    });
    run(bytes);
});
