//! Edgeward wire.
