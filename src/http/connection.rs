//! Connections: how much of a live answer may lie between us and a viewer, and for how long.

use axum::Extension;
use axum::middleware::AddExtension;
use axum_server::accept::Accept;
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
use tokio::time::Sleep;
use tower_layer::Layer;

/// Bytes that the kernel takes beyond what the peer's window and the network hold. By default it takes
/// megabytes, and a viewer on a slow line would see what was live a minute ago.
const UNSENT: u32 = 128 << 10;

/// A peer that takes nothing of an answer for so long is gone. A player that was paused for longer asks
/// again with a range; nginx is as patient, and everybody's players live with it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Takes connections; a handler finds its own as [`Extension<Connection>`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Acceptor;

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
        ready(Ok((Patient { socket, connection, stuck: None }, service)))
    }
}

/// What a handler may ask of its connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Connection {
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
pub(super) struct Patient {
    socket: TcpStream,
    connection: Connection,
    /// Runs while a write waits.
    stuck: Option<Pin<Box<Sleep>>>,
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
