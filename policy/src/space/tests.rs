mod asked;
mod differing;
mod locate;
mod proved;
mod worded;
mod world;

use crate::{CompiledPolicy, SourceFile};

fn policy(text: &str) -> CompiledPolicy {
    let files = [SourceFile::new("p.toml", text)];
    CompiledPolicy::compile(&files, 1).unwrap_or_else(|report| panic!("{report}"))
}
