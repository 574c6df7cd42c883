//! `/live/{name}`: a stream as WebM while it happens, over a WebSocket or as an endless file (`PROTOCOL.md`,
//! "Live WebM").
//!
//! One task a viewer. A viewer that doesn't read waits in its task; what it misses meanwhile is counted
//! by the stream, not kept for it.

use crate::auth::Permission;
use crate::base::error_code::ErrorCode;
use crate::base::id::StreamName;
use crate::base::metrics::Scrape;
use crate::base::quota::{ClientKey, Limit, LimitExceeded, Permit, Quota};
use crate::http::api::streams::stream_name;
use crate::http::error::ApiError;
use crate::http::gate::authorize::{Access, SUBPROTOCOL};
use crate::http::gate::forwarded::Caller;
use crate::http::listen::accept::ReassemblyBudget;
use crate::http::listen::connection::Connection;
use crate::http::socket::{self, End, Socket};
use crate::http::state::State;
use crate::live::{Segment, Stream, View, Viewer};
use crate::publish::Limits;
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocketUpgrade, close_code};
use axum::extract::{Path, State as Extract};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// A reader that takes nothing for this long is gone: its place is free again, its connection cut.
const SEND_TIME: Duration = Duration::from_secs(10);
/// How long an HTTP viewer waits for a stream's first picture, which its `Content-Type` depends on: two
/// keyframe intervals.
const FIRST_TIME: Duration = Duration::from_secs(8);
/// Viewers say nothing; what they say nevertheless is read up to here and thrown away.
const MAX_MESSAGE: usize = 4 << 10;
/// Clusters on their way to an HTTP connection: more would only be older.
const HTTP_QUEUE: usize = 2;

/// Who watches, and what they share.
pub struct ViewerLimits {
    places: Quota,
    streams: Quota<StreamName>,
    cache: usize,
    /// In the order of [`Kind`].
    seated: [Arc<AtomicU64>; 3],
}

/// How somebody watches.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) enum Kind {
    WebSocket,
    Http,
    Mjpeg,
}

/// A viewer's seat, free again when dropped.
#[derive(Debug)]
pub(in crate::http) struct ViewerPermit {
    _place: Permit,
    _at_stream: Permit<StreamName>,
    seated: Arc<AtomicU64>,
}

impl Drop for ViewerPermit {
    fn drop(&mut self) {
        self.seated.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ViewerLimits {
    /// Nobody yet; streams have so many bytes of cache.
    pub fn new(limits: &Limits, cache: u64) -> Self {
        let all = Limit("limits.max_viewers", limits.max_viewers);
        let each = Limit("limits.max_viewers_per_address", limits.max_viewers_per_address);
        let stream = Limit("limits.max_viewers_per_stream", limits.max_viewers_per_stream);
        Self {
            places: Quota::new(all, each),
            streams: Quota::new(all, stream),
            cache: usize::try_from(cache).unwrap_or(usize::MAX),
            seated: Default::default(),
        }
    }

    /// A seat for one more, free again when dropped.
    pub(in crate::http) fn enter(
        &self,
        kind: Kind,
        client: Option<ClientKey>,
        stream: &StreamName,
    ) -> Result<ViewerPermit, ApiError> {
        let place = self.places.enter(client)?;
        // A stream has many clients: that it has all the viewers it may have is nobody's own doing.
        let full = |(LimitExceeded::Own(limit) | LimitExceeded::All(limit)): LimitExceeded| {
            LimitExceeded::All(limit)
        };
        let at_stream = self.streams.enter(Some(stream.clone())).map_err(full)?;
        let seated = self.seated[kind as usize].clone();
        seated.fetch_add(1, Ordering::Relaxed);
        Ok(ViewerPermit { _place: place, _at_stream: at_stream, seated })
    }

    /// What there is at present.
    pub(in crate::http) fn gauges(&self, scrape: &mut Scrape) {
        let of = |kind: Kind| self.seated[kind as usize].load(Ordering::Relaxed);
        let values =
            [("websocket", of(Kind::WebSocket)), ("http", of(Kind::Http)), ("mjpeg", of(Kind::Mjpeg))];
        scrape.gauges("viewers", "Viewers of live streams, by how they watch", "kind", values);
    }
}

/// `GET /live/{name}` as a WebSocket, `GET /live/{name}.webm` without.
pub(in crate::http) async fn watch(
    Extract(state): Extract<Arc<State>>,
    name: Result<Path<String>, PathRejection>,
    (Caller(client), Extension(access)): (Caller, Extension<Access>),
    (connection, unfinished): (Extension<Connection>, Extension<ReassemblyBudget>),
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    match upgrade {
        Ok(upgrade) => {
            let name = stream_name(name)?;
            let place = state.sockets.enter(client)?;
            let upgrade =
                upgrade.protocols([SUBPROTOCOL]).max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
            Ok(upgrade.on_upgrade(async move |opened| {
                state.clone().sockets.tasks.spawn("viewer", async move {
                    let socket = Socket::new(opened, &state.sockets, unfinished);
                    LiveSocket { socket, state, name, client, access }.run().await;
                    drop(place);
                });
            }))
        }
        // The name is read here as it was where the caller was admitted.
        Err(_) if socket::is_wanted(&headers) => Err(ApiError::with_status(
            StatusCode::UPGRADE_REQUIRED,
            ErrorCode::BadRequest,
            "this is no handshake of a WebSocket: see RFC 6455 section 4.1",
        )),
        Err(_) => {
            let plain =
                |Path(file): Path<String>| file.strip_suffix(".webm").map(|name| Path(name.to_owned()));
            match name.map(plain) {
                Ok(None) => Err(ApiError::with_status(
                    StatusCode::UPGRADE_REQUIRED,
                    ErrorCode::BadRequest,
                    "open /live/{name} as a WebSocket, or get /live/{name}.webm",
                )),
                Ok(Some(name)) => file(state, stream_name(Ok(name))?, client, &connection).await,
                Err(bad) => file(state, stream_name(Err(bad))?, client, &connection).await,
            }
        }
    }
}

fn find(state: &State, name: &StreamName) -> Result<Stream, ApiError> {
    state.ingest.stream(name).ok_or_else(|| {
        let message = format!("nobody is publishing {name}: see /api/streams, or try again later");
        ApiError::new(ErrorCode::StreamNotFound, message)
    })
}

/// An endless file.
async fn file(
    state: Arc<State>,
    name: StreamName,
    client: Option<ClientKey>,
    connection: &Connection,
) -> Result<Response, ApiError> {
    let stream = find(&state, &name)?;
    let place = state.viewers.enter(Kind::Http, client, &name)?;
    let mut viewer = stream.view(state.viewers.cache);
    drop(stream);
    let Ok(View::Init(segment)) = timeout(FIRST_TIME, viewer.next()).await else {
        let message = format!("{name} sends nothing at the moment: try again later");
        return Err(ApiError::new(ErrorCode::StreamNotFound, message));
    };
    connection.cut_if_stuck(SEND_TIME);
    let (clusters, mut body) = mpsc::channel::<Bytes>(HTTP_QUEUE);
    let (mime, stop) = (segment.mime.clone(), state.sockets.tasks.stop_token());
    state.sockets.tasks.spawn("viewer", async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = clusters.closed() => {}
            () = fill(&clusters, &mut viewer, segment) => {}
        }
        drop(place);
    });
    let body = futures_util::stream::poll_fn(move |context| {
        body.poll_recv(context).map(|bytes| bytes.map(Ok::<_, std::convert::Infallible>))
    });
    let headers = [(header::CONTENT_TYPE, mime), (header::CACHE_CONTROL, "no-store".to_owned())];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// Ends with the stream, with a reader that takes nothing, and when a track comes that the header lacks.
async fn fill(clusters: &mpsc::Sender<Bytes>, viewer: &mut Viewer, segment: Arc<Segment>) {
    let send = async |bytes: Bytes| matches!(timeout(SEND_TIME, clusters.send(bytes)).await, Ok(Ok(())));
    if !send(segment.init.clone()).await {
        return;
    }
    loop {
        match viewer.next().await {
            View::Init(next) if next.tracks > segment.tracks => return,
            View::Init(_) | View::Skipped(_) => {}
            View::Cluster(own, shared) => {
                if !send(own).await || !send(shared).await {
                    return;
                }
            }
            View::End(_) => return,
        }
    }
}

/// A viewer's socket.
struct LiveSocket {
    socket: Socket,
    state: Arc<State>,
    name: StreamName,
    client: Option<ClientKey>,
    access: Access,
}

impl LiveSocket {
    async fn run(mut self) {
        let Err(end) = self.serve().await;
        self.socket.close(end).await;
    }

    async fn serve(&mut self) -> Result<Infallible, End> {
        let _place = self.state.viewers.enter(Kind::WebSocket, self.client, &self.name)?;
        let mut viewer = find(&self.state, &self.name)?.view(self.state.viewers.cache);
        loop {
            tokio::select! {
                biased;
                // What a viewer says is of no interest.
                said = self.socket.next() => drop(said?),
                view = viewer.next() => self.show(view, &mut viewer).await?,
            }
        }
    }

    async fn show(&mut self, view: View, viewer: &mut Viewer) -> Result<(), End> {
        match view {
            View::Init(segment) => {
                self.socket.tell(&json!({ "type": "init", "mime": segment.mime })).await?;
                self.socket.send(Message::Binary(segment.init.clone())).await
            }
            View::Skipped(frames) => self.socket.tell(&json!({ "type": "skipped", "frames": frames })).await,
            View::Cluster(own, shared) => {
                self.socket.send(Message::Binary([own, shared].concat().into())).await
            }
            View::End(reason) => {
                // Its publisher may have come back with other tracks: another stream of the same name.
                let next = self.state.ingest.stream(&self.name).filter(|stream| !viewer.is_of(stream));
                if let Some(stream) = next {
                    // Who was let in sees a stream to its end; the next one is asked for.
                    self.access.asks(Permission::View, &self.name).await?;
                    *viewer = stream.view(self.state.viewers.cache);
                    return Ok(());
                }
                self.socket.tell(&json!({ "type": "end", "reason": reason.as_str() })).await?;
                Err(End::Closed(close_code::NORMAL, "the stream has ended"))
            }
        }
    }
}
