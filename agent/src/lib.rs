//! Edgeward agent.
