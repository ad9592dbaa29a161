//! Edgeward ca.
