//! The I/O around the cores: a TUN device and one UDP port, each with one thread per direction.

pub mod demux;
pub mod udp;
