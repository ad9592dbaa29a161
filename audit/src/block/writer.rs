//! Makes the parts of a block.

use edgeward_identity::Timestamp;

use super::BlockError;
use super::bodies::BodiesWriter;
use super::columns::ColumnsWriter;
use crate::record::SealedRecord;

/// Collects the events of one part, in the order of their leaves.
#[derive(Debug, Default)]
pub struct PartWriter {
    columns: ColumnsWriter,
    bodies: BodiesWriter,
}

/// The two halves of a part, each for [`super::Columns::parse`] and [`super::Bodies::parse`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedPart {
    pub columns: Vec<u8>,
    pub bodies: Vec<u8>,
}

impl PartWriter {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an event; refused if its place is not behind that of the one before. A part is of no use after a refusal.
    pub fn push(
        &mut self,
        place: u8,
        received: Timestamp,
        sealed: &SealedRecord,
    ) -> Result<(), BlockError> {
        self.columns.push(place, received, sealed)?;
        self.bodies.push(sealed);
        Ok(())
    }

    pub fn finish(self) -> Result<EncodedPart, BlockError> {
        Ok(EncodedPart {
            columns: self.columns.finish()?,
            bodies: self.bodies.finish()?,
        })
    }
}
