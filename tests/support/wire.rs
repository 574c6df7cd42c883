//! What carries a publisher's datagrams over a real network: a UDP socket, or a TCP connection (RFC 6544) that is
//! made when there is something to send.

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

/// One of the two.
pub enum Wire {
    Udp(UdpSocket),
    Tcp(Box<Connection>),
}

impl Wire {
    pub async fn udp() -> Self {
        Self::Udp(UdpSocket::bind("127.0.0.1:0").await.unwrap())
    }

    pub fn tcp() -> Self {
        Self::Tcp(Box::new(Connection::new()))
    }

    pub fn local_addr(&self) -> SocketAddr {
        match self {
            Self::Udp(socket) => socket.local_addr().unwrap(),
            Self::Tcp(connection) => connection.local,
        }
    }

    /// What the network doesn't take is lost, as on any.
    pub async fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        match self {
            Self::Udp(socket) => drop(socket.send_to(datagram, to).await),
            Self::Tcp(connection) => connection.send(to, datagram).await,
        }
    }

    /// The next datagram. Nothing is lost if this is given up.
    pub async fn receive(&mut self) -> io::Result<(Vec<u8>, SocketAddr)> {
        match self {
            Self::Udp(socket) => {
                let mut buffer = vec![0; 2048];
                let (length, from) = socket.recv_from(&mut buffer).await?;
                buffer.truncate(length);
                Ok((buffer, from))
            }
            Self::Tcp(connection) => connection.receive().await,
        }
    }
}

/// A connection, and the one that follows it once it is gone.
pub struct Connection {
    local: SocketAddr,
    /// Bound, for the first one: its address is told before anybody knows where it leads.
    socket: Option<TcpSocket>,
    stream: Option<TcpStream>,
    unread: Vec<u8>,
    /// What may not be sent before the server has checked the connection, which is what a client's own check
    /// asks it for.
    held: VecDeque<Vec<u8>>,
    checked: bool,
}

impl Connection {
    fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        Self {
            local: socket.local_addr().unwrap(),
            socket: Some(socket),
            stream: None,
            unread: Vec::new(),
            held: VecDeque::new(),
            checked: false,
        }
    }

    /// Closes it: what was sent arrives before the end does.
    pub async fn close(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            let _ = stream.shutdown().await;
        }
        self.forget();
    }

    /// Cuts it with a reset, so that what is under way is lost.
    pub fn reset(&mut self) {
        if let Some(stream) = self.stream.take() {
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        self.forget();
    }

    fn forget(&mut self) {
        self.stream = None;
        self.unread.clear();
        self.checked = false;
    }

    async fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        let is_stun = matches!(datagram, [0..=3, ..]);
        if self.stream.is_none() {
            if !is_stun {
                return self.held.push_back(datagram.to_vec());
            }
            let socket = self.socket.take().unwrap_or_else(|| TcpSocket::new_v4().unwrap());
            let Ok(stream) = socket.connect(to).await else { return };
            stream.set_nodelay(true).unwrap();
            self.stream = Some(stream);
        }
        if !self.checked && !is_stun {
            return self.held.push_back(datagram.to_vec());
        }
        self.write(datagram).await;
        if !self.checked && datagram.starts_with(&[1, 1]) {
            self.checked = true;
            for held in std::mem::take(&mut self.held) {
                self.write(&held).await;
            }
        }
    }

    async fn write(&mut self, datagram: &[u8]) {
        let Some(stream) = &mut self.stream else { return };
        if stream.write_all(&framed(datagram)).await.is_err() {
            self.forget();
        }
    }

    async fn receive(&mut self) -> io::Result<(Vec<u8>, SocketAddr)> {
        loop {
            let Some(stream) = &mut self.stream else { return pending().await };
            if let Some(frame) = unframed(&mut self.unread) {
                return Ok((frame, stream.peer_addr()?));
            }
            if stream.read_buf(&mut self.unread).await.unwrap_or(0) == 0 {
                self.forget();
            }
        }
    }
}

/// A datagram as it goes over a connection (RFC 4571).
pub fn framed(datagram: &[u8]) -> Vec<u8> {
    [&(datagram.len() as u16).to_be_bytes()[..], datagram].concat()
}

/// The next whole datagram of what has come over a connection.
fn unframed(unread: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes(*unread.first_chunk()?));
    let frame = unread.get(2..2 + length)?.to_vec();
    unread.drain(..2 + length);
    Some(frame)
}
