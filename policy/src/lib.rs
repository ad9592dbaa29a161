//! Edgeward policy: files written by people become checked rules, rules become one slice per node, and a slice
//! becomes an engine that decides.
//!
//! [`check`](check()) and [`CompiledPolicy`] are for the cloud, [`Slice`] travels, [`Engine`] and [`filter`] are for the node.
//! No I/O: files come in as path and text, time is told, the fleet is handed in.

pub mod apps;
mod ast;
pub mod check;
pub mod compile;
pub mod decision;
pub mod device;
pub mod diagnostic;
pub mod digests;
pub mod edit;
pub mod engine;
pub mod filter;
pub mod fleet;
pub mod l7;
mod labels;
pub mod parse;
pub mod profile;
pub mod replay;
pub mod runs;
pub mod schema;
pub mod seconds;
pub mod slice;
pub mod source;
pub mod space;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod window;
pub mod workload;

pub use check::{Note, Opening, Report, Summary, check, check_at};
pub use compile::{ApprovalTerms, CompiledPolicy, FleetIndex};
pub use decision::{Decision, Link, Reason, Request, Standing, Subject, Target, Verdict};
pub use device::{Mac, Recognition, SliceDevice};
pub use diagnostic::{Code, Diagnostic};
pub use digests::{DigestList, FileHash, ListedDigest};
pub use engine::{Engine, EngineError, Opened, Place};
pub use fleet::{Fleet, FleetNode, Labels};
pub use l7::written::WrittenRequest;
pub use l7::{ActionSet, L7, L7Request};
pub use profile::{
    AppControl, ImaRequirement, Mode, PcrBank, Profile, ProfileLabel, StatedProfiles, Violations,
};
pub use runs::{AllWants, MetWants, Wants};
pub use schema::JSON_SCHEMA;
pub use seconds::Seconds;
pub use slice::{
    ActionId, Beyond, DeviceIndex, Effect, Egress, GroupId, InterfaceIndex, Lifetimes, PeerIndex,
    Proto, Roles, SeenDevice, Slice, SliceApproval, SliceBreakGlass, SliceError, SliceInterface,
    SlicePeer, SliceRoute,
};
pub use source::SourceFile;
pub use workload::{Pod, Selectors, Workload};
