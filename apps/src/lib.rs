//! Signed applications: what a release is, who says so, and whether it may run here.
//!
//! A publisher signs manifests offline, within what the offline image role gives it; the cloud's director says which
//! node gets which; the policy says whose apps and which versions run where. [`admit::admit`] is where all of them must
//! agree, and the one maker of an [`admit::Installable`]. No I/O happens here: bytes come in, whoever carried them.

pub mod admit;
pub mod advice;
pub mod author;
pub mod chunk;
pub mod cosign;
pub mod digest;
pub mod director;
pub mod image;
pub mod manifest;
pub mod name;
pub mod oci;
pub mod path;
pub mod provider;
pub mod strict;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod unpack;
#[cfg(test)]
mod vectors;

pub use admit::{AppFloors, AppRules, Installable, Mode, NotAdmitted, admit};
pub use digest::Digest;
pub use director::{Agreed, Director, Orders};
pub use image::{Image, ImageFloors, PublisherKeys, Refresh, Release};
pub use manifest::Manifest;
pub use name::{AppName, PublisherName, Version};
pub use path::AppPath;
