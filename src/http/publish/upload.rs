//! `/upload`: JPEG images, one or some a POST.

use crate::base::error_code::ErrorCode;
use crate::base::id::Secret;
use crate::http::body::{self, expect_type};
use crate::http::error::ApiError;
use crate::http::gate::credential::RESUME;
use crate::http::gate::forwarded::Caller;
use crate::http::publish::signal::wire;
use crate::http::route::NamedStream;
use crate::http::state::State;
use crate::http::watch::mjpeg::not_found;
use crate::live::mjpeg::Picture;
use crate::media::jpeg;
use crate::publish::status::Status;
use axum::Json;
use axum::body::Body;
use axum::extract::State as Extract;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::time::Duration;

/// How long an image may take to arrive: the largest over a 3 Mbit/s line, a usual one over any.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Images in one body: more than a camera gathers in its pause between two.
const MAX_IMAGES: usize = 100;
/// How long an end waits for its file: sealing takes milliseconds, a loaded disk seconds.
const SEAL_TIME: Duration = Duration::from_secs(10);

/// `POST /upload`, `POST /upload/{name}`: one image, or some taken since the last one. The answer comes when every
/// reader of the stream has it.
pub async fn upload(
    Extract(state): Extract<Arc<State>>,
    NamedStream(name): NamedStream,
    Caller(client): Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    // Half of the cameras use the name that no registry knows.
    expect_type(&headers, "image/jpeg")
        .or_else(|refusal| expect_type(&headers, "image/jpg").map_err(|_| refusal))?;
    let body = body::read(body, state.mjpeg.max_frame(), BODY_TIME).await?;
    let bad = |message: String| ApiError::new(ErrorCode::BadBlob, message);
    let found = jpeg::images(&body).map_err(|image| bad(image.to_string()))?;
    if found.len() > MAX_IMAGES {
        return Err(bad(format!("{} images are in one body: send at most {MAX_IMAGES}", found.len())));
    }
    let images: Vec<_> = found.into_iter().map(|(at, size)| (Picture::new(&body[at]), size)).collect();
    let first = state.mjpeg.post(&name, token(&headers).as_ref(), &images, client)?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Some(secret) = first.and_then(|secret| HeaderValue::try_from(secret.reveal()).ok()) {
        response.headers_mut().insert(RESUME, secret);
    }
    Ok(response)
}

/// `DELETE /upload`, `DELETE /upload/{name}`: the publisher stops. Answers with the stream's last status, as
/// `/signal` sends it, once the file is sealed; 202 with the status so far if that takes long.
pub async fn end(
    Extract(state): Extract<Arc<State>>,
    NamedStream(name): NamedStream,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let ended = state.mjpeg.end(&name, token(&headers).as_ref())?;
    let mut status = ended.ok_or_else(|| not_found(&state, &name))?;
    let _ = tokio::time::timeout(SEAL_TIME, status.wait_for(Status::is_final)).await;
    let status = status.borrow().clone();
    let code = if status.is_final() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((code, Json(wire::Server::status(&state, &name, &status))).into_response())
}

fn token(headers: &HeaderMap) -> Option<Secret> {
    let token = headers.get(RESUME)?.to_str().unwrap_or_default();
    (!token.is_empty()).then(|| Secret::from_client(token))
}
