//! A server on a free port, with an ingest that plays a script and a catalogue that is a list.

use crate::auth::{self, Auth};
use crate::base::end_reason::EndReason;
use crate::base::id::SessionId;
use crate::base::id::{RecordingId, Secret, StreamName};
use crate::base::tasks::Tasks;
use crate::catalog::RecordingError;
use crate::catalog::{HookRecord, HookState, Manifest, RecordingState};
use crate::hook::ReplayError;
use crate::http::api::feed::Feed;
use crate::http::gate::forwarded::Site;
use crate::http::gate::same_origin::Guard;
use crate::http::pages::assets::Assets;
use crate::http::socket::{Sockets, Timing};
use crate::http::state::{Diagnostics, Ingest, RecordingStore, State, connections};
use crate::http::watch::limits::ViewerLimits;
use crate::http::{Config, Listeners};
use crate::ingest::chunks::{self, Chunks};
use crate::ingest::mjpeg::Mjpeg;
use crate::ingest::webrtc::{Accepted, Offer};
use crate::live::Stream;
use crate::publish::publication::{ControlError, Picture, StreamInfo};
use crate::publish::registry::Publications;
use crate::publish::status::Status;
use crate::publish::{Limits, PublishError, Transport};
use crate::record::{self, Begun, Condition, Recordings};
use crate::webrtc::{Candidate, IceServer, Patch, Patched};
use axum::http::StatusCode;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

/// Takes every offer (or refuses as told), notes every call.
#[derive(Default)]
pub struct FakeIngest {
    pub calls: Mutex<Vec<String>>,
    pub refuse: Mutex<Option<PublishError>>,
    pub statuses: Mutex<HashMap<String, watch::Sender<Status>>>,
    pub ice_servers: Vec<IceServer>,
    pub lives: Mutex<HashMap<StreamName, Stream>>,
}

impl FakeIngest {
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().clone()
    }

    pub fn set_status(&self, stream: &str, status: Status) {
        self.statuses.lock()[stream].send_replace(status);
    }

    fn note<T: Send + 'static>(&self, call: String, answer: T) -> BoxFuture<'_, Result<T, PublishError>> {
        self.calls.lock().push(call);
        let refusal = self.refuse.lock().clone();
        async move { refusal.map_or(Ok(answer), Err) }.boxed()
    }
}

impl Ingest for FakeIngest {
    fn accept(&self, offer: Offer) -> BoxFuture<'_, Result<Accepted, PublishError>> {
        let call = format!(
            "accept {} sdp={} record={} resume={} bearer={} session={}",
            offer.stream,
            offer.sdp,
            offer.record,
            offer.resume.as_ref().map_or("-", Secret::reveal),
            offer.bearer.as_deref().unwrap_or("-"),
            offer.session.as_ref().map_or("-", SessionId::as_str),
        );
        let mut statuses = self.statuses.lock();
        let status =
            statuses.entry(offer.stream.to_string()).or_insert_with(|| watch::channel(Status::pending()).0);
        let candidate =
            Candidate { candidate: "candidate:1 1 udp 1 127.0.0.1 8189 typ host".into(), ..init() };
        let accepted = Accepted {
            session: SessionId::from_client(&format!("session-{}", offer.stream.as_str().replace(' ', "-"))),
            answer: "v=0 answer".into(),
            candidates: vec![candidate],
            etag: "gen-1".into(),
            resume: Secret::from_client("resume-1"),
            status: status.subscribe(),
        };
        self.note(call, accepted)
    }

    fn candidate<'a>(
        &'a self,
        session: &'a SessionId,
        candidate: Candidate,
    ) -> BoxFuture<'a, Result<(), PublishError>> {
        self.note(format!("candidate {} {:?}", session.as_str(), candidate.candidate), ())
    }

    fn patch<'a>(
        &'a self,
        session: &'a SessionId,
        patch: Patch,
    ) -> BoxFuture<'a, Result<Patched, PublishError>> {
        let call = format!("patch {} {} {}", session.as_str(), patch.if_match.join(","), patch.fragment);
        match patch.if_match.join(",").as_str() {
            "*" => self
                .note(call, Patched::Restarted { fragment: "a=ice-ufrag:new".into(), etag: "gen-2".into() }),
            "gen-1" => self.note(call, Patched::Trickled),
            _ => async { Err(PublishError::StaleEtag) }.boxed(),
        }
    }

    fn stop<'a>(
        &'a self,
        session: &'a SessionId,
        reason: EndReason,
    ) -> BoxFuture<'a, Result<(), PublishError>> {
        self.note(format!("stop {} {}", session.as_str(), reason.as_str()), ())
    }

    fn kick<'a>(&'a self, stream: &'a StreamName) -> BoxFuture<'a, Result<(), PublishError>> {
        self.note(format!("kick {stream}"), ())
    }

    fn begin_file(&self, stream: &StreamName) -> Result<Begun, ControlError> {
        self.calls.lock().push(format!("begin file {stream}"));
        let id = |ms| RecordingId::new(Timestamp::from_millisecond(ms).unwrap());
        match stream.as_str() {
            "cam" => Ok(Begun { recording: id(1), continues: None, waits: false }),
            "taped" => Ok(Begun { recording: id(2), continues: Some(id(1)), waits: true }),
            "mp4" => Err(ControlError::Whole),
            "full" => Err(ControlError::Record(RecordingError::DiskFull)),
            _ => Err(ControlError::NotLive),
        }
    }

    fn stop_recording(&self, stream: &StreamName) -> Result<RecordingId, ControlError> {
        self.calls.lock().push(format!("stop recording {stream}"));
        match stream.as_str() {
            "taped" => Ok(RecordingId::new(Timestamp::UNIX_EPOCH)),
            "cam" => Err(ControlError::NotRecorded),
            _ => Err(ControlError::NotLive),
        }
    }

    fn streams(&self) -> Vec<StreamInfo> {
        vec![cam()]
    }

    fn stream(&self, name: &StreamName) -> Option<Stream> {
        self.lives.lock().get(name).cloned()
    }

    fn ice_servers(&self) -> Vec<IceServer> {
        self.ice_servers.clone()
    }
}

/// The one stream that lives.
pub fn cam() -> StreamInfo {
    let codec = crate::media::Codec::Vp8;
    StreamInfo {
        stream: "cam".parse().unwrap(),
        status: Status::publishing().as_str(),
        via: Some(Transport::Webrtc),
        started_at: Timestamp::UNIX_EPOCH,
        recording: None,
        tracks: vec![codec],
        video: Some(Picture { codec, width: Some(640), height: Some(360), frames: 30 }),
        bytes: 100_000,
        frames: 30,
        lost: 0,
        viewers: 0,
        warnings: Vec::new(),
    }
}

fn init() -> Candidate {
    Candidate { sdp_mid: Some("0".into()), sdp_m_line_index: Some(0), ..Candidate::default() }
}

/// A list of manifests over a folder.
pub struct FakeCatalogue {
    pub folder: PathBuf,
    pub list: Mutex<Vec<Manifest>>,
    pub condition: Mutex<Condition>,
}

impl RecordingStore for FakeCatalogue {
    fn condition(&self) -> BoxFuture<'_, Condition> {
        let condition = *self.condition.lock();
        async move { condition }.boxed()
    }

    fn page(
        &self,
        before: Option<&RecordingId>,
        limit: usize,
        wanted: &dyn Fn(&Manifest) -> bool,
    ) -> Vec<Manifest> {
        let older = |manifest: &Manifest| before.is_none_or(|before| manifest.id < *before);
        let all = self.list.lock().clone();
        all.into_iter().filter(|manifest| older(manifest) && wanted(manifest)).take(limit).collect()
    }

    fn get(&self, id: &RecordingId) -> Option<Manifest> {
        self.list.lock().iter().find(|manifest| manifest.id == *id).cloned()
    }

    fn by_file(&self, file: &str) -> Option<(Manifest, PathBuf)> {
        let path = self.folder.join(file);
        let list = self.list.lock();
        list.iter().find(|manifest| manifest.file == file).map(|manifest| (manifest.clone(), path))
    }

    fn delete<'a>(&'a self, id: &'a RecordingId) -> BoxFuture<'a, Result<Manifest, RecordingError>> {
        let mut list = self.list.lock();
        let manifest = list.iter_mut().find(|manifest| manifest.id == *id).map(|manifest| {
            manifest.state = RecordingState::Deleted;
            manifest.file_present = false;
            manifest.clone()
        });
        async move { manifest.ok_or_else(|| RecordingError::NotFound(id.to_string())) }.boxed()
    }
}

/// A manifest of a sealed recording.
pub fn manifest(stream: &str, file: &str, started_ms: i64) -> Manifest {
    let at = Timestamp::from_millisecond(started_ms).unwrap();
    Manifest {
        id: RecordingId::new(at),
        stream: stream.parse().unwrap(),
        file: file.to_owned(),
        mime: "video/webm".to_owned(),
        state: RecordingState::Sealed,
        started_at: at,
        ended_at: Some(at),
        bytes: 1000,
        duration_ms: 2000,
        file_present: true,
        continues: None,
        tracks: Vec::new(),
        gaps: Vec::new(),
        end_reason: Some(EndReason::Stopped),
        reason: None,
        error: None,
        hook: HookRecord::new(HookState::Done),
    }
}

/// What a test wants different from the defaults.
pub struct Setup {
    pub auth: auth::Config,
    pub origins: Vec<String>,
    pub ancestors: Vec<String>,
    pub ice_servers: Vec<IceServer>,
    pub timing: Timing,
    pub assets: Option<PathBuf>,
    pub hook: bool,
    pub limits: Limits,
    pub diagnostics: Diagnostics,
    pub base_path: &'static str,
    pub trusted_proxies: Vec<String>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            auth: auth::Config::default(),
            origins: Vec::new(),
            ancestors: Vec::new(),
            ice_servers: Vec::new(),
            timing: Timing::default(),
            assets: None,
            hook: true,
            limits: Limits::default(),
            diagnostics: Diagnostics::default(),
            base_path: "",
            trusted_proxies: Vec::new(),
        }
    }
}

fn no_jpeg_streams(folder: &Path, limits: &Limits) -> Mjpeg {
    let config = record::Config { dir: folder.join("records"), ..Default::default() };
    let (recordings, _) = Recordings::open(config, false, Tasks::new()).unwrap();
    let publications = Publications::new(recordings, Tasks::new(), Duration::from_secs(10), limits);
    Mjpeg::new(Default::default(), publications, Tasks::new())
}

/// A running server.
pub struct Server {
    pub address: SocketAddr,
    pub ingest: Arc<FakeIngest>,
    pub catalogue: Arc<FakeCatalogue>,
    pub ready: Arc<AtomicBool>,
    pub replayed: Arc<Mutex<Vec<RecordingId>>>,
    pub shutdown: CancellationToken,
    pub ended: tokio::task::JoinHandle<std::io::Result<()>>,
    pub client: reqwest::Client,
    folder: tempfile::TempDir,
}

impl Server {
    pub async fn start(setup: Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ingest = Arc::new(FakeIngest { ice_servers: setup.ice_servers, ..FakeIngest::default() });
        let catalogue = Arc::new(FakeCatalogue {
            folder: folder.path().to_owned(),
            list: Mutex::default(),
            condition: Mutex::new(Condition::FINE),
        });
        let config = Config {
            cors_origins: setup.origins,
            frame_ancestors: setup.ancestors,
            base_path: setup.base_path.to_owned(),
            trusted_proxies: setup.trusted_proxies,
            ..Config::default()
        };
        let replayed = Arc::new(Mutex::new(Vec::new()));
        let (noted, hook) = (replayed.clone(), setup.hook);
        let record = record::Config { dir: folder.path().join("chunks"), min_free: 0, ..Default::default() };
        let (recordings, _) = Recordings::open(record, false, Tasks::new()).unwrap();
        let publications = Publications::new(recordings, Tasks::new(), Duration::ZERO, &setup.limits);
        let sockets = Sockets::new(setup.timing, &setup.limits);
        let (streams, recordings) = (broadcast::channel(1).1, broadcast::channel(1).1);
        let state = State {
            ingest: ingest.clone(),
            chunks: Chunks::new(publications, Tasks::new(), chunks::Config::default()),
            recordings: catalogue.clone(),
            mjpeg: no_jpeg_streams(folder.path(), &setup.limits),
            site: Site::new(&config),
            guard: Guard::new(&config, &setup.auth).unwrap(),
            auth: Auth::new(setup.auth).unwrap(),
            replay: Arc::new(move |id| {
                noted.lock().push(id);
                async move { hook.then_some(()).ok_or(ReplayError::NoHook) }.boxed()
            }),
            assets: setup.assets.map_or(Assets::Embedded, Assets::Dev),
            ready: Arc::new(AtomicBool::new(true)),
            connections: connections(&setup.limits),
            requests: connections(&setup.limits),
            feed: Feed::start(streams, recordings, &sockets.tasks),
            sockets,
            viewers: ViewerLimits::new(&setup.limits, 1 << 20),
            diagnostics: setup.diagnostics,
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, ready, shutdown) =
            (listener.local_addr().unwrap(), state.ready.clone(), CancellationToken::new());
        let listeners = Listeners { main: listener, tls: None, redirect: None };
        let ended = tokio::spawn(crate::http::serve(listeners, Arc::new(state), shutdown.clone()));
        let client = reqwest::Client::new();
        Self { address, ingest, catalogue, ready, replayed, shutdown, ended, client, folder }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method.parse().unwrap(), self.url(path))
    }

    /// Puts a file with this content into the catalogue.
    pub fn add(&self, manifest: Manifest, content: &[u8]) {
        std::fs::write(self.folder().join(&manifest.file), content).unwrap();
        self.catalogue.list.lock().insert(0, manifest);
    }

    pub fn not_ready(&self) {
        self.ready.store(false, Ordering::Relaxed);
    }
}

/// The status and the `code` of an answer that must be the contract's error.
pub async fn error_of(response: reqwest::Response) -> (u16, String) {
    let status = response.status();
    assert_ne!(status, StatusCode::OK, "no error at all");
    let (url, text) = (response.url().clone(), response.text().await.unwrap());
    let body: serde_json::Value =
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status} of {url} is not JSON: {text:?}"));
    assert!(body["message"].as_str().is_some_and(|message| message.len() > 10), "{url}: {body}");
    (status.as_u16(), body["code"].as_str().unwrap_or_default().to_owned())
}
