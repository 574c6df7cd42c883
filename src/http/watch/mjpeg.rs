//! JPEG streams over plain HTTP: an image a POST in, `multipart/x-mixed-replace` out.

use crate::auth::Permission;
use crate::base::id::{Secret, StreamName};
use crate::base::places::Party;
use crate::http::api::streams::stream_name;
use crate::http::body::{self, expect_type};
use crate::http::error::ApiError;
use crate::http::gate::authorize::Access;
use crate::http::gate::forwarded::Caller;
use crate::http::listen::connection::Connection;
use crate::http::publish::signal::wire;
use crate::http::state::State;
use crate::http::watch::live::{Kind, Seat};
use crate::http::{PATH_SEGMENT, percent_encode};
use crate::ingest::mjpeg::DEFAULT;
use crate::live::mjpeg::{self, Picture};
use crate::media::jpeg;
use crate::publish::status::Status;
use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Extract};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::stream;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// How long an image may take to arrive: the largest over a 3 Mbit/s line, a usual one over any.
const BODY_TIME: Duration = Duration::from_secs(10);
/// A viewer that takes nothing for so long is cut off.
pub(in crate::http) const STUCK: Duration = Duration::from_secs(10);
/// Images in one body: more than a camera gathers in its pause between two.
const MAX_IMAGES: usize = 100;
/// How long an end waits for its file: sealing takes milliseconds, a loaded disk seconds.
const SEAL_TIME: Duration = Duration::from_secs(10);
/// The stream's secret: in the answer to its first image, and in the requests after that.
pub(in crate::http) const RESUME: HeaderName = HeaderName::from_static("onrecord-resume");

type State_ = Extract<Arc<State>>;
type Name = Result<Path<String>, PathRejection>;

/// `POST /upload`: an image of the stream `default`.
pub async fn upload_default(
    state: State_,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    upload_to(&state, &default_name()?, caller.0, &headers, body).await
}

/// `POST /upload/{name}`: one image, or some taken since the last one. The answer comes when every reader of the stream has it.
pub async fn upload(
    state: State_,
    name: Name,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    upload_to(&state, &stream_name(name)?, caller.0, &headers, body).await
}

async fn upload_to(
    state: &State,
    name: &StreamName,
    client: Option<Party>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    // Half of the cameras call it by the name that no registry knows.
    expect_type(headers, "image/jpeg")
        .or_else(|refusal| expect_type(headers, "image/jpg").map_err(|_| refusal))?;
    let body = body::read(body, state.mjpeg.max_frame(), BODY_TIME).await?;
    let bad = |message: String| ApiError::new(StatusCode::BAD_REQUEST, "bad_blob", message);
    let found = jpeg::images(&body).map_err(|image| bad(image.to_string()))?;
    if found.len() > MAX_IMAGES {
        return Err(bad(format!("{} images are in one body: send at most {MAX_IMAGES}", found.len())));
    }
    let images: Vec<_> = found.into_iter().map(|(at, size)| (Picture::new(&body[at]), size)).collect();
    let first = state.mjpeg.post(name, token(headers).as_ref(), &images, client)?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Some(secret) = first.and_then(|secret| HeaderValue::try_from(secret.reveal()).ok()) {
        response.headers_mut().insert(RESUME, secret);
    }
    Ok(response)
}

/// `DELETE /upload`.
pub async fn end_default(state: State_, headers: HeaderMap) -> Result<Response, ApiError> {
    end_of(&state, default_name()?, &headers).await
}

/// `DELETE /upload/{name}`: the publisher stops. Answers with the stream's last status, as `/signal`
/// tells it, once the file is sealed; 202 with the status so far if that takes long.
pub async fn end(state: State_, name: Name, headers: HeaderMap) -> Result<Response, ApiError> {
    end_of(&state, stream_name(name)?, &headers).await
}

async fn end_of(state: &State, name: StreamName, headers: &HeaderMap) -> Result<Response, ApiError> {
    let ended = state.mjpeg.end(&name, token(headers).as_ref())?;
    let mut status = ended.ok_or_else(|| not_found(state, &name))?;
    let _ = tokio::time::timeout(SEAL_TIME, status.wait_for(Status::is_final)).await;
    let status = status.borrow().clone();
    let code = if status.is_final() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((code, Json(wire::Server::status(state, &name, &status))).into_response())
}

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
    Ok(parts(Screen { state: state.clone(), name, access, viewer, _seat: seat }, Screen::next))
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
struct Screen {
    state: Arc<State>,
    name: StreamName,
    access: Access,
    viewer: Option<mjpeg::Viewer>,
    _seat: Seat,
}

impl Screen {
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
        ApiError::new(StatusCode::NOT_FOUND, "bad_request", "a snapshot's path is /snapshot/{name}.jpg")
    })?;
    let name = name.parse::<StreamName>()?;
    let picture = state.mjpeg.newest(&name).ok_or_else(|| not_found(&state, &name))?;
    let headers = [(header::CONTENT_TYPE, "image/jpeg"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, picture.image()).into_response())
}

fn default_name() -> Result<StreamName, ApiError> {
    Ok(DEFAULT.parse()?)
}

fn token(headers: &HeaderMap) -> Option<Secret> {
    let token = headers.get(RESUME)?.to_str().unwrap_or_default();
    (!token.is_empty()).then(|| Secret::from_client(token))
}

fn not_found(state: &State, name: &StreamName) -> ApiError {
    let message = if state.mjpeg.is_elsewhere(name) {
        let path = percent_encode(name.as_str(), PATH_SEGMENT);
        format!("{name} is no JPEG stream: watch it at {}", state.site.path(&format!("/watch/{path}")))
    } else {
        format!("nobody is publishing {name}")
    };
    ApiError::new(StatusCode::NOT_FOUND, "stream_not_found", message)
}
