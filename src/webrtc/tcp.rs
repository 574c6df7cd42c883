//! ICE-TCP (RFC 6544): connections of peers whose network lets no UDP through, on the media socket's port number.
//! The peers make them, none is made from here.
//!
//! A connection carries, framed, what would be datagrams (RFC 4571). It has a task that reads and writes, on a
//! thread beside the engine's, which sleeps while media flows. Readers wait where the engine is slow, so that TCP
//! makes the peer wait; the engine waits for no peer: who doesn't take what it sends is cut.
//!
//! Anybody can connect. A connection begins with a STUN request for a session that there is, has some seconds and
//! frames for one that only the session's peer could have signed, and lasts as long as the session from then on. Of it
//! are kept a frame that isn't whole and what was read behind it, [`OUTGOING`] frames, and what the kernel may have.

pub(crate) mod framing;
#[cfg(test)]
mod tests;

use crate::base::metrics::{Open, metrics};
use crate::base::quota::{ClientKey, Limit, Permit, Quota};
use crate::webrtc::loops::Directory;
use crate::webrtc::socket::{Addresses, unmap};
use crate::webrtc::{TransportAddress, with_runtime};
use bytes::{BufMut, Bytes, BytesMut};
use framing::Deframer;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A connection must have shown by then whose it is. ICE sends its first check as soon as it is connected.
const AUTHENTICATION: Duration = Duration::from_secs(5);
/// So many frames may come until then: the checks of a slow handshake, each repeated.
const UNAUTHENTICATED_FRAMES: u32 = 64;
/// Those that haven't: in all,
const MAX_UNAUTHENTICATED: Limit = Limit("ICE-TCP connections that have yet to authenticate", 512);
/// and of one client. Behind one address may be a whole office, whose browsers each open a few at once.
const MAX_UNAUTHENTICATED_EACH: Limit =
    Limit("ICE-TCP connections of one client that have yet to authenticate", 64);
/// A session has few; this is about the server's files.
const MAX_CONNECTIONS: Limit = Limit("ICE-TCP connections", 4096);
/// Frames to a peer that may wait: seconds of feedback, or a whole flight of DTLS. When it is full, the peer is cut.
const OUTGOING: usize = 64;
/// A peer that takes nothing for so long has vanished.
const WRITE: Duration = Duration::from_secs(5);
/// How long the peer may take to close a connection whose session is over.
const LINGER: Duration = Duration::from_secs(1);
/// Frames of all peers that may wait for the engine; readers wait when it is full. More than comes of fifty
/// publishers while it rests.
const ARRIVALS: usize = 1024;
/// What is read at once: some packets of a picture.
const READ: usize = 8 << 10;
/// Of the kernel's buffers for each connection: a second of good video, and what is sent to a publisher.
const KERNEL_RECEIVE_BUFFER: usize = 256 << 10;
const KERNEL_SEND_BUFFER: usize = 64 << 10;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// Where none can be accepted, most likely for want of files, trying again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Its first frame is no STUN request for a session that there is.
    Unknown,
    /// It hasn't shown in time that it is the peer's.
    Unauthenticated,
    /// An empty frame, or one that no datagram is as long as.
    BadFrame,
    /// It doesn't take what is sent.
    Slow,
    /// Its session has many others that spoke later.
    Crowded,
    /// There is another one from the same address.
    Replaced,
}

impl Cut {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Unauthenticated => "unauthenticated",
            Self::BadFrame => "bad_frame",
            Self::Slow => "slow",
            Self::Crowded => "crowded",
            Self::Replaced => "replaced",
        }
    }
}

/// What comes of connections, or from another loop.
pub(super) enum Arrival {
    Frame(Frame),
    /// The connection from this address is closed; nothing of it follows.
    Closed(SocketAddr),
}

/// What would be a datagram, or was one that came to another loop.
pub(super) struct Frame {
    /// When the reader had it.
    pub arrived: Instant,
    pub from: TransportAddress,
    /// The candidate that it was sent, or the connection made to.
    pub to: SocketAddr,
    /// It is a connection's first.
    pub is_first: bool,
    /// The loop that it came to.
    pub came_to: usize,
    pub data: BytesMut,
}

/// Where a connection's reader hands over what comes: to one of the loops, and that to the one whose it is.
#[derive(Clone)]
struct Inbox {
    arrivals: mpsc::Sender<Arrival>,
    at: usize,
}

impl Inbox {
    /// Waits while the loop has as much as it may; whether it is still there.
    async fn hand_over(&self, arrival: Arrival) -> bool {
        self.arrivals.send(arrival).await.is_ok()
    }
}

/// The open connections, each by the address that it comes from. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Connections {
    /// The standard hasher: strangers choose their ports.
    open: Arc<Mutex<HashMap<SocketAddr, Connection>>>,
}

struct Connection {
    shared: Arc<Shared>,
    /// Dropped when its session ends: what is in it is still sent.
    outgoing: mpsc::Sender<Bytes>,
}

/// What a connection's task and those who have to do with it know of each other.
struct Shared {
    /// Never used twice.
    number: u64,
    authenticated: AtomicBool,
    /// Its share of those that haven't authenticated.
    pending: Mutex<Option<Permit>>,
    cut: OnceLock<Cut>,
    stop: CancellationToken,
    /// The engine has been told that it is closed.
    over: CancellationToken,
}

impl Shared {
    fn cut(&self, why: Cut) {
        let _ = self.cut.set(why);
        self.stop.cancel();
    }
}

impl Connections {
    /// Sends one datagram over the connection to this address. If there is none, it is lost; so is a peer that
    /// has left as many as may wait.
    pub fn send(&self, to: SocketAddr, data: &[u8]) {
        let Ok(length) = u16::try_from(data.len()) else { return };
        let open = self.open.lock();
        let Some(connection) = open.get(&to) else { return };
        // One piece, so that it goes out as one segment.
        let mut frame = BytesMut::with_capacity(2 + data.len());
        frame.put_u16(length);
        frame.put_slice(data);
        if let Err(mpsc::error::TrySendError::Full(_)) = connection.outgoing.try_send(frame.freeze()) {
            connection.shared.cut(Cut::Slow);
        }
    }

    /// The connection from this address is a session's peer's.
    pub fn authenticated(&self, from: SocketAddr) {
        if let Some(connection) = self.open.lock().get(&from) {
            connection.shared.authenticated.store(true, Ordering::Relaxed);
            connection.shared.pending.lock().take();
        }
    }

    /// Ends the connection once all is sent that waits for it.
    pub fn close(&self, from: SocketAddr) {
        self.open.lock().remove(&from);
    }

    pub fn cut(&self, from: SocketAddr, why: Cut) {
        if let Some(connection) = self.open.lock().get(&from) {
            connection.shared.cut(why);
        }
    }

    /// Gives the one that was there before.
    fn insert(&self, from: SocketAddr, connection: Connection) -> Option<Arc<Shared>> {
        self.open.lock().insert(from, connection).map(|before| before.shared)
    }

    fn remove(&self, from: SocketAddr, number: u64) {
        let mut open = self.open.lock();
        if open.get(&from).is_some_and(|connection| connection.shared.number == number) {
            open.remove(&from);
        }
    }
}

/// Where a loop takes what comes of connections and from other loops.
pub(super) fn arrivals() -> (mpsc::Sender<Arrival>, mpsc::Receiver<Arrival>) {
    mpsc::channel(ARRIVALS)
}

/// Takes connections on a thread of its own, which ends when nobody receives the arrivals of the first loop any more.
/// The loops take turns. `alive` goes with the thread.
pub(super) fn start(
    listener: std::net::TcpListener,
    addresses: Addresses,
    loops: Arc<[mpsc::Sender<Arrival>]>,
    directory: Arc<Directory>,
    alive: impl Send + 'static,
) -> io::Result<Connections> {
    let (runtime, listener) = with_runtime(|| TcpListener::from_std(listener))?;
    let connections = Connections::default();
    let acceptor = Acceptor::new(addresses, connections.clone(), loops, directory);
    std::thread::Builder::new().name("webrtc-tcp".to_owned()).spawn(move || {
        let _alive = alive;
        runtime.block_on(acceptor.run(listener));
    })?;
    Ok(connections)
}

/// Listens on this address, an IPv6 one for IPv4 too.
pub(super) fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Connections of the server before may still be about to close.
    socket.set_reuse_address(true)?;
    // Connections have what their listener has; the window is agreed on before they are accepted.
    socket.set_recv_buffer_size(KERNEL_RECEIVE_BUFFER)?;
    socket.set_send_buffer_size(KERNEL_SEND_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

struct Acceptor {
    addresses: Addresses,
    connections: Connections,
    loops: Arc<[mpsc::Sender<Arrival>]>,
    directory: Arc<Directory>,
    numbers: AtomicU64,
    all: Quota,
    unauthenticated: Quota,
}

impl Acceptor {
    fn new(
        addresses: Addresses,
        connections: Connections,
        loops: Arc<[mpsc::Sender<Arrival>]>,
        directory: Arc<Directory>,
    ) -> Self {
        Self {
            addresses,
            connections,
            loops,
            directory,
            numbers: AtomicU64::new(0),
            all: Quota::new(MAX_CONNECTIONS, Limit("", 0)),
            unauthenticated: Quota::new(MAX_UNAUTHENTICATED, MAX_UNAUTHENTICATED_EACH),
        }
    }

    /// Takes connections as long as the engine is there.
    async fn run(self, listener: TcpListener) {
        loop {
            tokio::select! {
                () = self.loops[0].closed() => return,
                accepted = listener.accept() => match accepted {
                    Ok((stream, from)) => self.take(stream, unmap(from)),
                    Err(error) => {
                        tracing::warn!(%error, "accepting an ICE-TCP connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    /// Gives the connection a task; beyond a limit it is closed.
    fn take(&self, stream: TcpStream, from: SocketAddr) {
        let local = stream.local_addr().ok().map(|local| unmap(local).ip());
        let Some(to) = self.addresses.candidate(local, from) else { return };
        let (Ok(permit), Ok(pending)) =
            (self.all.enter(None), self.unauthenticated.enter(ClientKey::of(from.ip())))
        else {
            return;
        };
        // Feedback is small, and of use only at once.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let at = number as usize % self.directory.active().max(1);
        let inbox = Inbox { arrivals: self.loops[at].clone(), at };
        let shared = Arc::new(Shared {
            number,
            authenticated: AtomicBool::new(false),
            pending: Mutex::new(Some(pending)),
            cut: OnceLock::new(),
            stop: CancellationToken::new(),
            over: CancellationToken::new(),
        });
        let (outgoing, queue) = mpsc::channel(OUTGOING);
        let before = self.connections.insert(from, Connection { shared: shared.clone(), outgoing });
        let task = Task { from, to, shared, connections: self.connections.clone(), inbox };
        tokio::spawn(async move {
            let _held = (permit, Open::media_connection());
            task.run(stream, queue, before).await;
        });
    }
}

struct Task {
    from: SocketAddr,
    to: SocketAddr,
    shared: Arc<Shared>,
    connections: Connections,
    inbox: Inbox,
}

impl Task {
    /// Reads and writes until either ends, and tells the engine.
    async fn run(self, mut stream: TcpStream, queue: mpsc::Receiver<Bytes>, before: Option<Arc<Shared>>) {
        if let Some(before) = before {
            // The engine must not take its end for this one's.
            before.cut(Cut::Replaced);
            before.over.cancelled().await;
        }
        let (reader, writer) = stream.split();
        let ended = tokio::select! {
            () = self.shared.stop.cancelled() => self.shared.cut.get().copied().map_or(Ok(()), Err),
            ended = self.read(reader) => ended,
            ended = write(writer, queue) => ended,
            cut = self.unauthenticated() => Err(cut),
        };
        drop(stream);
        if let Err(cut) = ended {
            metrics().port.connections_cut.inc([cut.as_str()]);
            tracing::debug!(from = %self.from, why = cut.as_str(), "an ICE-TCP connection is cut");
        }
        self.connections.remove(self.from, self.shared.number);
        self.inbox.hand_over(Arrival::Closed(self.from)).await;
        self.shared.over.cancel();
    }

    /// Resolves when the connection should have shown whose it is, and hasn't.
    async fn unauthenticated(&self) -> Cut {
        tokio::time::sleep(AUTHENTICATION).await;
        if self.shared.authenticated.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        Cut::Unauthenticated
    }

    /// Hands over frames until the peer closes the connection.
    async fn read(&self, mut reader: ReadHalf<'_>) -> Result<(), Cut> {
        let mut deframer = Deframer::default();
        let mut frames = 0_u32;
        loop {
            // An error is as good as the end: ICE finds another way.
            if reader.read_buf(deframer.space(READ)).await.unwrap_or(0) == 0 {
                return Ok(());
            }
            let arrived = Instant::now();
            while let Some(data) = deframer.next_frame()? {
                frames = frames.saturating_add(1);
                if frames > UNAUTHENTICATED_FRAMES && !self.shared.authenticated.load(Ordering::Relaxed) {
                    return Err(Cut::Unauthenticated);
                }
                let (from, is_first) = (TransportAddress::tcp(self.from), frames == 1);
                let frame = Frame { arrived, from, to: self.to, is_first, came_to: self.inbox.at, data };
                if !self.inbox.hand_over(Arrival::Frame(frame)).await {
                    return Ok(());
                }
            }
        }
    }
}

/// Writes until the session is over and all is sent.
async fn write(mut writer: WriteHalf<'_>, mut queue: mpsc::Receiver<Bytes>) -> Result<(), Cut> {
    while let Some(frame) = queue.recv().await {
        match tokio::time::timeout(WRITE, writer.write_all(&frame)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err(Cut::Slow),
        }
    }
    // Closed with something unread it would be reset, and what was sent might never arrive: what comes is read until
    // the peer closes it, too.
    if writer.shutdown().await.is_ok() {
        tokio::time::sleep(LINGER).await;
    }
    Ok(())
}
