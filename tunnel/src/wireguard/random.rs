//! Randomness is handed in; the engine never fetches it.

/// Randomness, handed in by the shell. An error refuses what needed it.
pub trait Random: Send + Sync {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoRandomness>;
}

/// The source of randomness failed. Our fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no randomness")]
pub struct NoRandomness;
