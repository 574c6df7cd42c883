//! L5: axum handlers: parse, authorise, call, map the error. No media, no WebRTC types.
//!
//! [`router`] is the whole route table. Before every route stands [`guard`]; every error is an
//! [`error::ApiError`]. What lies below is reached by the two traits of [`state`].

pub mod assets;
mod body;
pub(crate) mod chunks;
mod connection;
pub mod error;
pub mod guard;
pub mod live;
mod mjpeg;
mod ops;
mod origin;
mod policy;
mod recordings;
pub mod signal;
mod socket;
pub mod state;
mod streams;
#[cfg(test)]
mod testing;
mod whip;

use crate::base::units;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, patch, post};
use axum_server::Handle;
use hyper_util::rt::TokioTimer;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use state::State;
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
    /// Foreign origins that may publish: exact, `https://*.example.org`, or a bare host.
    pub cors_origins: Vec<String>,
    /// Origins whose pages may show ours in a frame, written in the same ways.
    pub frame_ancestors: Vec<String>,
    /// How long recordings and hooks may take to finish at shutdown.
    #[serde(deserialize_with = "units::duration")]
    pub shutdown_grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 8080)),
            public_url: String::new(),
            cors_origins: Vec::new(),
            frame_ancestors: Vec::new(),
            shutdown_grace: Duration::from_secs(30),
        }
    }
}

/// All that is not unreserved in RFC 3986 is escaped in a path segment of ours.
const PATH_SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn percent_encode(text: &str, set: &'static AsciiSet) -> String {
    utf8_percent_encode(text, set).to_string()
}

/// The whole route table.
pub fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/", get(assets::index))
        .route("/publish", get(assets::publish))
        .route("/record", get(assets::record))
        .route("/camera", get(assets::camera))
        .route("/recordings", get(assets::recordings))
        .route("/watch/{name}", get(assets::watch))
        .route("/js/{*path}", get(assets::file))
        .route("/css/{*path}", get(assets::file))
        .route("/img/{*path}", get(assets::file))
        .route("/dev/reload", get(assets::reload))
        .route("/signal", get(signal::open))
        .route("/chunks", get(chunks::open))
        .route("/whip/{name}", post(whip::publish).options(whip::endpoint_options))
        .route("/whip/{name}/{session}", patch(whip::patch).delete(whip::stop).options(whip::session_options))
        .route("/upload", post(mjpeg::upload_default).delete(mjpeg::end_default))
        .route("/upload/{name}", post(mjpeg::upload).delete(mjpeg::end))
        .route("/stream", get(mjpeg::stream_default))
        .route("/stream/{name}", get(mjpeg::stream))
        .route("/snapshot/{file}", get(mjpeg::snapshot))
        .route("/live/{name}", get(live::watch))
        .route("/api/streams", get(streams::list))
        .route("/api/streams/{name}", delete(streams::kick))
        .route("/api/recordings", get(recordings::list))
        .route("/api/recordings/{id}", get(recordings::get).delete(recordings::delete))
        .route("/api/recordings/{id}/hook", post(recordings::replay_hook))
        .route("/recordings/{file}", get(recordings::download))
        .route("/healthz", get(ops::healthz))
        .route("/readyz", get(ops::readyz))
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::no_method)
        // Routes that take a body bound it themselves, with the contract's error.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(state.clone(), guard::check))
        .with_state(state)
}

/// A connection that sends no whole request head for this long is closed; also how long an idle one
/// is kept.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// Bytes of an answer that may wait for the socket, besides the piece that went past it; of a request's
/// head, too. Live pictures that wait here are old when they come, so it is little.
const BUFFER: usize = 64 << 10;
/// After the word to end, requests under way have this long; a download that takes longer is cut
/// and goes on with a range request.
const END_TIME: Duration = Duration::from_secs(5);

/// Serves until `shutdown`, which comes after the publications have ended: then accepts no more,
/// hands every WebSocket its last statuses and closes it with 1001 ("going away"), and cuts what
/// is still open 5 s later.
pub async fn serve(
    listener: TcpListener,
    state: Arc<State>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let handle = Handle::new();
    let mut server = axum_server::from_tcp(listener.into_std()?)?.handle(handle.clone());
    let mut http1 = server.http_builder().http1();
    http1.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(BUFFER);
    server.http_builder().http2().timer(TokioTimer::new()).keep_alive_interval(HEAD_TIME);
    let app = router(state.clone()).into_make_service_with_connect_info::<SocketAddr>();
    let ending = async {
        shutdown.cancelled().await;
        handle.graceful_shutdown(Some(END_TIME));
        if !state.sockets.tasks.stop(END_TIME).await {
            tracing::warn!("some WebSockets did not close in time");
        }
    };
    let (served, ()) = tokio::join!(server.acceptor(connection::Acceptor).serve(app), ending);
    served
}

#[cfg(test)]
mod tests;
