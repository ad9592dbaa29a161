//! Edgeward runtime.
