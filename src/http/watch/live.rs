//! `/live/{name}`: a stream as WebM while it happens, over a WebSocket or as an endless file (`PROTOCOL.md`,
//! "Live WebM").
//!
//! One task a viewer. A viewer that doesn't read waits in its task; what it misses meanwhile is counted
//! by the stream, not kept for it.

use crate::auth::Permission;
use crate::base::error_code::ErrorCode;
use crate::base::id::StreamName;
use crate::base::quota::ClientKey;
use crate::http::error::ApiError;
use crate::http::gate::authorize::Access;
use crate::http::gate::forwarded::Caller;
use crate::http::listen::connection::Connection;
use crate::http::route::{FileIn, NamedStream, StreamIn, wants_websocket};
use crate::http::socket::{End, Socket};
use crate::http::state::State;
use crate::http::upgrade::{Opened, Upgrade};
use crate::http::watch::limits::ViewerKind;
use crate::live::{Segment, Stream, View, Viewer};
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State as Extract;
use axum::extract::ws::{Message, close_code};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// A reader that takes nothing for this long is gone: its place is free again, its connection cut.
const SEND_TIME: Duration = Duration::from_secs(10);
/// How long an HTTP viewer waits for a stream's first picture, which its `Content-Type` depends on: two
/// keyframe intervals.
const FIRST_TIME: Duration = Duration::from_secs(8);
/// Viewers send nothing; what they send nevertheless is read up to here and thrown away.
const MAX_MESSAGE: usize = 4 << 10;
/// Clusters on their way to an HTTP connection: more would only be older.
const HTTP_QUEUE: usize = 2;

/// A WebSocket's path has the stream's name, a file's with an extension.
pub(in crate::http) const FILE_OR_SOCKET: StreamIn = StreamIn::File(FileIn {
    parameter: "name",
    extension: ".webm",
    bare_for_sockets: true,
    otherwise: (StatusCode::UPGRADE_REQUIRED, "open /live/{name} as a WebSocket, or get /live/{name}.webm"),
});

/// `GET /live/{name}` as a WebSocket, `GET /live/{name}.webm` without.
pub(in crate::http) async fn watch(
    Extract(state): Extract<Arc<State>>,
    name: Result<NamedStream, ApiError>,
    Caller(client): Caller,
    connection: Extension<Connection>,
    headers: HeaderMap,
    upgrade: Result<Upgrade, ApiError>,
) -> Result<Response, ApiError> {
    match upgrade {
        Ok(upgrade) => {
            let NamedStream(name) = name?;
            upgrade.open("viewer", MAX_MESSAGE, |Opened { socket, state, access, client }| {
                LiveSocket { socket, state, name, client, access }.run()
            })
        }
        Err(_) if wants_websocket(&headers) => Err(ApiError::with_status(
            StatusCode::UPGRADE_REQUIRED,
            ErrorCode::BadRequest,
            "this is no handshake of a WebSocket: see RFC 6455 section 4.1",
        )),
        Err(_) => file(state, name?.0, client, &connection).await,
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
    let permit = state.viewers.enter(ViewerKind::Http, client, &name)?;
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
        drop(permit);
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
        let _permit = self.state.viewers.enter(ViewerKind::WebSocket, self.client, &self.name)?;
        let mut viewer = find(&self.state, &self.name)?.view(self.state.viewers.cache);
        loop {
            tokio::select! {
                biased;
                // What a viewer sends is of no interest.
                message = self.socket.next() => drop(message?),
                view = viewer.next() => self.show(view, &mut viewer).await?,
            }
        }
    }

    async fn show(&mut self, view: View, viewer: &mut Viewer) -> Result<(), End> {
        match view {
            View::Init(segment) => {
                self.socket.send_json(&json!({ "type": "init", "mime": segment.mime })).await?;
                self.socket.send(Message::Binary(segment.init.clone())).await
            }
            View::Skipped(frames) => {
                self.socket.send_json(&json!({ "type": "skipped", "frames": frames })).await
            }
            View::Cluster(own, shared) => {
                self.socket.send(Message::Binary([own, shared].concat().into())).await
            }
            View::End(reason) => {
                // Its publisher may have come back with other tracks: another stream of the same name.
                let next = self.state.ingest.stream(&self.name).filter(|stream| !stream.has_viewer(viewer));
                if let Some(stream) = next {
                    // A viewer sees a stream to its end; for the next one its credential is asked again.
                    self.access.asks(Permission::View, &self.name).await?;
                    *viewer = stream.view(self.state.viewers.cache);
                    return Ok(());
                }
                self.socket.send_json(&json!({ "type": "end", "reason": reason.as_str() })).await?;
                Err(End::Closed(close_code::NORMAL, "the stream has ended"))
            }
        }
    }
}
