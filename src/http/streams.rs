//! `/api/streams`: who is publishing.

use crate::auth::Permission;
use crate::base::id::StreamName;
use crate::http::access::Access;
use crate::http::error::ApiError;
use crate::http::state::State;
use crate::ingest::Refusal;
use crate::ingest::publication::StreamInfo;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use axum::{Extension, Json};
use std::sync::Arc;

/// `GET /api/streams`: those the caller may watch.
pub async fn list(Extract(state): Extract<Arc<State>>, access: Extension<Access>) -> Json<Vec<StreamInfo>> {
    let mut streams = state.ingest.streams();
    streams.retain(|info| access.may(Permission::View, &info.stream));
    Json(streams)
}

/// `DELETE /api/streams/{name}`: ends a publication (`kicked`); its file is sealed in the background.
pub async fn kick(
    Extract(state): Extract<Arc<State>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let name = stream_name(name)?;
    match state.ingest.kick(&name).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(Refusal::SessionNotFound) => {
            let message = format!("nobody is publishing {name}");
            Err(ApiError::new(StatusCode::NOT_FOUND, "stream_not_found", message))
        }
        Err(other) => Err(other.into()),
    }
}

/// A stream's name from a path, percent-decoded.
pub fn stream_name(path: Result<Path<String>, PathRejection>) -> Result<StreamName, ApiError> {
    let bad =
        |_| ApiError::new(StatusCode::BAD_REQUEST, "bad_name", "a stream name is UTF-8, percent-encoded");
    let Path(name) = path.map_err(bad)?;
    Ok(name.parse()?)
}
