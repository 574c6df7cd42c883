//! Connections: how much of a live answer may lie between us and a viewer, and for how long; with TLS
//! or without.

use crate::base::metrics::Open;
use axum::Extension;
use axum::middleware::AddExtension;
use axum_server::accept::Accept;
use axum_server::tls_rustls::RustlsAcceptor;
use futures_util::future::BoxFuture;
use socket2::SockRef;
use std::future::{Ready, ready};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, timeout};
use tower_layer::Layer;

/// Bytes that the kernel takes beyond what the peer's window and the network hold. By default it takes
/// megabytes, and a viewer on a slow line would see what was live a minute ago.
const UNSENT: u32 = 128 << 10;

/// A peer that takes nothing of an answer for so long is gone. A player that was paused for longer asks
/// again with a range; nginx is as patient, and players live with it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Takes connections; a handler finds its own as [`Extension<Connection>`].
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Acceptor;

impl<S> Accept<TcpStream, S> for Acceptor {
    type Stream = Patient;
    type Service = AddExtension<S, Connection>;
    type Future = Ready<io::Result<(Patient, Self::Service)>>;

    fn accept(&self, socket: TcpStream, service: S) -> Self::Future {
        if let Err(error) = socket.set_nodelay(true) {
            return ready(Err(error));
        }
        // Not everywhere there is such a bound; then viewers on slow lines lag, and nothing else.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT);
        let connection = Connection::default();
        connection.cut_if_stuck(PATIENCE);
        let service = Extension(connection.clone()).layer(service);
        ready(Ok((Patient { socket, connection, stuck: None, _open: Open::connection() }, service)))
    }
}

/// How long a client may take for its first byte, and again for its handshake.
pub(in crate::http) const HANDSHAKE: Duration = Duration::from_secs(10);
/// A TLS record that carries a handshake (RFC 8446 section 5.1): what every client begins with.
const HANDSHAKE_RECORD: u8 = 0x16;

/// Whether a connection to a port that wants TLS is encrypted; elsewhere there is no such extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) struct Encrypted(pub bool);

/// Takes TLS connections: TLS over what [`Acceptor`] makes of a socket, so that its bounds hold for what
/// is encrypted, too. One that begins with plain HTTP is taken as well, to be redirected by
/// [`crate::http::gate::forwarded::enter`].
#[derive(Clone, Debug)]
pub(in crate::http) struct TlsAcceptor(pub RustlsAcceptor<Acceptor>);

/// Bytes both ways.
pub(in crate::http) trait Line: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Line for T {}

impl<S: Send + 'static> Accept<TcpStream, S> for TlsAcceptor {
    type Stream = Box<dyn Line>;
    type Service = AddExtension<AddExtension<S, Encrypted>, Connection>;
    type Future = BoxFuture<'static, io::Result<(Box<dyn Line>, Self::Service)>>;

    fn accept(&self, socket: TcpStream, service: S) -> Self::Future {
        let tls = self.0.clone();
        Box::pin(async move {
            let mut first = [0];
            timeout(HANDSHAKE, socket.peek(&mut first)).await??;
            let encrypted = first == [HANDSHAKE_RECORD];
            let service = Extension(Encrypted(encrypted)).layer(service);
            if encrypted {
                let (line, service) = tls.accept(socket, service).await?;
                return Ok((Box::new(line) as Box<dyn Line>, service));
            }
            let (line, service) = Acceptor.accept(socket, service).await?;
            Ok((Box::new(line) as Box<dyn Line>, service))
        })
    }
}

/// What a handler may ask of its connection.
#[derive(Clone, Debug, Default)]
pub(in crate::http) struct Connection {
    /// In milliseconds; 0 for ever.
    patience: Arc<AtomicU64>,
}

impl Connection {
    /// From now on cuts the connection when its peer has taken nothing for so long, though there was
    /// something to take.
    pub fn cut_if_stuck(&self, patience: Duration) {
        self.patience.store(patience.as_millis() as u64, Ordering::Relaxed);
    }
}

/// A socket that waits for its peer as long as its connection's handler wants.
#[derive(Debug)]
pub(in crate::http) struct Patient {
    socket: TcpStream,
    connection: Connection,
    /// Runs while a write waits.
    stuck: Option<Pin<Box<Sleep>>>,
    _open: Open,
}

impl Patient {
    fn wrote(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let patience = self.connection.patience.load(Ordering::Relaxed);
        if written.is_ready() || patience == 0 {
            self.stuck = None;
            return written;
        }
        let stuck = || Box::pin(tokio::time::sleep(Duration::from_millis(patience)));
        match self.stuck.get_or_insert_with(stuck).as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.wrote(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        self.wrote(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}
