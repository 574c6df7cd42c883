//! Accepting connections: how many there may be, how long one may stay silent, and how much of a
//! WebSocket's message may be unfinished.

use crate::base::metrics::metrics;
use crate::base::quota::{ClientKey, Permit, Quota};
use crate::http::gate::forwarded::Site;
use axum::Extension;
use axum::middleware::AddExtension;
use axum_server::accept::Accept;
use futures_util::future::BoxFuture;
use socket2::SockRef;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tower_layer::Layer;

/// A connection that hasn't begun to speak one version of HTTP by then is closed. From there on HTTP has its own
/// deadline for a request's head, but to find this out it would wait for ever.
const FIRST_BYTES: Duration = Duration::from_secs(30);
/// What HTTP/2 begins with (RFC 9113 section 3.4); as long as what comes could still become this, the
/// version is unknown.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The answer to a connection over the limit; what it asks for is not read.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\n\
    Content-Type: application/json\r\nContent-Length: 100\r\n\r\n\
    {\"code\":\"limit_reached\",\"message\":\"the server has no place for another connection: try again later\"}";

/// Bytes of WebSocket messages that have begun to arrive and are not whole: each is kept until its end,
/// which may never come. Two hundred browsers that send a second of good video each have as much under way.
const UNFINISHED: usize = 128 << 20;
/// When there are more, a connection with more than this of them is cut, which is more than a second of any
/// browser's video.
const FAIR: usize = 2 << 20;

/// Accepts as `inner` does, within a quota.
#[derive(Clone, Debug)]
pub(in crate::http) struct LimitedAcceptor<A> {
    inner: A,
    quota: Quota,
    site: Site,
    /// Bytes of unfinished messages, of all connections.
    all: Arc<AtomicUsize>,
}

impl<A> LimitedAcceptor<A> {
    pub fn new(inner: A, quota: Quota, site: Site) -> Self {
        Self { inner, quota, site, all: Arc::default() }
    }
}

impl<A, S> Accept<TcpStream, S> for LimitedAcceptor<A>
where
    A: Accept<TcpStream, AddExtension<S, ReassemblyBudget>>,
    A::Future: Send + 'static,
    A::Stream: Unpin,
{
    type Stream = AcceptedStream<A::Stream>;
    type Service = A::Service;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, socket: TcpStream, service: S) -> Self::Future {
        // A trusted proxy brings many clients; it has no share of its own.
        let peer = socket.peer_addr().ok().map(|peer| peer.ip().to_canonical());
        let client = peer.filter(|peer| !self.site.trusts(*peer)).and_then(ClientKey::of);
        let Ok(permit) = self.quota.enter(client) else {
            // Takes no time: the kernel's buffer is empty, and a peer that doesn't read doesn't matter.
            let _ = SockRef::from(&socket).send(FULL);
            return Box::pin(async { Err(io::ErrorKind::QuotaExceeded.into()) });
        };
        let unfinished = ReassemblyBudget::new(self.all.clone());
        let inner = self.inner.accept(socket, Extension(unfinished.clone()).layer(service));
        Box::pin(async move {
            let (stream, service) = inner.await?;
            let first = Some(Box::pin(tokio::time::sleep(FIRST_BYTES)));
            Ok((AcceptedStream { stream, first, read: 0, unfinished, _permit: permit }, service))
        })
    }
}

/// What of a WebSocket's message has arrived and is waiting for the rest.
#[derive(Clone, Debug)]
pub struct ReassemblyBudget(Arc<Share>);

#[derive(Debug)]
struct Share {
    all: Arc<AtomicUsize>,
    counts: AtomicBool,
    bytes: AtomicUsize,
}

impl ReassemblyBudget {
    fn new(all: Arc<AtomicUsize>) -> Self {
        Self(Arc::new(Share { all, counts: AtomicBool::new(false), bytes: AtomicUsize::new(0) }))
    }

    /// The connection is a WebSocket's from now on.
    pub fn count(&self) {
        self.0.counts.store(true, Ordering::Relaxed);
    }

    /// A message is whole.
    pub fn taken(&self) {
        self.0.all.fetch_sub(self.0.bytes.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// So many bytes were a frame between those of messages, such as a ping's.
    pub fn aside(&self, bytes: usize) {
        let bytes = bytes.min(self.0.bytes.load(Ordering::Relaxed));
        self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.0.all.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// So many bytes more have come; false if that is too much to keep.
    fn keeps(&self, bytes: usize) -> bool {
        if !self.0.counts.load(Ordering::Relaxed) {
            return true;
        }
        let own = self.0.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let all = self.0.all.fetch_add(bytes, Ordering::Relaxed) + bytes;
        all <= UNFINISHED || own <= FAIR
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

/// A connection that was let in.
#[derive(Debug)]
pub(in crate::http) struct AcceptedStream<S> {
    stream: S,
    /// Until the version of HTTP is known.
    first: Option<Pin<Box<Sleep>>>,
    /// Bytes that could begin HTTP/2.
    read: usize,
    unfinished: ReassemblyBudget,
    _permit: Permit,
}

impl<S: AsyncRead + Unpin> AsyncRead for AcceptedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(first) = &mut this.first
            && first.as_mut().poll(context).is_ready()
        {
            metrics().refused("first word");
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        let new = &buffer.filled()[before..];
        if this.first.is_some() {
            let open = &PREFACE[this.read..];
            this.read += new.len();
            if new.is_empty() || new.len() >= open.len() || !open.starts_with(new) {
                this.first = None;
            }
        }
        if !this.unfinished.keeps(new.len()) {
            metrics().refused("unfinished messages");
            return Poll::Ready(Err(io::ErrorKind::QuotaExceeded.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AcceptedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_leaves_too_much_unfinished_is_cut_when_all_do_and_not_before() {
        let all = Arc::new(AtomicUsize::new(0));
        let new = || ReassemblyBudget::new(all.clone());
        let (page, greedy, honest) = (new(), new(), new());
        assert!(page.keeps(2 * UNFINISHED), "an upload is no message");
        greedy.count();
        honest.count();
        assert!(greedy.keeps(UNFINISHED) && honest.keeps(FAIR), "nobody else needs it");
        assert!(!greedy.keeps(1));
        assert!(!honest.keeps(1));
        honest.taken();
        assert!(honest.keeps(FAIR), "its message was whole");
        drop(greedy);
        assert!(honest.keeps(FAIR), "there is room again");
        drop((page, honest));
        assert_eq!(all.load(Ordering::Relaxed), 0, "bytes of nobody");
    }

    #[test]
    fn what_is_no_message_takes_no_room() {
        let all = Arc::new(AtomicUsize::new(0));
        let pinging = ReassemblyBudget::new(all.clone());
        pinging.count();
        for _ in 0..2 * UNFINISHED / FAIR {
            assert!(pinging.keeps(FAIR + 1));
            pinging.aside(FAIR + 1);
        }
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_refused_connection_gets_a_whole_answer() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["code"], "limit_reached");
    }
}
