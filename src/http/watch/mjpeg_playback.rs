//! A Motion-JPEG recording for browsers, none of which plays its file: its pictures as they were, at their times,
//! as those of a live camera come.

use crate::base::error_code::ErrorCode;
use crate::http::api::recordings::{gone, sealed};
use crate::http::error::ApiError;
use crate::http::gate::authorize::Access;
use crate::http::gate::forwarded::Caller;
use crate::http::listen::connection::Connection;
use crate::http::state::State;
use crate::http::watch::limits::{ViewerKind, ViewerPermit};
use crate::http::watch::mjpeg::{STUCK, parts};
use crate::live::mjpeg::{CLOSING, OPENING, Picture, REPEAT, last_words};
use crate::record::{self, Pictures};
use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Extract};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// A viewer that is later than this sees the rest later too: it can't read as fast as the pictures came.
const LATE: Duration = Duration::from_secs(1);

/// Where to begin.
#[derive(Deserialize)]
pub struct From {
    /// In milliseconds of the recording.
    #[serde(default)]
    from: u64,
}

/// `GET /recordings/{file}/pictures`: every picture from a time on. The client counts as a viewer.
pub async fn show(
    Extract(state): Extract<Arc<State>>,
    access: Extension<Access>,
    Caller(client): Caller,
    connection: Extension<Connection>,
    file: Result<Path<String>, PathRejection>,
    from: Result<Query<From>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(From { from }) = from.map_err(|bad| ApiError::bad_request(bad.body_text()))?;
    let (manifest, path) = sealed(&state, &access, file).await?;
    let permit = state.viewers.enter(ViewerKind::Mjpeg, client, &manifest.stream)?;
    let open = move || Pictures::open(&path, Duration::from_millis(from));
    let pictures = match tokio::task::spawn_blocking(open).await.map_err(ApiError::internal)? {
        Ok(Some(pictures)) => pictures,
        Ok(None) => return Err(ApiError::bad_request("it has no JPEG pictures: play its file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(gone(&manifest)),
        Err(error) => return Err(ApiError::internal(error)),
    };
    connection.cut_if_stuck(STUCK);
    let stop = state.sockets.tasks.stop_token();
    let (stage, newest, file) = (Stage::Opening, Duration::from_millis(from), manifest.file);
    let player = Player {
        stage,
        file,
        pictures,
        coming: None,
        clock: None,
        newest,
        shown: None,
        stop,
        _permit: permit,
    };
    Ok(parts(player, Player::next))
}

#[derive(Clone, Copy)]
enum Stage {
    Opening,
    Playing,
    Over,
}

/// A viewer of a recording.
struct Player {
    stage: Stage,
    /// Its name, for the log.
    file: String,
    pictures: Pictures,
    /// Read, and not due yet.
    coming: Option<record::Picture>,
    /// When the recording's time 0 was, or would have been.
    clock: Option<(Instant, Duration)>,
    /// Time of the last picture.
    newest: Duration,
    /// The last part.
    shown: Option<Bytes>,
    stop: CancellationToken,
    _permit: ViewerPermit,
}

impl Player {
    /// What to send next; `None` at the end, and when the server stops.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        match self.stage {
            Stage::Opening => {
                self.stage = Stage::Playing;
                Some((Bytes::from_static(OPENING), self))
            }
            Stage::Playing => self.play().await,
            Stage::Over => None,
        }
    }

    async fn play(mut self) -> Option<(Bytes, Self)> {
        let picture = match self.coming.take() {
            Some(picture) => picture,
            None => {
                let (player, read) = self.read().await?;
                self = player;
                match read {
                    Ok(Some(picture)) => picture,
                    end => {
                        self.stage = Stage::Over;
                        return Some((end.map_or_else(|error| self.breaks_off(&error), closing), self));
                    }
                }
            }
        };
        let time = picture.time;
        let now = Instant::now();
        let (began, first) = *self.clock.get_or_insert((now, time));
        let due = began + time.saturating_sub(first);
        // A camera that was silent for long: a silent connection would be cut.
        if let Some(shown) = self.shown.clone().filter(|_| due > now + REPEAT) {
            self.coming = Some(picture);
            return self.waits(now + REPEAT).await.then_some((shown, self));
        }
        if now > due + LATE {
            self.clock = Some((now, time));
        }
        if !self.waits(due).await {
            return None;
        }
        let part = Picture::timed(&picture.image, time, picture.behind_damage).part();
        self.newest = time;
        self.shown = Some(part.clone());
        Some((part, self))
    }

    /// False if the server stops before.
    async fn waits(&self, until: Instant) -> bool {
        self.stop.run_until_cancelled(sleep_until(until)).await.is_some()
    }

    /// The next picture off the disk; `None` behind the last; nothing at all while the server stops.
    async fn read(mut self) -> Option<(Self, io::Result<Option<record::Picture>>)> {
        let read = move || {
            let read = self.pictures.next_picture();
            (self, read)
        };
        tokio::task::spawn_blocking(read).await.ok()
    }

    /// The answer has begun, so that an error can only be its last part.
    fn breaks_off(&self, error: &io::Error) -> Bytes {
        tracing::warn!(file = self.file, %error, "a recording's pictures can't be read");
        let error = ApiError::new(
            ErrorCode::Internal,
            format!(
                "the recording can't be read from {:.1} s on: its file is damaged, and the server's log says where",
                self.newest.as_secs_f64()
            ),
        );
        last_words(&json!(error).to_string())
    }
}

fn closing(_: Option<record::Picture>) -> Bytes {
    Bytes::from_static(CLOSING)
}
