//! Exceptions: how a server, and the gateway in its place, says that it does not do what is asked ("Modbus Application
//! Protocol Specification V1.1b3", section 7).

use super::pdu::EXCEPTION_BIT;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    IllegalFunction,
    IllegalAddress,
    IllegalValue,
    /// The server did not answer in time.
    NoAnswer,
}

impl Exception {
    pub fn code(self) -> u8 {
        match self {
            Self::IllegalFunction => 0x01,
            Self::IllegalAddress => 0x02,
            Self::IllegalValue => 0x03,
            Self::NoAnswer => 0x0b,
        }
    }

    /// The PDU that says so about a request of this function.
    pub fn pdu(self, function: u8) -> [u8; 2] {
        [function | EXCEPTION_BIT, self.code()]
    }
}
