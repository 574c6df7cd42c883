//! A Motion-JPEG recording for browsers, none of which plays its file: its pictures as they were, at their times,
//! as those of a live camera come.

use crate::http::access::Access;
use crate::http::client::Caller;
use crate::http::connection::Connection;
use crate::http::error::ApiError;
use crate::http::live::{Kind, Seat};
use crate::http::mjpeg::{STUCK, parts};
use crate::http::recordings::{gone, sealed};
use crate::http::state::State;
use crate::live::mjpeg::{CLOSING, OPENING, Picture, REPEAT};
use crate::record::{self, Pictures};
use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Extract};
use axum::response::Response;
use serde::Deserialize;
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

/// `GET /recordings/{file}/pictures`: every picture from a time on. Whoever looks has a viewer's place.
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
    let seat = state.viewers.enter(Kind::Mjpeg, client, &manifest.stream)?;
    let open = move || Pictures::open(&path, Duration::from_millis(from));
    let pictures = match tokio::task::spawn_blocking(open).await.map_err(ApiError::internal)? {
        Ok(Some(pictures)) => pictures,
        Ok(None) => return Err(ApiError::bad_request("it has no JPEG pictures: play its file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(gone(&manifest)),
        Err(error) => return Err(ApiError::internal(error)),
    };
    connection.cut_if_stuck(STUCK);
    let stop = state.sockets.tasks.stop_token();
    let player =
        Player { stage: Stage::Opening, pictures, coming: None, clock: None, shown: None, stop, _seat: seat };
    Ok(parts(player, Player::next))
}

#[derive(Clone, Copy)]
enum Stage {
    Opening,
    Playing,
    Over,
}

/// Somebody who looks at a recording.
struct Player {
    stage: Stage,
    pictures: Pictures,
    /// Read, and not due yet.
    coming: Option<record::Picture>,
    /// When the recording's time 0 was, or would have been.
    clock: Option<(Instant, Duration)>,
    /// The last part.
    shown: Option<Bytes>,
    stop: CancellationToken,
    _seat: Seat,
}

impl Player {
    /// What to send next; `None` when all is said, and when the server stops.
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
        let (time, image) = match self.coming.take() {
            Some(picture) => picture,
            None => {
                let (player, read) = self.read().await?;
                self = player;
                let Some(picture) = read else {
                    self.stage = Stage::Over;
                    return Some((Bytes::from_static(CLOSING), self));
                };
                picture
            }
        };
        let now = Instant::now();
        let (began, first) = *self.clock.get_or_insert((now, time));
        let due = began + time.saturating_sub(first);
        // A camera that was silent for long: what says nothing would be cut.
        if let Some(shown) = self.shown.clone().filter(|_| due > now + REPEAT) {
            self.coming = Some((time, image));
            return self.waits(now + REPEAT).await.then_some((shown, self));
        }
        if now > due + LATE {
            self.clock = Some((now, time));
        }
        if !self.waits(due).await {
            return None;
        }
        let part = Picture::timed(&image, time).part();
        self.shown = Some(part.clone());
        Some((part, self))
    }

    /// False if the server stops before.
    async fn waits(&self, until: Instant) -> bool {
        self.stop.run_until_cancelled(sleep_until(until)).await.is_some()
    }

    /// The next picture off the disk; `None` behind the last; nothing at all if it can't be read.
    async fn read(mut self) -> Option<(Self, Option<record::Picture>)> {
        let read = move || {
            let read = self.pictures.next_picture();
            (self, read)
        };
        let (player, read) = tokio::task::spawn_blocking(read).await.ok()?;
        match read {
            Ok(picture) => Some((player, picture)),
            Err(error) => {
                tracing::warn!(%error, "a recording's pictures can't be read");
                None
            }
        }
    }
}
