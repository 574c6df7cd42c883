//! Axum handlers: parse, authorise, call, map the error. No media, no WebRTC types.
//!
//! [`table`] is the whole route table, each with what it needs. Before all stands
//! [`gate::same_origin`], before each handler [`gate::authorize`]; every error is an [`error::ApiError`]. What lies below is reached by the two traits of [`state`].

pub mod api;
mod body;
pub mod error;
pub mod gate;
pub mod listen;
pub mod pages;
pub mod publish;
pub mod route;
mod socket;
pub mod state;
#[cfg(test)]
mod testing;
pub mod watch;

use crate::base::units;
use api::{events, openapi, ops, recordings, streams};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{from_fn, from_fn_with_state};
use axum_server::{Handle, Server};
use gate::{forwarded, login, same_origin};
use hyper_util::rt::TokioTimer;
use listen::accept::Door;
use listen::tls::{self, Tls};
use listen::{connection, in_flight};
use pages::assets;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use publish::{chunks, signal, upload, whip};
use route::Needs::{Admin, Any, Login, Nothing, Probe, Publish, Recordings, View};
use route::{Route, Table, delete, get, options, patch, post};
use serde::Deserialize;
use state::State;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use watch::{live, mjpeg, pictures};

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

/// All that is not unreserved in RFC 3986 is escaped in a path segment of ours.
const PATH_SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn percent_encode(text: &str, set: &'static AsciiSet) -> String {
    utf8_percent_encode(text, set).to_string()
}

/// The whole route table.
fn table() -> Table {
    Table::default()
        .route("/", get(Login, assets::index))
        .route("/publish", get(Login, assets::publish))
        .route("/record", get(Login, assets::publish))
        .route("/camera", get(Login, assets::publish))
        .route("/recordings", get(Login, assets::recordings))
        .route("/watch/{name}", get(Login, assets::watch))
        .route("/login", get(Nothing, login::page).post(Nothing, login::enter))
        .route("/logout", post(Nothing, login::leave))
        .route("/js/{*path}", get(Nothing, assets::file))
        .route("/css/{*path}", get(Nothing, assets::file))
        .route("/img/{*path}", get(Nothing, assets::file))
        .route("/dev/reload", get(Nothing, assets::reload))
        .route("/signal", get(Publish, signal::open))
        .route("/chunks", get(Publish, chunks::open))
        .route("/whip/{name}", options(Nothing, whip::endpoint_options).post(Publish, whip::publish))
        .route(
            "/whip/{name}/{session}",
            patch(Publish, whip::patch).delete(Publish, whip::stop).options(Nothing, whip::session_options),
        )
        .route("/upload", post(Publish, upload::upload_default).delete(Publish, upload::end_default))
        .route("/upload/{name}", post(Publish, upload::upload).delete(Publish, upload::end))
        .route("/stream", get(View, mjpeg::stream_default))
        .route("/stream/{name}", get(View, mjpeg::stream))
        .route("/snapshot/{file}", get(View, mjpeg::snapshot))
        .route("/live/{name}", get(View, live::watch))
        .route("/api/session", get(Nothing, login::session))
        .route("/api/streams", get(View, streams::list))
        .route("/api/streams/{name}", delete(Admin, streams::kick))
        .route(
            "/api/streams/{name}/recording",
            post(Admin, streams::begin_file).delete(Admin, streams::stop_recording),
        )
        .route("/api/events", get(Any, events::open))
        .route("/api/openapi.json", get(Nothing, openapi::answer))
        .route("/api/recordings", get(Recordings, recordings::list))
        .route("/api/recordings/{id}", get(Recordings, recordings::get).delete(Admin, recordings::delete))
        .route("/api/recordings/{id}/hook", post(Admin, recordings::replay_hook))
        .route("/recordings/{file}", get(Recordings, recordings::download))
        .route("/recordings/{file}/pictures", get(Recordings, pictures::show))
        .route("/healthz", get(Probe, ops::healthz))
        .route("/readyz", get(Probe, ops::readyz))
        .route("/metrics", get(Admin, ops::metrics))
}

/// Every route there is.
pub fn all_routes() -> Vec<Route> {
    table().list()
}

/// All that is served: the routes, below `server.base_path`.
pub fn router(state: Arc<State>) -> Router {
    let enter = from_fn_with_state(state.clone(), forwarded::enter);
    Router::new().fallback_service(routes(state)).layer(enter)
}

/// The routes, and what stands around them.
fn routes(state: Arc<State>) -> Router {
    table()
        .into_router(&state)
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::no_method)
        // Routes that take a body bound it themselves, with the contract's error.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(state.clone(), in_flight::hold))
        .layer(from_fn_with_state(state.clone(), same_origin::check))
        // Outside the guard: what it refuses counts, too.
        .layer(from_fn(ops::count))
        .with_state(state)
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
/// After the word to end, requests under way have this long; a download that takes longer is cut
/// and goes on with a range request.
const END_TIME: Duration = Duration::from_secs(5);

/// Where clients come in.
#[derive(Debug)]
pub struct Doors {
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
pub async fn serve(doors: Doors, state: Arc<State>, shutdown: CancellationToken) -> io::Result<()> {
    let port = doors.main.local_addr()?.port();
    let handles = [Handle::new(), Handle::new()];
    let main = server(doors.main, &handles[0])?;
    let app = router(state.clone()).into_make_service_with_connect_info::<SocketAddr>();
    let acceptor = doors.tls.as_ref().map(Tls::acceptor);
    let serving = async {
        match acceptor {
            Some(acceptor) => main.acceptor(door(acceptor, &state)).serve(app).await,
            None => main.acceptor(door(connection::Acceptor, &state)).serve(app).await,
        }
    };
    let redirecting = async {
        let Some(listener) = doors.redirect else { return Ok(()) };
        let door = door(connection::Acceptor, &state);
        let state = state.clone();
        let redirect =
            async move |request: Request| state.site.encrypted(request.uri(), request.headers(), Some(port));
        let app = Router::new().fallback(redirect).into_make_service();
        server(listener, &handles[1])?.acceptor(door).serve(app).await
    };
    let keeping = async {
        if let Some(tls) = doors.tls {
            shutdown.run_until_cancelled(tls.keep()).await;
        }
    };
    let ending = async {
        shutdown.cancelled().await;
        handles.iter().for_each(|handle| handle.graceful_shutdown(Some(END_TIME)));
        if !state.sockets.tasks.stop(END_TIME).await {
            tracing::warn!("some WebSockets did not close in time");
        }
    };
    let (served, redirected, (), ()) = tokio::join!(serving, redirecting, keeping, ending);
    served.and(redirected)
}

/// What lets connections in: there are so many places in all, for each listener's.
fn door<A>(acceptor: A, state: &State) -> Door<A> {
    Door::new(acceptor, state.connections.clone(), state.site.clone())
}

/// One with our bounds.
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
