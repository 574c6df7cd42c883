//! Where something is sent to, and by what.

use rtc::shared::TransportProtocol;
use std::fmt;
use std::net::SocketAddr;

/// What carries datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// As they are.
    Udp,
    /// Framed (RFC 4571), over a connection that the peer has made (RFC 6544).
    Tcp,
}

impl From<TransportProtocol> for Protocol {
    fn from(protocol: TransportProtocol) -> Self {
        match protocol {
            TransportProtocol::TCP => Self::Tcp,
            _ => Self::Udp,
        }
    }
}

impl From<Protocol> for TransportProtocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Udp => Self::UDP,
            Protocol::Tcp => Self::TCP,
        }
    }
}

/// An IP address and a port with the protocol that they are of (RFC 8445 section 4): the same numbers of the other
/// protocol are another place, maybe another peer's.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransportAddress {
    /// What gets there.
    pub protocol: Protocol,
    /// IP address and port.
    pub address: SocketAddr,
}

impl TransportAddress {
    /// Of a UDP socket.
    pub const fn udp(address: SocketAddr) -> Self {
        Self { protocol: Protocol::Udp, address }
    }

    /// Of an end of a TCP connection.
    pub const fn tcp(address: SocketAddr) -> Self {
        Self { protocol: Protocol::Tcp, address }
    }
}

impl fmt::Display for TransportAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Udp => "udp",
            Protocol::Tcp => "tcp",
        };
        write!(f, "{protocol} {}", self.address)
    }
}

impl fmt::Debug for TransportAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
