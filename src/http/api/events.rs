//! `/api/events`: what happens to streams and recordings, as server-sent events.

use crate::auth::Permission;
use crate::base::id::StreamName;
use crate::http::api::feed::{Entry, Next, Reader};
use crate::http::api::recordings::Listed;
use crate::http::error::ApiError;
use crate::http::gate::authorize::Access;
use crate::http::gate::forwarded::Caller;
use crate::http::listen::connection::Connection;
use crate::http::state::State;
use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as Extract};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt};
use serde::Deserialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// Proxies cut a connection that is silent for a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A client that takes nothing for this long is cut off: it comes back with its last id.
const STUCK: Duration = Duration::from_secs(30);
/// The header a browser comes back with.
const LAST_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Query of the events.
#[derive(Deserialize)]
pub(in crate::http) struct Filter {
    /// Only this stream's.
    stream: Option<StreamName>,
}

/// `GET /api/events`: `stream` and `recording` events from now on, or from behind `Last-Event-ID` on; and
/// `reset` where the client has missed some, or has just come: it should read the lists then. They end with
/// the grant: a later event needs a later one.
pub(in crate::http) async fn open(
    Extract(state): Extract<Arc<State>>,
    filter: Result<Query<Filter>, QueryRejection>,
    Extension(access): Extension<Access>,
    Caller(client): Caller,
    connection: Extension<Connection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Query(Filter { stream: only }) = filter.map_err(|bad| ApiError::bad_request(bad.body_text()))?;
    let permit = state.sockets.enter(client)?;
    let stop = state.sockets.tasks.stop_token();
    connection.cut_if_stuck(STUCK);
    let last = headers.get(LAST_ID).and_then(|last| last.to_str().ok());
    let reader = state.feed.reader(last);
    let granted = access.clone();
    let end = async move {
        tokio::select! {
            () = stop.cancelled_owned() => {}
            () = granted.over() => {}
        }
    };
    let wanted = Wanted { state, access, only };
    let events = stream::unfold((reader, wanted, permit), |(mut reader, wanted, permit)| async move {
        let event = wanted.next(&mut reader).await?;
        Some((Ok::<Event, Infallible>(event), (reader, wanted, permit)))
    });
    let events = Sse::new(events.take_until(end));
    let mut response = events.keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would collect events and send them late.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

/// What a client wants and may see.
struct Wanted {
    state: Arc<State>,
    access: Access,
    only: Option<StreamName>,
}

impl Wanted {
    fn is(&self, entry: &Entry) -> bool {
        let stream = entry.stream();
        let needs = match entry {
            Entry::Stream(_) => Permission::View,
            Entry::Recording(_) => Permission::Recordings,
        };
        self.only.as_ref().is_none_or(|only| only == stream) && self.access.may(needs, stream)
    }

    async fn next(&self, reader: &mut Reader) -> Option<Event> {
        loop {
            let (id, next) = reader.next().await?;
            let (kind, data) = match &next {
                Next::Reset => ("reset", "{}".to_owned()),
                Next::Entry(entry) if !self.is(entry) => continue,
                Next::Entry(entry) => {
                    (entry.kind(), entry.json(|manifest| Listed::new(&self.state, manifest)).ok()?)
                }
            };
            return Some(Event::default().id(id).event(kind).data(data));
        }
    }
}
