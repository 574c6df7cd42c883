//! `/api/streams`: what is live, and what an operator may do about it.

use crate::auth::Permission;
use crate::base::error_code::ErrorCode;
use crate::base::id::RecordingId;
use crate::http::error::ApiError;
use crate::http::gate::authorize::Access;
use crate::http::route::NamedStream;
use crate::http::state::State;
use crate::publish::publication::StreamInfo;
use crate::publish::{PublishError, Transport};
use crate::record::Begun;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// `GET /api/streams`: those the caller may watch.
pub async fn list(Extract(state): Extract<Arc<State>>, access: Extension<Access>) -> Json<Vec<StreamInfo>> {
    let mut streams = state.ingest.streams();
    streams.retain(|info| access.may(Permission::View, &info.stream));
    for stream in streams.iter_mut().filter(|stream| stream.via == Some(Transport::Mjpeg)) {
        stream.viewers += state.mjpeg.viewers(&stream.stream);
    }
    Json(streams)
}

/// `DELETE /api/streams/{name}`: ends a publication (`kicked`); its file is sealed in the background.
pub async fn kick(
    Extract(state): Extract<Arc<State>>,
    NamedStream(name): NamedStream,
) -> Result<StatusCode, ApiError> {
    match state.ingest.kick(&name).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(PublishError::SessionNotFound) => {
            let message = format!("nobody is publishing {name}");
            Err(ApiError::new(ErrorCode::StreamNotFound, message))
        }
        Err(other) => Err(other.into()),
    }
}

/// The file that a stream is recorded to.
#[derive(Serialize, ToSchema)]
pub struct File {
    /// Its identifier.
    recording: RecordingId,
    /// The file it goes on from.
    #[schema(required)]
    continues: Option<RecordingId>,
}

/// `POST /api/streams/{name}/recording`: from now on a new file. 201 if a recording begins; 202 if the
/// one there is goes on in a new file, which begins with the next keyframe.
pub async fn begin_file(
    Extract(state): Extract<Arc<State>>,
    NamedStream(name): NamedStream,
) -> Result<(StatusCode, Json<File>), ApiError> {
    let Begun { recording, continues, waits } = state.ingest.begin_file(&name)?;
    let status = if waits { StatusCode::ACCEPTED } else { StatusCode::CREATED };
    Ok((status, Json(File { recording, continues })))
}

/// The file that is sealed.
#[derive(Serialize, ToSchema)]
pub struct Stopped {
    /// Its identifier.
    recording: RecordingId,
}

/// `DELETE /api/streams/{name}/recording`: the file is sealed in the background (`stopped`), the stream
/// goes on.
pub async fn stop_recording(
    Extract(state): Extract<Arc<State>>,
    NamedStream(name): NamedStream,
) -> Result<(StatusCode, Json<Stopped>), ApiError> {
    let recording = state.ingest.stop_recording(&name)?;
    Ok((StatusCode::ACCEPTED, Json(Stopped { recording })))
}
