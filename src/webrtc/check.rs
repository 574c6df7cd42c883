//! Tries what publishers will depend on, for `onrecord check`: the addresses they are told, and the STUN
//! and TURN servers they are handed. Blocking.

use crate::webrtc::{Config, IceServer, socket};
use rtc::crypto::default_provider;
use rtc::sansio::Protocol;
use rtc::shared::{TransportContext, TransportMessage, TransportProtocol};
use rtc::turn::client::{Client, ClientConfig, Event};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// A server that needs longer costs every publisher as much.
const TIMEOUT: Duration = Duration::from_secs(3);
/// A datagram that this machine sends itself.
const ROUND_TRIP: Duration = Duration::from_millis(500);
/// Between two looks for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(5);

/// What a server of `webrtc.ice_servers` had to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// STUN: the address that it sees this machine at.
    Reflexive(SocketAddr),
    /// TURN: it took the credential and lent this address.
    Relayed(SocketAddr),
    /// It takes connections; more is not tried over TCP and TLS.
    Connected,
}

/// Asks one URL of a server as a browser would.
///
/// # Errors
///
/// What went wrong, as a sentence for the operator.
pub fn ask(server: &IceServer, url: &str) -> Result<Answer, String> {
    let (scheme, rest) = url.split_once(':').ok_or("it is no URL")?;
    let (host, query) = rest.split_once('?').unwrap_or((rest, ""));
    let tls = scheme.ends_with('s');
    let address = resolve(host, if tls { 5349 } else { 3478 })?;
    if tls || query == "transport=tcp" {
        let connected = TcpStream::connect_timeout(&address, TIMEOUT);
        return connected.map(|_| Answer::Connected).map_err(|error| error.to_string());
    }
    exchange(server, address, scheme == "turn").unwrap_or_else(|error| Err(error.to_string()))
}

/// Asks every URL of every server at the same time.
pub fn ask_all(servers: &[IceServer]) -> Vec<(&str, Result<Answer, String>)> {
    let urls = servers.iter().flat_map(|server| server.urls.iter().map(move |url| (server, url.as_str())));
    thread::scope(|scope| {
        let asked: Vec<_> = urls.map(|(server, url)| (url, scope.spawn(move || ask(server, url)))).collect();
        let lost = |_| Err("the check itself failed".to_owned());
        asked.into_iter().map(|(url, answer)| (url, answer.join().unwrap_or_else(lost))).collect()
    })
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr, String> {
    let has_port = host.rsplit_once(':').is_some_and(|(name, port)| {
        port.parse::<u16>().is_ok() && (name.ends_with(']') || !name.contains(':'))
    });
    let named = if has_port { host.to_owned() } else { format!("{host}:{port}") };
    let found: Vec<_> = named.to_socket_addrs().map_err(|error| format!("{host}: {error}"))?.collect();
    let address = found.iter().find(|address| address.is_ipv4()).or(found.first());
    address.copied().ok_or_else(|| format!("{host} has no address"))
}

/// The outer error is the socket's, the inner one the server's.
fn exchange(server: &IceServer, address: SocketAddr, relay: bool) -> io::Result<Result<Answer, String>> {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    let local_addr = socket.local_addr()?;
    let config = ClientConfig {
        stun_serv_addr: address.to_string(),
        turn_serv_addr: address.to_string(),
        local_addr,
        username: server.username.clone().unwrap_or_default(),
        password: server.credential.clone().unwrap_or_default(),
        ..ClientConfig::default()
    };
    let crypto = default_provider().map_err(io::Error::other)?;
    let mut client = Client::new(config, crypto).map_err(io::Error::other)?;
    let began = Instant::now();
    let sent = if relay { client.allocate(began) } else { client.send_binding_request(began) };
    sent.map_err(io::Error::other)?;
    let transport = TransportContext {
        local_addr,
        peer_addr: address,
        transport_protocol: TransportProtocol::UDP,
        ecn: None,
    };
    let mut buffer = [0; 2048];
    while began.elapsed() < TIMEOUT {
        while let Some(datagram) = client.poll_write() {
            socket.send(&datagram.message)?;
        }
        while let Some(event) = client.poll_event() {
            match event {
                Event::BindingResponse(_, address) => return Ok(Ok(Answer::Reflexive(address))),
                // The relay's own deadline frees it: nothing is refreshed.
                Event::AllocateResponse(_, address) => return Ok(Ok(Answer::Relayed(address))),
                Event::BindingError(_, error) | Event::AllocateError(_, error) => {
                    return Ok(Err(format!("it refuses: {error}")));
                }
                _ => {}
            }
        }
        let next = client.poll_timeout().map_or(TIMEOUT, |at| at.saturating_duration_since(Instant::now()));
        socket.set_read_timeout(Some(next.clamp(Duration::from_millis(1), TIMEOUT)))?;
        let now = match socket.recv(&mut buffer) {
            Ok(length) => {
                let (now, message) = (Instant::now(), buffer[..length].into());
                // What it can't read is as good as nothing.
                let _ = client.handle_read(TransportMessage { now, transport, message });
                now
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Instant::now()
            }
            Err(error) => return Err(error),
        };
        let _ = client.handle_timeout(now);
    }
    Ok(Err(format!("no answer within {} s: is it up, and does UDP get there and back?", TIMEOUT.as_secs())))
}

/// An address publishers would be told, and whether it leads here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// IP address and port.
    pub address: SocketAddr,
    /// A datagram that was sent to it from here arrives.
    pub udp: bool,
    /// A connection that was made to it from here arrives; `None` without `webrtc.tcp`.
    pub tcp: Option<bool>,
}

/// Tries the addresses publishers would be told. One that a router translates may only be reachable from outside.
///
/// # Errors
///
/// The media socket, or the TCP port beside it, can't be opened.
pub fn reach(config: &Config, local_only: bool) -> io::Result<Vec<Reached>> {
    let (media, listener, addresses) = socket::open_blocking(config, local_only)?;
    media.set_read_timeout(Some(ROUND_TRIP))?;
    let tried = addresses.advertised().into_iter().map(|advertised| {
        let tcp = listener.as_ref().map(|listener| connects(listener, advertised));
        let payload = format!("onrecord check {advertised}");
        let any = if advertised.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let sent =
            UdpSocket::bind(any).and_then(|sender| sender.send_to(payload.as_bytes(), advertised)).is_ok();
        Reached { address: advertised, udp: sent && arrives(&media, payload.as_bytes()), tcp }
    });
    Ok(tried.collect())
}

/// Whether a connection to this address is this listener's, and nobody else's.
fn connects(listener: &TcpListener, address: SocketAddr) -> bool {
    let Ok(connection) = TcpStream::connect_timeout(&address, ROUND_TRIP) else { return false };
    let Ok(local) = connection.local_addr() else { return false };
    let began = Instant::now();
    while began.elapsed() < ROUND_TRIP {
        match listener.accept() {
            Ok((_, from)) if socket::unmap(from) == local => return true,
            // A publisher of the server before may still be trying.
            Ok(_) => {}
            // The connection is made a moment before it can be accepted.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(ACCEPT_PAUSE),
            Err(_) => return false,
        }
    }
    false
}

fn arrives(media: &UdpSocket, payload: &[u8]) -> bool {
    let (began, mut buffer) = (Instant::now(), [0; 2048]);
    while began.elapsed() < ROUND_TRIP {
        match media.recv(&mut buffer) {
            Ok(length) if buffer[..length] == *payload => return true,
            // A publisher of the server before may still be sending.
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}
