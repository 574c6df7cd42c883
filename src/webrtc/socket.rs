//! The one UDP socket of all sessions, how its addresses relate to what peers are told, and the TCP port beside it.

use crate::webrtc::{Config, TransportAddress, tcp};
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// The port of `webrtc.udp_bind = "auto"`.
const DEFAULT_PORT: u16 = 8189;
/// Kernel buffers: 50 publishers' keyframes at once, and a loop that was away for some milliseconds.
const KERNEL_BUFFER: usize = 4 << 20;
/// The largest datagram that makes sense on an Internet path.
pub(super) const MAX_DATAGRAM: usize = 2048;
/// Numbers that are tried where any will do: each is free for TCP, unless somebody else is about to fill them up.
const OTHER_PORTS: u32 = 64;
/// A datagram that waited for longer did so only by the wall clock, which was set.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Which addresses peers are told, and the ones of this machine behind them.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    /// (advertised to peers, ours if it differs or is known)
    pairs: Vec<(SocketAddr, Option<IpAddr>)>,
}

impl Addresses {
    /// From `webrtc.advertise` and, if the socket listens everywhere, this machine's interfaces.
    pub fn new(bound: SocketAddr, advertise: &[String]) -> io::Result<Self> {
        let mut pairs: Vec<(SocketAddr, Option<IpAddr>)> = Vec::new();
        let parse = |text: &str| text.trim().parse::<IpAddr>().map_err(io::Error::other);
        for entry in advertise {
            let (private, public) = match entry.split_once('=') {
                Some((private, public)) => (Some(parse(private)?), parse(public)?),
                None => (None, parse(entry)?),
            };
            pairs.push((SocketAddr::new(public, bound.port()), private));
        }
        let own: Vec<IpAddr> = if bound.ip().is_unspecified() {
            let usable = |ip: &IpAddr| match ip {
                IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
                IpAddr::V6(ip) => bound.is_ipv6() && !ip.is_loopback() && !ip.is_unicast_link_local(),
            };
            let found: Vec<_> = if_addrs::get_if_addrs()?.iter().map(if_addrs::Interface::ip).collect();
            let mut usable: Vec<_> = found.into_iter().filter(usable).collect();
            if usable.is_empty() {
                usable.push(Ipv4Addr::LOCALHOST.into());
            }
            usable
        } else {
            vec![bound.ip()]
        };
        for ip in own {
            let hidden =
                pairs.iter().any(|(advertised, private)| advertised.ip() == ip || *private == Some(ip));
            if !hidden {
                pairs.push((SocketAddr::new(ip, bound.port()), Some(ip)));
            }
        }
        Ok(Self { pairs })
    }

    /// What peers are told, best first.
    pub fn advertised(&self) -> Vec<SocketAddr> {
        self.pairs.iter().map(|(advertised, _)| *advertised).collect()
    }

    /// The candidate that a datagram to `destination` was meant for, or a connection was made to.
    pub fn candidate(&self, destination: Option<IpAddr>, source: SocketAddr) -> Option<SocketAddr> {
        let known = destination.and_then(|ip| {
            self.pairs
                .iter()
                .find(|(advertised, ours)| *ours == Some(ip) || (ours.is_none() && advertised.ip() == ip))
        });
        known
            // Behind a NAT whose inside address `webrtc.advertise` doesn't tell.
            .or_else(|| {
                self.pairs
                    .iter()
                    .find(|(advertised, ours)| ours.is_none() && advertised.is_ipv4() == source.is_ipv4())
            })
            .or_else(|| self.pairs.iter().find(|(advertised, _)| advertised.is_ipv4() == source.is_ipv4()))
            .map(|(advertised, _)| *advertised)
    }

    /// Our own address behind a candidate; `None` leaves the choice to the kernel.
    fn own(&self, candidate: SocketAddr) -> Option<IpAddr> {
        self.pairs.iter().find(|(advertised, _)| *advertised == candidate).and_then(|(_, ours)| *ours)
    }
}

/// A datagram, with the candidate it was sent to, and when it was here.
pub(super) struct Datagram<'a> {
    pub arrived: Instant,
    pub from: TransportAddress,
    pub to: SocketAddr,
    pub data: &'a mut [u8],
}

pub(super) struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
    pub addresses: Addresses,
    is_v6: bool,
    /// What is received, [`BATCH_SIZE`] datagrams or more of them that the kernel has put together, `stride` bytes each.
    buffers: Vec<u8>,
    stride: usize,
    meta: [RecvMeta; BATCH_SIZE],
}

impl Socket {
    /// To be called in the runtime of its loop.
    pub fn new(socket: std::net::UdpSocket, addresses: Addresses) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        enlarge(&socket, &state);
        // Were it a power of two, the beginnings of all buffers would share a few lines of the cache.
        let stride = MAX_DATAGRAM * state.gro_segments().max(1) + MAX_DATAGRAM + 64;
        Ok(Self {
            addresses,
            is_v6: socket.local_addr()?.is_ipv6(),
            buffers: vec![0; BATCH_SIZE * stride],
            stride,
            meta: [RecvMeta::default(); BATCH_SIZE],
            socket: UdpSocket::from_std(socket)?,
            state,
        })
    }

    /// Resolves when there is something to receive.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Receives one batch at `now` and hands out its datagrams; false when nothing is left.
    pub fn receive(&mut self, now: Instant, mut give: impl FnMut(Datagram<'_>)) -> io::Result<bool> {
        let Self { socket, state, addresses, buffers, stride, meta, .. } = self;
        let received = socket.try_io(Interest::READABLE, || {
            let mut chunks = buffers.chunks_exact_mut(*stride);
            let mut slices: [_; BATCH_SIZE] =
                std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
            state.recv((&*socket).into(), &mut slices, meta)
        });
        let count = match received {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for (meta, buffer) in meta.iter().zip(buffers.chunks_exact_mut(*stride)).take(count) {
            let from = unmap(meta.addr);
            let destination = meta.dst_ip.map(|ip| unmap(SocketAddr::new(ip, 0)).ip());
            let Some(to) = addresses.candidate(destination, from) else { continue };
            let from = TransportAddress::udp(from);
            // However long the loop was away, what counts for the sender is when its packets were here.
            let waited = meta.timestamp.map_or(Duration::ZERO, |at| wall.saturating_sub(at)).min(MAX_WAIT);
            let arrived = now.checked_sub(waited).unwrap_or(now);
            for data in buffer[..meta.len].chunks_mut(meta.stride.max(1)) {
                give(Datagram { arrived, from, to, data });
            }
        }
        Ok(count == BATCH_SIZE)
    }

    /// Sends one datagram from a candidate. A full kernel buffer loses it, as the network may.
    pub fn send(&self, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        let destination = if self.is_v6 { map(to) } else { to };
        let src_ip =
            self.addresses.own(from).map(|ip| if self.is_v6 { map(SocketAddr::new(ip, 0)).ip() } else { ip });
        let transmit = Transmit { destination, ecn: None, contents: data, segment_size: None, src_ip };
        // Past the runtime, which would remember that the buffer was full until it is next asked.
        if let Err(error) = self.state.try_send((&self.socket).into(), &transmit) {
            tracing::debug!(%error, %to, "a datagram is not sent");
        }
    }
}

/// Asks for large kernel buffers, past the system's limit if we may. Fewer than asked for is what an
/// unprivileged process gets; that is no reason to stop.
fn enlarge(socket: &std::net::UdpSocket, state: &UdpSocketState) {
    use rustix::net::sockopt::{set_socket_recv_buffer_size_force, socket_recv_buffer_size};
    if set_socket_recv_buffer_size_force(socket, KERNEL_BUFFER).is_err() {
        let _ = state.set_recv_buffer_size(socket.into(), KERNEL_BUFFER);
    }
    let _ = state.set_send_buffer_size(socket.into(), KERNEL_BUFFER);
    // The kernel gives twice what is asked for, to account for its own overhead.
    let got = socket_recv_buffer_size(socket).unwrap_or_default();
    if got < KERNEL_BUFFER {
        tracing::warn!(
            bytes = got,
            wanted = KERNEL_BUFFER,
            "the media socket's buffer is small: bursts of many publishers may lose packets; raise net.core.rmem_max"
        );
    }
}

/// Opens the first address of `webrtc.udp_bind` that can be had.
fn open_any(config: &Config, local_only: bool) -> io::Result<socket2::Socket> {
    match config.udp_bind.as_str() {
        "auto" if local_only => open((Ipv4Addr::LOCALHOST, DEFAULT_PORT).into()),
        // A machine without IPv6 has no dual-stack sockets.
        "auto" => open((Ipv6Addr::UNSPECIFIED, DEFAULT_PORT).into())
            .or_else(|_| open((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT).into())),
        address => open(address.parse().map_err(io::Error::other)?),
    }
}

/// Opens the UDP socket, and the TCP port of the same number if `webrtc.tcp` says so; `local_only` is what `auto`
/// means. Where any number will do, one is taken that is free for both.
pub(super) fn open_both(
    config: &Config,
    local_only: bool,
) -> io::Result<(std::net::UdpSocket, Option<TcpListener>)> {
    let any_port = config.udp_bind.parse::<SocketAddr>().is_ok_and(|address| address.port() == 0);
    let mut others = if any_port { OTHER_PORTS } else { 0 };
    loop {
        let socket: std::net::UdpSocket = open_any(config, local_only)?.into();
        if !config.tcp {
            return Ok((socket, None));
        }
        let address = socket.local_addr()?;
        match tcp::listen(address) {
            Ok(listener) => return Ok((socket, Some(listener))),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && others > 0 => others -= 1,
            Err(error) => {
                let port = address.port();
                let said = format!("TCP port {port}, which webrtc.tcp = false does without: {error}");
                return Err(io::Error::new(error.kind(), said));
            }
        }
    }
}

/// Opens the same port once more, for another loop.
pub(super) fn open_another(first: &std::net::UdpSocket) -> io::Result<std::net::UdpSocket> {
    // Not before it is bound: another server's port must be in use, not shared.
    rustix::net::sockopt::set_socket_reuseport(first, true)?;
    let address = first.local_addr()?;
    let socket = new_socket(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// The same sockets to be waited on, with what peers would be told: to be tried and closed again.
pub(super) fn open_blocking(
    config: &Config,
    local_only: bool,
) -> io::Result<(std::net::UdpSocket, Option<TcpListener>, Addresses)> {
    let (socket, listener) = open_both(config, local_only)?;
    socket.set_nonblocking(false)?;
    let addresses = Addresses::new(socket.local_addr()?, &config.advertise)?;
    Ok((socket, listener, addresses))
}

fn open(address: SocketAddr) -> io::Result<socket2::Socket> {
    let socket = new_socket(address)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn new_socket(address: SocketAddr) -> io::Result<socket2::Socket> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// An IPv4 address that a dual-stack socket shows as IPv6.
pub(super) fn unmap(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn map(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        v6 => v6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_told_to_belong_to_the_candidate_its_sender_was_given() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let peer = address("198.51.100.9:1000");
        let mapped = Addresses::new(address("10.0.0.5:8189"), &["10.0.0.5=203.0.113.7".to_owned()]).unwrap();
        assert_eq!(mapped.advertised(), [address("203.0.113.7:8189")], "the private address is not told");
        assert_eq!(mapped.candidate(ip("10.0.0.5"), peer), Some(address("203.0.113.7:8189")));
        assert_eq!(mapped.own(address("203.0.113.7:8189")), ip("10.0.0.5"));
        let plain = Addresses::new(address("10.0.0.5:8189"), &["203.0.113.7".to_owned()]).unwrap();
        assert_eq!(plain.advertised(), [address("203.0.113.7:8189"), address("10.0.0.5:8189")]);
        assert_eq!(plain.candidate(ip("172.17.0.2"), peer), Some(address("203.0.113.7:8189")));
        assert_eq!(plain.candidate(ip("10.0.0.5"), peer), Some(address("10.0.0.5:8189")));
        assert_eq!(plain.own(address("203.0.113.7:8189")), None);
        assert!(Addresses::new(address("10.0.0.5:8189"), &["example.org".to_owned()]).is_err());
    }
}
