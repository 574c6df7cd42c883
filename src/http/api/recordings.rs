//! The catalogue and the files.

use crate::auth::Permission;
use crate::base::error_code::ErrorCode;
use crate::base::id::RecordingId;
use crate::catalog::{Manifest, RecordingState};
use crate::http::api::range;
use crate::http::error::ApiError;
use crate::http::gate::authorize::Access;
use crate::http::percent_encode;
use crate::http::state::State;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State as Extract};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use tower_http::services::ServeFile;
use utoipa::ToSchema;

/// Recordings in one answer without `limit`, and with any: a manifest is about 1 KiB. The rest is
/// reached with `before`.
const DEFAULT_LIMIT: usize = 1000;
const MAX_LIMIT: usize = 10_000;

/// The path a sealed file is downloaded from. With auth on it carries a token for that one file, so that a
/// plain link downloads.
pub fn url(state: &State, file: &str) -> String {
    let path = state.site.path(&format!("/recordings/{}", percent_encode(file)));
    if !state.auth.asks() {
        return path;
    }
    format!("{path}?token={}", state.auth.sign_file(file, Timestamp::now()))
}

/// A manifest, and where its file is.
#[derive(Serialize, ToSchema)]
#[schema(as = Recording)]
pub struct Listed {
    #[serde(flatten)]
    manifest: Manifest,
    /// Where the download is; `null` while there is nothing to download.
    #[schema(required)]
    url: Option<String>,
}

impl Listed {
    pub(in crate::http) fn new(state: &State, manifest: Manifest) -> Self {
        let there = manifest.state == RecordingState::Sealed && manifest.file_present;
        let url = there.then(|| url(state, &manifest.file));
        Self { manifest, url }
    }
}

/// Query of the list.
#[derive(Deserialize)]
pub struct Filter {
    /// Only this stream's.
    stream: Option<String>,
    /// At most so many.
    limit: Option<usize>,
    /// Only those that began before this one.
    before: Option<RecordingId>,
}

/// `GET /api/recordings`: newest first, of the streams whose recordings the caller may have.
pub async fn list(
    Extract(state): Extract<Arc<State>>,
    access: Extension<Access>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Json<Vec<Listed>>, ApiError> {
    let Query(filter) = filter.map_err(|bad| ApiError::bad_request(bad.body_text()))?;
    let Filter { stream, limit, before } = filter;
    let limit = limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
    let page = move || {
        let wanted = |manifest: &Manifest| {
            stream.as_deref().is_none_or(|stream| stream == manifest.stream.as_str())
                && access.may(Permission::Recordings, &manifest.stream)
        };
        let found = state.recordings.page(before.as_ref(), limit, &wanted);
        found.into_iter().map(|manifest| Listed::new(&state, manifest)).collect()
    };
    // Each file is looked for: a slow disk must not keep a thread that serves others.
    tokio::task::spawn_blocking(page).await.map(Json).map_err(ApiError::internal)
}

/// `GET /api/recordings/{id}`.
pub async fn get(
    Extract(state): Extract<Arc<State>>,
    access: Extension<Access>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Listed>, ApiError> {
    let manifest = find(&state, id)?;
    access.asks(Permission::Recordings, &manifest.stream).await?;
    Ok(Json(Listed::new(&state, manifest)))
}

/// `DELETE /api/recordings/{id}`: the file goes, the manifest says `deleted`.
pub async fn delete(
    Extract(state): Extract<Arc<State>>,
    access: Extension<Access>,
    id: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let manifest = find(&state, id)?;
    access.asks(Permission::Admin, &manifest.stream).await?;
    state.recordings.delete(&manifest.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/recordings/{id}/hook`: runs the hook again; answers with the manifest as it is then.
pub async fn replay_hook(
    Extract(state): Extract<Arc<State>>,
    access: Extension<Access>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let manifest = find(&state, id)?;
    access.asks(Permission::Admin, &manifest.stream).await?;
    match manifest.state {
        RecordingState::Recording | RecordingState::Sealing => {
            return Err(crate::catalog::RecordingError::Busy(manifest.id).into());
        }
        RecordingState::Sealed if manifest.file_present => {}
        _ => return Err(gone(&manifest)),
    }
    (state.replay)(manifest.id.clone()).await?;
    let now = state.recordings.get(&manifest.id).unwrap_or(manifest);
    Ok((StatusCode::ACCEPTED, Json(Listed::new(&state, now))).into_response())
}

/// `GET /recordings/{file}`: a sealed, catalogued file, with ranges and validators; to be saved, or
/// with `?inline` to be shown.
pub async fn download(
    Extract(state): Extract<Arc<State>>,
    access: Extension<Access>,
    file: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let (manifest, path) = sealed(&state, &access, file).await?;
    let inline =
        request.uri().query().is_some_and(|query| query.split('&').any(|key| key.starts_with("inline")));
    let mut response = serve(&path, &manifest, request).await?;
    let kind = if inline { "inline" } else { "attachment" };
    if let Ok(value) = HeaderValue::try_from(disposition(kind, &manifest.file)) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, value);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    Ok(response)
}

/// The recording whose file is asked for, and where that is.
pub(in crate::http) async fn sealed(
    state: &State,
    access: &Access,
    file: Result<Path<String>, PathRejection>,
) -> Result<(Manifest, PathBuf), ApiError> {
    let Path(file) = file.map_err(|_| unknown("this file"))?;
    let (manifest, path) = state.recordings.by_file(&file).ok_or_else(|| unknown(&file))?;
    access.asks(Permission::Recordings, &manifest.stream).await?;
    // The catalogue only knows plain names in its own folder; this holds even if it were wrong.
    if path.file_name() != Some(file.as_ref()) || file.starts_with('.') {
        return Err(unknown(&file));
    }
    match manifest.state {
        RecordingState::Recording | RecordingState::Sealing => Err(unknown(&file)),
        RecordingState::Sealed if manifest.file_present => Ok((manifest, path)),
        _ => Err(gone(&manifest)),
    }
}

async fn serve(path: &FilePath, manifest: &Manifest, mut request: Request) -> Result<Response, ApiError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => gone(manifest),
        _ => ApiError::internal(error),
    };
    if !range_applies(path, request.headers()).await {
        request.headers_mut().remove(header::RANGE);
    }
    let len = tokio::fs::metadata(path).await.map_err(failed)?.len();
    range::normalise(&request.method().clone(), request.headers_mut(), len);
    let mime = manifest.mime.parse().map_err(ApiError::internal)?;
    let response = ServeFile::new_with_mime(path, &mime).try_call(request).await.map_err(failed)?;
    let (parts, body) = response.into_parts();
    let message = match parts.status {
        StatusCode::RANGE_NOT_SATISFIABLE => "the file has no such range: see Content-Range for its size",
        StatusCode::PRECONDITION_FAILED => "the file is another one by now",
        StatusCode::NOT_FOUND => return Err(gone(manifest)),
        _ => return Ok(Response::from_parts(parts, Body::new(body))),
    };
    let mut refusal = ApiError::with_status(parts.status, ErrorCode::BadRequest, message).into_response();
    if let Some(size) = parts.headers.get(header::CONTENT_RANGE) {
        refusal.headers_mut().insert(header::CONTENT_RANGE, size.clone());
    }
    Ok(refusal)
}

/// Whether `If-Range` (RFC 9110 section 13.1.5), which [`ServeFile`] doesn't know, leaves the range
/// standing: its validator must be exactly the one the file is served with now.
async fn range_applies(path: &FilePath, headers: &HeaderMap) -> bool {
    let Some(validator) = headers.get(header::IF_RANGE) else { return true };
    let mut probe = Request::new(Body::empty());
    *probe.method_mut() = Method::HEAD;
    let Ok(now) = ServeFile::new(path).try_call(probe).await else { return false };
    [header::ETAG, header::LAST_MODIFIED].iter().any(|name| now.headers().get(name) == Some(validator))
}

/// RFC 6266: a plain name for old clients, the true one in UTF-8.
fn disposition(kind: &str, file: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || " ._-".contains(c) { c } else { '_' };
    let fallback: String = file.chars().map(plain).collect();
    format!("{kind}; filename=\"{fallback}\"; filename*=UTF-8''{}", percent_encode(file))
}

fn find(state: &State, id: Result<Path<String>, PathRejection>) -> Result<Manifest, ApiError> {
    let Path(id) = id.map_err(|_| unknown("this recording"))?;
    let manifest = id.parse().ok().and_then(|id: RecordingId| state.recordings.get(&id));
    manifest.ok_or_else(|| unknown(&id))
}

fn unknown(what: &str) -> ApiError {
    let message = format!("there is no recording {what}: see /api/recordings");
    ApiError::new(ErrorCode::RecordingNotFound, message)
}

pub(in crate::http) fn gone(manifest: &Manifest) -> ApiError {
    let why = match manifest.state {
        RecordingState::Deleted => "was deleted",
        RecordingState::Quarantined => "could not be repaired and is in quarantine",
        RecordingState::Recording | RecordingState::Sealing | RecordingState::Sealed => {
            "was moved away, most likely by the hook"
        }
    };
    let message = format!("the file of recording {} {why}", manifest.id);
    ApiError::with_status(StatusCode::GONE, ErrorCode::RecordingNotFound, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_download_is_saved_under_its_name_whatever_it_is(file in "\\PC{1,80}|[\\x00-\\xff\"\\\\;%'*]{1,40}") {
            let header = disposition("attachment", &file);
            prop_assert!(HeaderValue::try_from(&header).is_ok() && header.is_ascii(), "{header:?}");
            // Read by the grammar of RFC 6266: two parameters, a quoted string without escapes and an
            // RFC 8187 value.
            let rest = header.strip_prefix("attachment; filename=\"").unwrap();
            let (plain, rest) = rest.split_once('"').unwrap();
            prop_assert!(plain.chars().all(|c| c.is_ascii_alphanumeric() || " ._-".contains(c)), "{plain:?}");
            prop_assert_eq!(plain.len(), file.chars().count());
            let value = rest.strip_prefix("; filename*=UTF-8\'\'").unwrap();
            prop_assert!(value.chars().all(|c| c.is_ascii_alphanumeric() || "%-._~".contains(c)), "{value:?}");
            prop_assert_eq!(percent_decode_str(value).decode_utf8().unwrap(), file);
        }
    }
}
