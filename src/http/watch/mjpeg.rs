//! JPEG streams to watch: `multipart/x-mixed-replace`, and the newest picture alone.

use crate::auth::Permission;
use crate::base::error_code::ErrorCode;
use crate::base::id::StreamName;
use crate::http::error::ApiError;
use crate::http::gate::authorize::Access;
use crate::http::gate::forwarded::Caller;
use crate::http::listen::connection::Connection;
use crate::http::percent_encode;
use crate::http::route::{FileIn, NamedStream, StreamIn};
use crate::http::state::State;
use crate::http::watch::limits::{ViewerKind, ViewerPermit};
use crate::live::mjpeg;
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State as Extract;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// A viewer that takes nothing for so long is cut off.
pub(in crate::http) const STUCK: Duration = Duration::from_secs(10);

/// `GET /stream`, `GET /stream/{name}`: every picture from the newest on, until the stream ends. A viewer that is
/// slow misses pictures; one that is early waits for the first.
pub async fn stream(
    Extract(state): Extract<Arc<State>>,
    NamedStream(name): NamedStream,
    Caller(client): Caller,
    Extension(access): Extension<Access>,
    connection: Extension<Connection>,
) -> Result<Response, ApiError> {
    if state.mjpeg.is_elsewhere(&name) {
        return Err(not_found(&state, &name));
    }
    let permit = state.viewers.enter(ViewerKind::Mjpeg, client, &name)?;
    connection.cut_if_stuck(STUCK);
    let viewer = state.mjpeg.view(&name);
    Ok(parts(JpegViewer { state, name, access, viewer, _permit: permit }, JpegViewer::next))
}

/// An answer of pictures, each shown in place of the one before.
pub(in crate::http) fn parts<S: Send + 'static, F: Future<Output = Option<(Bytes, S)>> + Send + 'static>(
    screen: S,
    next: impl Fn(S) -> F + Send + 'static,
) -> Response {
    let parts = stream::unfold(screen, move |screen| {
        let next = next(screen);
        async move { next.await.map(|(part, screen)| (Ok::<Bytes, Infallible>(part), screen)) }
    });
    let headers = [
        (header::CONTENT_TYPE, mjpeg::CONTENT_TYPE),
        (header::CACHE_CONTROL, "no-store"),
        // nginx would collect pictures and send them late.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(parts)).into_response()
}

/// A viewer, or one that waits for the stream.
struct JpegViewer {
    state: Arc<State>,
    name: StreamName,
    access: Access,
    viewer: Option<mjpeg::Viewer>,
    _permit: ViewerPermit,
}

impl JpegViewer {
    async fn next(mut self) -> Option<(Bytes, Self)> {
        if self.viewer.is_none() {
            let stop = self.state.sockets.tasks.stop_token();
            // Nothing is sent meanwhile: not every browser survives it.
            let viewer = tokio::select! {
                viewer = self.state.mjpeg.wait(&self.name) => viewer,
                () = stop.cancelled() => return None,
            };
            // A viewer sees a stream to its end; whether it may see this one is asked when it begins.
            self.access.asks(Permission::View, &self.name).await.ok()?;
            self.viewer = Some(viewer?);
        }
        let part = self.viewer.as_mut()?.next().await?;
        Some((part, self))
    }
}

/// `/snapshot/{name}.jpg`.
pub(in crate::http) const SNAPSHOT: StreamIn = StreamIn::File(FileIn {
    parameter: "file",
    extension: ".jpg",
    bare_for_sockets: false,
    otherwise: (StatusCode::NOT_FOUND, "a snapshot's path is /snapshot/{name}.jpg"),
});

/// `GET /snapshot/{name}.jpg`: the newest picture.
pub async fn snapshot(
    Extract(state): Extract<Arc<State>>,
    NamedStream(name): NamedStream,
) -> Result<Response, ApiError> {
    let picture = state.mjpeg.newest(&name).ok_or_else(|| not_found(&state, &name))?;
    let headers = [(header::CONTENT_TYPE, "image/jpeg"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, picture.image()).into_response())
}

pub(in crate::http) fn not_found(state: &State, name: &StreamName) -> ApiError {
    let message = if state.mjpeg.is_elsewhere(name) {
        let path = percent_encode(name.as_str());
        format!("{name} is no JPEG stream: watch it at {}", state.site.path(&format!("/watch/{path}")))
    } else {
        format!("nobody is publishing {name}")
    };
    ApiError::new(ErrorCode::StreamNotFound, message)
}
