//! Logs made to order, and logs of real machines.

mod vectors;
