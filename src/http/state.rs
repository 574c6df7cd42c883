//! What the routes work on, and the two seams they reach it by.
//!
//! The seams are traits so that the protocols are tested without an engine or a disk behind them.

use crate::auth::Auth;
use crate::base::end_reason::EndReason;
use crate::base::heartbeat::Heartbeat;
use crate::base::id::{RecordingId, SessionId, StreamName};
use crate::base::metrics::Scrape;
use crate::base::quota::{Limit, Quota};
use crate::catalog::{Manifest, RecordingError};
use crate::hook::ReplayError;
use crate::http::api::feed::Feed;
use crate::http::gate::forwarded::Site;
use crate::http::gate::same_origin::Guard;
use crate::http::pages::assets::Assets;
use crate::http::socket::Sockets;
use crate::http::watch::limits::ViewerLimits;
use crate::ingest::chunks::Chunks;
use crate::ingest::mjpeg::Mjpeg;
use crate::ingest::webrtc::{Accepted, Offer, WebRtc};
use crate::live::Stream;
use crate::publish::publication::{ControlError, StreamInfo};
use crate::publish::{Limits, PublishError};
use crate::record::{Begun, Condition, Recordings};
use crate::webrtc::{Candidate, IceServer, Patch, Patched};
use futures_util::future::BoxFuture;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Everything the routes need; `app` fills it in.
pub struct State {
    /// Takes publishers by WebRTC.
    pub ingest: Arc<dyn Ingest>,
    /// Takes MediaRecorder's output.
    pub chunks: Chunks,
    /// The recordings.
    pub recordings: Arc<dyn RecordingStore>,
    /// The JPEG streams.
    pub mjpeg: Mjpeg,
    /// The server's address as clients see it.
    pub site: Site,
    /// From where, and from which pages, requests are served.
    pub guard: Guard,
    /// Which credentials allow what.
    pub auth: Auth,
    /// Runs a recording's hook again.
    pub replay: Replay,
    /// Pages, scripts, styles.
    pub assets: Assets,
    /// Whether publishers are taken: true once everything runs, false as soon as the server is told to stop.
    pub ready: Arc<AtomicBool>,
    /// How many connections there may be.
    pub connections: Quota,
    /// How many requests may be under way, on whatever connections.
    pub requests: Quota,
    /// The open WebSockets.
    pub sockets: Sockets,
    /// How many viewers there may be.
    pub viewers: ViewerLimits,
    /// What operators are told.
    pub diagnostics: Diagnostics,
    /// What happens, for `/api/events`.
    pub feed: Feed,
}

/// Notes durably that a recording's hook is to run, and queues it.
pub type Replay = Arc<dyn Fn(RecordingId) -> BoxFuture<'static, Result<(), ReplayError>> + Send + Sync>;

/// Adds its present values to a scrape.
pub type Owner = Box<dyn Fn(&mut Scrape) + Send + Sync>;

/// What operators are told from places that HTTP doesn't know; `app` fills it in.
#[derive(Default)]
pub struct Diagnostics {
    /// The loops that must turn.
    pub heartbeats: Vec<Heartbeat>,
    /// Whether the queue of hooks is full.
    pub hooks_full: Option<Box<dyn Fn() -> bool + Send + Sync>>,
    /// What has present values. They answer from memory.
    pub owners: Vec<Owner>,
}

/// The quota of connections, and of requests.
pub fn connections(limits: &Limits) -> Quota {
    let all = Limit("limits.max_connections", limits.max_connections);
    Quota::new(all, Limit("limits.max_connections_per_address", limits.max_connections_per_address))
}

/// What the routes ask of ingest; see [`WebRtc`] for the promises.
pub trait Ingest: Send + Sync {
    /// Answers an offer.
    fn accept(&self, offer: Offer) -> BoxFuture<'_, Result<Accepted, PublishError>>;
    /// Adds a candidate of the peer.
    fn candidate<'a>(
        &'a self,
        session: &'a SessionId,
        candidate: Candidate,
    ) -> BoxFuture<'a, Result<(), PublishError>>;
    /// WHIP PATCH.
    fn patch<'a>(
        &'a self,
        session: &'a SessionId,
        patch: Patch,
    ) -> BoxFuture<'a, Result<Patched, PublishError>>;
    /// Ends a session's publication.
    fn stop<'a>(
        &'a self,
        session: &'a SessionId,
        reason: EndReason,
    ) -> BoxFuture<'a, Result<(), PublishError>>;
    /// Ends a publication by name.
    fn kick<'a>(&'a self, stream: &'a StreamName) -> BoxFuture<'a, Result<(), PublishError>>;
    /// A stream's media goes to a new file from now on.
    fn begin_file(&self, stream: &StreamName) -> Result<Begun, ControlError>;
    /// A stream is recorded no longer, and goes on; gives the file that was written.
    fn stop_recording(&self, stream: &StreamName) -> Result<RecordingId, ControlError>;
    /// All publications.
    fn streams(&self) -> Vec<StreamInfo>;
    /// The media of one of them, for viewers.
    fn stream(&self, name: &StreamName) -> Option<Stream>;
    /// What clients should use.
    fn ice_servers(&self) -> Vec<IceServer>;
}

impl Ingest for WebRtc {
    fn accept(&self, offer: Offer) -> BoxFuture<'_, Result<Accepted, PublishError>> {
        Box::pin(self.accept(offer))
    }

    fn candidate<'a>(
        &'a self,
        session: &'a SessionId,
        candidate: Candidate,
    ) -> BoxFuture<'a, Result<(), PublishError>> {
        Box::pin(self.candidate(session, candidate))
    }

    fn patch<'a>(
        &'a self,
        session: &'a SessionId,
        patch: Patch,
    ) -> BoxFuture<'a, Result<Patched, PublishError>> {
        Box::pin(self.patch(session, patch))
    }

    fn stop<'a>(
        &'a self,
        session: &'a SessionId,
        reason: EndReason,
    ) -> BoxFuture<'a, Result<(), PublishError>> {
        Box::pin(self.stop(session, reason))
    }

    fn kick<'a>(&'a self, stream: &'a StreamName) -> BoxFuture<'a, Result<(), PublishError>> {
        Box::pin(std::future::ready(self.publications().kick(stream)))
    }

    fn begin_file(&self, stream: &StreamName) -> Result<Begun, ControlError> {
        self.publications().begin_file(stream)
    }

    fn stop_recording(&self, stream: &StreamName) -> Result<RecordingId, ControlError> {
        self.publications().stop_recording(stream)
    }

    fn streams(&self) -> Vec<StreamInfo> {
        self.publications().list()
    }

    fn stream(&self, name: &StreamName) -> Option<Stream> {
        self.publications().stream(name)
    }

    fn ice_servers(&self) -> Vec<IceServer> {
        self.peers().ice_servers()
    }
}

/// What the routes ask of the recordings; see [`Recordings`] for the promises.
pub trait RecordingStore: Send + Sync {
    /// So many of those that are `wanted`, newest first, and older than `before`. Blocking.
    fn page(
        &self,
        before: Option<&RecordingId>,
        limit: usize,
        wanted: &dyn Fn(&Manifest) -> bool,
    ) -> Vec<Manifest>;
    /// One recording.
    fn get(&self, id: &RecordingId) -> Option<Manifest>;
    /// The recording whose file has this name, and the file's path.
    fn by_file(&self, file: &str) -> Option<(Manifest, PathBuf)>;
    /// Removes a recording's file.
    fn delete<'a>(&'a self, id: &'a RecordingId) -> BoxFuture<'a, Result<Manifest, RecordingError>>;
    /// The state of the folder.
    fn condition(&self) -> BoxFuture<'_, Condition>;
}

impl RecordingStore for Recordings {
    fn page(
        &self,
        before: Option<&RecordingId>,
        limit: usize,
        wanted: &dyn Fn(&Manifest) -> bool,
    ) -> Vec<Manifest> {
        self.page(before, limit, wanted)
    }

    fn get(&self, id: &RecordingId) -> Option<Manifest> {
        self.get(id)
    }

    fn by_file(&self, file: &str) -> Option<(Manifest, PathBuf)> {
        self.by_file(file)
    }

    fn delete<'a>(&'a self, id: &'a RecordingId) -> BoxFuture<'a, Result<Manifest, RecordingError>> {
        Box::pin(self.delete(id))
    }

    fn condition(&self) -> BoxFuture<'_, Condition> {
        Box::pin(self.condition())
    }
}
