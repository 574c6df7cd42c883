//! JPEG streams to watch: `multipart/x-mixed-replace`, and the newest picture alone.

use crate::auth::Permission;
use crate::base::error_code::ErrorCode;
use crate::base::id::StreamName;
use crate::http::api::streams::stream_name;
use crate::http::error::ApiError;
use crate::http::gate::authorize::Access;
use crate::http::gate::forwarded::Caller;
use crate::http::listen::connection::Connection;
use crate::http::state::State;
use crate::http::watch::live::{Kind, ViewerPermit};
use crate::http::{PATH_SEGMENT, percent_encode};
use crate::ingest::mjpeg::DEFAULT;
use crate::live::mjpeg;
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Extract};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// A viewer that takes nothing for so long is cut off.
pub(in crate::http) const STUCK: Duration = Duration::from_secs(10);

type State_ = Extract<Arc<State>>;
type Name = Result<Path<String>, PathRejection>;

/// `GET /stream`: the stream `default`.
pub async fn stream_default(
    state: State_,
    caller: Caller,
    access: Extension<Access>,
    connection: Extension<Connection>,
) -> Result<Response, ApiError> {
    stream_of(&state, default_name()?, caller, access, &connection)
}

/// `GET /stream/{name}`: every picture from the newest on, until the stream ends. A viewer that is slow
/// misses pictures; one that is early waits for the first.
pub async fn stream(
    state: State_,
    name: Name,
    caller: Caller,
    access: Extension<Access>,
    connection: Extension<Connection>,
) -> Result<Response, ApiError> {
    stream_of(&state, stream_name(name)?, caller, access, &connection)
}

fn stream_of(
    state: &Arc<State>,
    name: StreamName,
    Caller(client): Caller,
    Extension(access): Extension<Access>,
    connection: &Connection,
) -> Result<Response, ApiError> {
    if state.mjpeg.is_elsewhere(&name) {
        return Err(not_found(state, &name));
    }
    let seat = state.viewers.enter(Kind::Mjpeg, client, &name)?;
    connection.cut_if_stuck(STUCK);
    let viewer = state.mjpeg.view(&name);
    Ok(parts(JpegViewer { state: state.clone(), name, access, viewer, _seat: seat }, JpegViewer::next))
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

/// Somebody who looks on, or waits to.
struct JpegViewer {
    state: Arc<State>,
    name: StreamName,
    access: Access,
    viewer: Option<mjpeg::Viewer>,
    _seat: ViewerPermit,
}

impl JpegViewer {
    async fn next(mut self) -> Option<(Bytes, Self)> {
        if self.viewer.is_none() {
            let stop = self.state.sockets.tasks.stop_token();
            // Nothing is said meanwhile: not every browser survives it.
            let viewer = tokio::select! {
                viewer = self.state.mjpeg.wait(&self.name) => viewer,
                () = stop.cancelled() => return None,
            };
            // Who was let in sees a stream to its end; whether it may see this one is asked when it begins.
            self.access.asks(Permission::View, &self.name).await.ok()?;
            self.viewer = Some(viewer?);
        }
        let part = self.viewer.as_mut()?.next().await?;
        Some((part, self))
    }
}

/// `GET /snapshot/{name}.jpg`: the newest picture.
pub async fn snapshot(state: State_, file: Name) -> Result<Response, ApiError> {
    let Path(file) = file.map_err(|_| ApiError::bad_request("a stream name is UTF-8, percent-encoded"))?;
    let name = file.strip_suffix(".jpg").ok_or_else(|| {
        ApiError::with_status(
            StatusCode::NOT_FOUND,
            ErrorCode::BadRequest,
            "a snapshot's path is /snapshot/{name}.jpg",
        )
    })?;
    let name = name.parse::<StreamName>()?;
    let picture = state.mjpeg.newest(&name).ok_or_else(|| not_found(&state, &name))?;
    let headers = [(header::CONTENT_TYPE, "image/jpeg"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, picture.image()).into_response())
}

pub(in crate::http) fn default_name() -> Result<StreamName, ApiError> {
    Ok(DEFAULT.parse()?)
}

pub(in crate::http) fn not_found(state: &State, name: &StreamName) -> ApiError {
    let message = if state.mjpeg.is_elsewhere(name) {
        let path = percent_encode(name.as_str(), PATH_SEGMENT);
        format!("{name} is no JPEG stream: watch it at {}", state.site.path(&format!("/watch/{path}")))
    } else {
        format!("nobody is publishing {name}")
    };
    ApiError::new(ErrorCode::StreamNotFound, message)
}
