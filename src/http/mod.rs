//! Axum handlers: parse, authorise, call, map the error. No media, no WebRTC types.
//!
//! `routes` is the whole route table, each with what it needs. Before all stands `gate::middleware`, before each
//! handler `gate::authorize`; every error is an [`error::ApiError`]. What lies below is reached by the two traits
//! of [`state`].
//!
//! Files import each other one way, but for this one, whose `Config` and `percent_encode` are for all below; for the
//! table, which names every handler and is read by the OpenAPI document; and for [`state::State`], which holds the
//! `Assets` that `pages` serves.

pub mod api;
mod body;
pub mod error;
pub mod gate;
pub mod listen;
pub mod pages;
pub mod publish;
pub mod route;
mod routes;
pub mod socket;
pub mod state;
#[cfg(test)]
mod testing;
mod upgrade;
pub mod watch;

use crate::base::units;
use axum::Router;
use axum::extract::Request;
use axum_server::{Handle, Server};
use hyper_util::rt::TokioTimer;
use listen::accept::LimitedAcceptor;
use listen::connection::Acceptor;
use listen::tls::{self, Tls};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
pub use routes::{all_routes, router};
use serde::Deserialize;
use state::State;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Section `server` of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address of HTTP and WebSocket; port 0 picks a free one.
    pub bind: SocketAddr,
    /// How users reach the server from outside (`https://record.example.org`), if not by `bind`.
    pub public_url: String,
    /// What every path begins with, if not with `/`: `/onrecord`.
    pub base_path: String,
    /// Proxies, as addresses or networks, that are believed whose requests they bring.
    pub trusted_proxies: Vec<String>,
    /// Foreign origins that may publish: exact, `https://*.example.org`, or a bare host.
    pub cors_origins: Vec<String>,
    /// Origins whose pages may show ours in a frame, written in the same ways.
    pub frame_ancestors: Vec<String>,
    /// How long recordings and hooks may take to finish at shutdown.
    #[serde(deserialize_with = "units::duration")]
    pub shutdown_grace: Duration,
    /// Encryption, if not by a proxy.
    pub tls: tls::Config,
}

impl Config {
    /// `base_path` as paths begin with it: nothing, or `/onrecord`.
    pub fn base(&self) -> &str {
        self.base_path.trim_end_matches('/')
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 8080)),
            public_url: String::new(),
            base_path: String::new(),
            trusted_proxies: Vec::new(),
            cors_origins: Vec::new(),
            frame_ancestors: Vec::new(),
            shutdown_grace: Duration::from_secs(30),
            tls: tls::Config::default(),
        }
    }
}

/// Escapes all that is not unreserved in RFC 3986.
fn percent_encode(segment: &str) -> String {
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(segment, RESERVED).to_string()
}

/// A connection that sends no whole request head for this long is closed; also how long an idle one
/// is kept.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// Bytes of an answer that may wait for the socket, besides the piece that went past it; of a request's
/// head, too. Live pictures that wait here are old when they come, so it is little.
const BUFFER: usize = 64 << 10;
/// Headers of a request; a browser sends some twenty, and a proxy or two add theirs.
const HEADERS: usize = 100;
/// Requests of one HTTP/2 connection at a time: a page with a hundred pictures.
const STREAMS: u32 = 100;
/// After the server is told to end, requests under way have this long; a download that takes longer is cut
/// and goes on with a range request.
const END_TIME: Duration = Duration::from_secs(5);

/// The server's sockets for HTTP.
#[derive(Debug)]
pub struct Listeners {
    /// Where everything is served.
    pub main: TcpListener,
    /// The certificate, if that is by TLS.
    pub tls: Option<Tls>,
    /// Where plain HTTP is sent on to TLS.
    pub redirect: Option<TcpListener>,
}

/// Serves until `shutdown`, which comes after the publications have ended: then accepts no more,
/// hands every WebSocket its last statuses and closes it with 1001 ("going away"), and cuts what
/// is still open 5 s later.
pub async fn serve(listeners: Listeners, state: Arc<State>, shutdown: CancellationToken) -> io::Result<()> {
    let Listeners { main, tls, redirect } = listeners;
    let port = main.local_addr()?.port();
    let handles = [Handle::new(), Handle::new()];
    let main = server(main, &handles[0])?;
    let app = router(state.clone()).into_make_service_with_connect_info::<SocketAddr>();
    let acceptor = tls.as_ref().map(Tls::acceptor);
    let serving = async {
        match acceptor {
            Some(acceptor) => main.acceptor(limited(acceptor, &state)).serve(app).await,
            None => main.acceptor(limited(Acceptor, &state)).serve(app).await,
        }
    };
    let redirecting = async {
        let Some(listener) = redirect else { return Ok(()) };
        let (acceptor, state) = (limited(Acceptor, &state), state.clone());
        let redirect =
            async move |request: Request| state.site.encrypted(request.uri(), request.headers(), Some(port));
        let app = Router::new().fallback(redirect).into_make_service();
        server(listener, &handles[1])?.acceptor(acceptor).serve(app).await
    };
    let renewing = async {
        if let Some(tls) = tls {
            shutdown.run_until_cancelled(tls.keep_current()).await;
        }
    };
    let ending = async {
        shutdown.cancelled().await;
        handles.iter().for_each(|handle| handle.graceful_shutdown(Some(END_TIME)));
        if !state.sockets.tasks.stop(END_TIME).await {
            tracing::warn!("some WebSockets did not close in time");
        }
    };
    let (served, redirected, (), ()) = tokio::join!(serving, redirecting, renewing, ending);
    served.and(redirected)
}

/// All listeners share one quota of connections.
fn limited<A>(acceptor: A, state: &State) -> LimitedAcceptor<A> {
    LimitedAcceptor::new(acceptor, state.connections.clone(), state.site.clone())
}

fn server(listener: TcpListener, handle: &Handle<SocketAddr>) -> io::Result<Server<SocketAddr>> {
    let mut server = axum_server::from_tcp(listener.into_std()?)?.handle(handle.clone());
    let mut http1 = server.http_builder().http1();
    http1.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(BUFFER).max_headers(HEADERS);
    let mut http2 = server.http_builder().http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(HEAD_TIME).max_concurrent_streams(STREAMS);
    Ok(server)
}

#[cfg(test)]
mod tests;
