//! What recording is compared with: a loop that only receives. All sessions are on one UDP socket and one
//! thread; offers come in as WHIP. What a session is made of, `bare_rtc` and `bare_str0m` say.
//!
//! It is as lean as such a loop can be: it sleeps until the socket can be read (or, if it is told so, for a
//! while), reads in batches until it would block, then takes what the sessions have to say, once each; timers
//! are looked at each 10 ms only.

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

/// How late a session may be told that its deadline has come.
const TICK: Duration = Duration::from_millis(10);

/// A peer that receives and throws away.
pub trait Session: Sized {
    /// Takes an offer; the session, and its answer with `local` as its only candidate.
    fn accept(offer: &str, local: SocketAddr, now: Instant) -> (Self, String);

    /// Takes a datagram from one address to another; what comes of it may wait for `drain`.
    fn receive(&mut self, now: Instant, path: (SocketAddr, SocketAddr), datagram: &[u8], send: Send<'_>);

    /// Its deadline has come.
    fn timeout(&mut self, now: Instant);

    /// Takes all that came of the above: frames and events are dropped. When it is to be woken next.
    fn drain(&mut self, now: Instant, send: Send<'_>) -> Instant;
}

/// Where datagrams go, each to its address.
pub type Send<'a> = &'a mut dyn FnMut(SocketAddr, &[u8]);

enum Request {
    Offer(String, SyncSender<(usize, String)>),
    Delete(usize),
}

/// Serves until it is killed; names its address on standard output. It sleeps for `rest` before it looks at its
/// socket again, as long as something comes.
pub fn serve<S: Session>(rest: Duration) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    let (requests, queue) = sync_channel(16);
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            // A client that hangs up has had all it wanted.
            let _ = answer_http(connection, &requests);
        }
    });
    Loop::<S>::bind().run(&queue, rest);
}

/// One request: an offer to POST, or the end of a session.
fn answer_http(mut connection: TcpStream, requests: &SyncSender<Request>) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
    if let Some(path) = head.strip_prefix("DELETE /session/") {
        let session = path.split_whitespace().next().and_then(|number| number.parse().ok());
        requests.send(Request::Delete(session.expect("a session's number"))).expect("the loop runs");
        return connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let length = head.to_ascii_lowercase().split_once("content-length:").map_or(0, |(_, rest)| {
        rest.split_whitespace().next().and_then(|length| length.parse().ok()).unwrap_or(0)
    });
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let (reply, answer) = sync_channel(1);
    let offer = String::from_utf8_lossy(&body).into_owned();
    requests.send(Request::Offer(offer, reply)).expect("the loop runs");
    let (session, sdp) = answer.recv().expect("the loop answers");
    write!(
        connection,
        "HTTP/1.1 201 Created\r\nLocation: /session/{session}\r\nETag: \"1\"\r\nConnection: close\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
        sdp.len()
    )
}

struct Loop<S> {
    poll: Poll,
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    /// By their numbers; none where one has ended.
    sessions: Vec<Option<Driven<S>>>,
    by_fragment: HashMap<String, usize>,
    by_address: HashMap<SocketAddr, usize>,
    /// Those that have taken something since they were drained last.
    touched: Vec<usize>,
}

struct Driven<S> {
    session: S,
    deadline: Instant,
    touched: bool,
}

impl<S: Session> Loop<S> {
    fn bind() -> Self {
        let mut socket = UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let poll = Poll::new().unwrap();
        poll.registry().register(&mut socket, Token(0), Interest::READABLE).unwrap();
        let state = UdpSocketState::new(UdpSockRef::from(&socket)).unwrap();
        // What the system gives; the drops are counted.
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&socket), 4 << 20);
        let local = socket.local_addr().unwrap();
        Self {
            poll,
            socket,
            state,
            local,
            sessions: Vec::new(),
            by_fragment: HashMap::new(),
            by_address: HashMap::new(),
            touched: Vec::new(),
        }
    }

    fn run(mut self, requests: &Receiver<Request>, rest: Duration) {
        let size = 1500 * self.state.gro_segments();
        let mut memory = vec![0u8; size * BATCH_SIZE];
        let mut next_tick = Instant::now() + TICK;
        let mut events = Events::with_capacity(1);
        let mut flows = false;
        loop {
            if flows && !rest.is_zero() {
                std::thread::sleep(rest);
            } else {
                let tick = next_tick.saturating_duration_since(Instant::now());
                self.poll.poll(&mut events, Some(tick)).unwrap();
            }
            let now = Instant::now();
            flows = self.receive(&mut memory, size, now);
            while let Some(index) = self.touched.pop() {
                self.drain(index, now);
            }
            if now >= next_tick {
                next_tick = now + TICK;
                self.wake_due(now);
                loop {
                    match requests.try_recv() {
                        Ok(request) => self.answer(request),
                        Err(TryRecvError::Empty) => break,
                        Err(TryRecvError::Disconnected) => return,
                    }
                }
            }
        }
    }

    fn answer(&mut self, request: Request) {
        match request {
            Request::Offer(offer, reply) => {
                let now = Instant::now();
                let (session, sdp) = S::accept(&offer, self.local, now);
                let fragment = sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).unwrap();
                let index = self.sessions.len();
                self.by_fragment.insert(fragment.to_owned(), index);
                self.sessions.push(Some(Driven { session, deadline: now, touched: false }));
                // Who asked may have hung up.
                let _ = reply.send((index, sdp));
            }
            Request::Delete(index) => {
                self.sessions[index] = None;
                self.by_fragment.retain(|_, other| *other != index);
                self.by_address.retain(|_, other| *other != index);
            }
        }
    }

    /// Takes what the socket has, until it would block; whether there was anything.
    fn receive(&mut self, memory: &mut [u8], size: usize, now: Instant) -> bool {
        let mut meta = [RecvMeta::default(); BATCH_SIZE];
        let mut any = false;
        loop {
            let mut buffers = memory.chunks_mut(size);
            let mut slices: [IoSliceMut; BATCH_SIZE] =
                std::array::from_fn(|_| IoSliceMut::new(buffers.next().expect("one for each")));
            let received = self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut meta);
            let Ok(count) = received else { return any };
            any = true;
            for (buffer, meta) in memory.chunks(size).zip(&meta[..count]) {
                for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
                    self.take(now, meta.addr, datagram);
                }
            }
        }
    }

    fn take(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let Some(index) = self.route(datagram, from) else { return };
        let Some(driven) = &mut self.sessions[index] else { return };
        let send = &mut sender(&self.socket, &self.state);
        driven.session.receive(now, (from, self.local), datagram, send);
        if !std::mem::replace(&mut driven.touched, true) {
            self.touched.push(index);
        }
    }

    /// STUN requests by user fragment, everything else by address.
    fn route(&mut self, datagram: &[u8], from: SocketAddr) -> Option<usize> {
        if let Some(fragment) = stun_fragment(datagram) {
            let index = *self.by_fragment.get(fragment)?;
            self.by_address.insert(from, index);
            return Some(index);
        }
        self.by_address.get(&from).copied()
    }

    fn wake_due(&mut self, now: Instant) {
        for index in 0..self.sessions.len() {
            if let Some(driven) = self.sessions[index].as_mut().filter(|driven| driven.deadline <= now) {
                driven.session.timeout(now);
                self.drain(index, now);
            }
        }
    }

    fn drain(&mut self, index: usize, now: Instant) {
        let Some(driven) = &mut self.sessions[index] else { return };
        driven.touched = false;
        driven.deadline = driven.session.drain(now, &mut sender(&self.socket, &self.state));
    }
}

fn sender(socket: &UdpSocket, state: &UdpSocketState) -> impl FnMut(SocketAddr, &[u8]) {
    move |destination, contents| {
        let transmit = Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None };
        // What the kernel doesn't take is lost, as on any network.
        let _ = state.try_send(UdpSockRef::from(socket), &transmit);
    }
}

/// The receiver's part of a STUN request's USERNAME (RFC 8489 section 14.3, RFC 8445 section 7.2.2).
fn stun_fragment(datagram: &[u8]) -> Option<&str> {
    if datagram.len() < 20 || datagram[..2] != [0, 1] {
        return None;
    }
    let mut at = 20;
    while at + 4 <= datagram.len() {
        let kind = u16::from_be_bytes([datagram[at], datagram[at + 1]]);
        let length = usize::from(u16::from_be_bytes([datagram[at + 2], datagram[at + 3]]));
        let value = datagram.get(at + 4..at + 4 + length)?;
        if kind == 6 {
            return std::str::from_utf8(value).ok()?.split(':').next();
        }
        at += 4 + length.next_multiple_of(4);
    }
    None
}
