//! WebRTC ingest: one `accept(offer)` core for `/signal` and WHIP.

mod dtls;
mod engine;
mod offer;
mod paths;
mod peer;
pub mod probe;
mod receive;
pub mod route;
pub mod session;
mod simulcast;
mod socket;
mod sources;
mod stats;
#[cfg(test)]
mod tests;

use crate::base::critical::CriticalTask;
use crate::base::heartbeat::Heartbeat;
use crate::base::id::{RecordingId, Secret, StreamName};
use crate::base::metrics::metrics;
use crate::base::quota::ClientKey;
use crate::base::reason::EndReason;
use crate::base::units;
use crate::live::Stream;
use crate::publish::publication::{ControlError, Publication, StreamInfo};
use crate::publish::registry::Publications;
use crate::publish::status::Status;
use crate::publish::{PublishError, SessionId};
use crate::record::Begun;
use crate::webrtc::engine::{Command, Engine};
use crate::webrtc::offer::Refused;
use crate::webrtc::session::{Answer, Session, SessionConfig};
use crate::webrtc::socket::Socket;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// How long the engine, and then each publication, may take to end when the server stops. A turn of the
/// engine takes milliseconds.
const STOPPED: Duration = Duration::from_secs(3);

/// Section `webrtc` of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The one UDP address of all media, or `auto`: port 8189, on loopback if the server is there.
    pub udp_bind: String,
    /// Addresses publishers reach the server by: `203.0.113.7`, or `10.0.0.5=203.0.113.7` as
    /// `private=public`.
    pub advertise: Vec<String>,
    /// STUN and TURN servers, handed to clients.
    pub ice_servers: Vec<IceServer>,
    /// The age at which the newest keyframe asks for the next.
    #[serde(deserialize_with = "units::duration")]
    pub keyframe_interval: Duration,
    /// How long a hole may wait for its packet to be sent again.
    #[serde(deserialize_with = "units::duration")]
    pub reorder_window: Duration,
    /// A connected publisher that sends no media for this long is ended.
    #[serde(deserialize_with = "units::duration")]
    pub idle_timeout: Duration,
    /// What a browser's video begins with, bit/s; 0 leaves it to the browser.
    #[serde(deserialize_with = "units::bitrate")]
    pub start_bitrate: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            udp_bind: "auto".to_owned(),
            advertise: Vec::new(),
            ice_servers: Vec::new(),
            keyframe_interval: Duration::from_secs(4),
            reorder_window: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(60),
            start_bitrate: 2_000_000,
        }
    }
}

/// A STUN or TURN server, handed to clients as `RTCIceServer`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IceServer {
    /// `stun:` and `turn:` URLs.
    pub urls: Vec<String>,
    /// TURN user name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// TURN password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

/// An ICE candidate as browsers have it (`RTCIceCandidateInit`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// `candidate:…`; empty at the end of candidates.
    pub candidate: String,
    /// The media section's `mid`.
    #[serde(default)]
    pub sdp_mid: Option<String>,
    /// The media section's index.
    #[serde(default)]
    pub sdp_m_line_index: Option<u16>,
}

/// Somebody asks to publish.
#[derive(Debug)]
pub struct Offer {
    /// Under which name.
    pub stream: StreamName,
    /// The SDP offer.
    pub sdp: String,
    /// Whether to record.
    pub record: bool,
    /// Proof of an earlier publication under this name.
    pub resume: Option<Secret>,
    /// WHIP: the non-empty bearer token, which may take over a silent session (RFC 9725 has no
    /// resume of its own).
    pub bearer: Option<String>,
    /// A session the caller holds (`/signal`): a re-offer, for an ICE restart.
    pub session: Option<SessionId>,
    /// Whose share of the limits it takes.
    pub client: Option<ClientKey>,
}

/// The publication is accepted.
#[derive(Debug)]
pub struct Accepted {
    /// The session.
    pub session: SessionId,
    /// The SDP answer, with all of the server's candidates in it.
    pub answer: String,
    /// The same candidates, for clients that want them trickled.
    pub candidates: Vec<Candidate>,
    /// Changes with every ICE generation: WHIP's ETag (without the quotes).
    pub etag: String,
    /// The publication's secret.
    pub resume: Secret,
    /// What becomes of it.
    pub status: watch::Receiver<Status>,
}

/// WHIP PATCH: a trickle fragment or an ICE restart (RFC 9725 section 4.3).
#[derive(Debug)]
pub struct Patch {
    /// The ETags of `If-Match` without quotes, of which one must be the session's; `*` alone restarts ICE.
    pub if_match: Vec<String>,
    /// The body, `application/trickle-ice-sdpfrag`.
    pub fragment: String,
}

/// What a PATCH led to.
#[derive(Debug)]
pub enum Patched {
    /// Candidates taken: 204.
    Trickled,
    /// ICE restarted: 200 with the server's fragment and the new ETag.
    Restarted {
        /// `application/trickle-ice-sdpfrag`.
        fragment: String,
        /// The new ETag, without quotes.
        etag: String,
    },
}

/// The handle to the WebRTC engine. Cheap to clone; the engine ends with its last handle.
#[derive(Clone, Debug)]
pub struct WebRtc {
    commands: mpsc::Sender<Command>,
    publications: Publications,
    config: Arc<Config>,
    candidates: Arc<[SocketAddr]>,
    local_addr: SocketAddr,
    pulse: Heartbeat,
}

impl WebRtc {
    /// Binds the media socket and starts the engine on a thread of its own: one busy publisher must
    /// not wait for an HTTP request, nor the other way round.
    ///
    /// `local_only` is what `webrtc.udp_bind = "auto"` means; `alive` goes with the engine.
    pub fn start(
        config: Config,
        local_only: bool,
        publications: Publications,
        alive: CriticalTask,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let socket = {
            let _entered = runtime.enter();
            Socket::bind(&config, local_only)?
        };
        let local_addr = socket.local_addr()?;
        let candidates = socket.addresses.told().into();
        let (commands, receiver) = mpsc::channel(engine::COMMANDS);
        let pulse = Heartbeat::new("media engine");
        let engine = Engine::new(socket, pulse.clone());
        std::thread::Builder::new().name("webrtc".to_owned()).spawn(move || {
            let _alive = alive;
            runtime.block_on(engine.run(receiver));
        })?;
        Ok(Self { commands, publications, config: Arc::new(config), candidates, local_addr, pulse })
    }

    /// Whether the engine turns.
    pub fn pulse(&self) -> &Heartbeat {
        &self.pulse
    }

    /// The media socket's address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The addresses publishers are told.
    pub fn candidates(&self) -> &[SocketAddr] {
        &self.candidates
    }

    /// Answers an offer.
    pub async fn accept(&self, offer: Offer) -> Result<Accepted, PublishError> {
        let answered = self.answer(offer).await;
        if let Err(refusal) = &answered {
            metrics().publications.refused.inc([refusal.code()]);
        }
        answered
    }

    async fn answer(&self, offer: Offer) -> Result<Accepted, PublishError> {
        let mut known = offer.session;
        if let Some(held) =
            offer.resume.as_ref().and_then(|resume| self.publications.find(&offer.stream, resume))
        {
            if held.is_over() {
                // Nothing to connect to any more: only what became of it.
                let answer = Answer { sdp: String::new(), candidates: Vec::new(), etag: String::new() };
                return Ok(accepted(Session::new_id(), answer, &held));
            }
            known = known.or_else(|| held.session());
        }
        if let Some(id) = known {
            // The same peer connection restarts ICE and keeps its keys; another one needs a session of its own.
            let reoffer = |reply| Command::Reoffer { id: id.clone(), sdp: offer.sdp.clone(), reply };
            match self.ask(reoffer).await {
                Ok(Some((answer, publication))) => return Ok(accepted(id, answer, &publication)),
                Ok(None) => {}
                Err(PublishError::SessionNotFound) if offer.resume.is_some() => {}
                Err(refusal) => return Err(refusal),
            }
        }
        let handshake = self.publications.handshake(offer.client)?;
        // The one wait comes before anything is reserved: a caller that leaves meanwhile has taken nothing
        // that only the engine would give back.
        let permit = self.commands.reserve().await.map_err(|_| PublishError::Stopping)?;
        let Offer { record, resume, bearer, client, .. } = offer;
        let publication =
            self.publications.reserve(&offer.stream, record, resume.as_ref(), bearer, client)?;
        let config = SessionConfig {
            candidates: self.candidates.to_vec(),
            pipeline: crate::rtp::Config {
                reorder_window: self.config.reorder_window,
                keyframe_interval: self.config.keyframe_interval,
            },
            origin: publication.origin(),
            idle_timeout: self.config.idle_timeout,
            start_bitrate: self.config.start_bitrate,
        };
        let id = Session::new_id();
        publication.offered(&id);
        // An offer that makes the code below panic must leave nothing taken.
        let parse = AssertUnwindSafe(|| Session::accept(&offer.sdp, &config, Instant::now()));
        let (session, answer) = match catch_unwind(parse).unwrap_or_else(|_| Err(engine::unusable())) {
            Ok(accepted) => accepted,
            Err(refusal) => {
                publication.refused(&id, &refusal);
                return Err(refusal);
            }
        };
        for Refused { mid, reason } in session.refused() {
            tracing::warn!(stream = %offer.stream, session = id.as_str(), mid, reason, "a section is not recorded");
        }
        let accepted = accepted(id.clone(), answer, &publication);
        let (held, session) = (publication.clone(), Box::new(session));
        permit.send(Command::Add { id: id.clone(), session, publication, handshake });
        if self.commands.is_closed() {
            held.refused(&id, &PublishError::Stopping);
            return Err(PublishError::Stopping);
        }
        Ok(accepted)
    }

    /// Adds a candidate of the peer (an empty one ends them).
    pub async fn candidate(&self, session: &SessionId, candidate: Candidate) -> Result<(), PublishError> {
        self.ask(|reply| Command::Candidate { id: session.clone(), candidate, reply }).await
    }

    /// WHIP PATCH.
    pub async fn patch(&self, session: &SessionId, patch: Patch) -> Result<Patched, PublishError> {
        self.ask(|reply| Command::Patch { id: session.clone(), patch, reply }).await
    }

    /// Ends the session's publication; its status tells when the file is sealed.
    /// A session that was lost can be stopped as long as it is waited for.
    pub async fn stop(&self, session: &SessionId, reason: EndReason) -> Result<(), PublishError> {
        match self.ask(|reply| Command::Stop { id: session.clone(), reason, reply }).await {
            Err(PublishError::SessionNotFound) => {
                let waiting = self.publications.waiting_for(session).ok_or(PublishError::SessionNotFound)?;
                waiting.end(reason, Instant::now());
                Ok(())
            }
            done => done,
        }
    }

    /// All live streams, by name.
    pub fn streams(&self) -> Vec<StreamInfo> {
        self.publications.list()
    }

    /// The media of one of them, for viewers.
    pub fn stream(&self, name: &StreamName) -> Option<Stream> {
        self.publications.stream(name)
    }

    /// A stream's media goes to a new file from now on.
    pub fn begin_file(&self, name: &StreamName) -> Result<Begun, ControlError> {
        self.publications.begin_file(name)
    }

    /// A stream is recorded no longer, and goes on.
    pub fn stop_recording(&self, name: &StreamName) -> Result<RecordingId, ControlError> {
        self.publications.stop_recording(name)
    }

    /// Ends a stream on the operator's word; [`PublishError::SessionNotFound`] if there is none of this name.
    pub fn kick(&self, name: &StreamName) -> Result<(), PublishError> {
        self.publications.kick(name)
    }

    /// Ends every publication in order, and takes no more. An engine that hangs, be it with a
    /// publication in its hands, keeps nobody: the others end.
    pub async fn stop_all(&self) {
        self.publications.refuse();
        let asked = self.ask(|reply| Command::StopAll { reply });
        if tokio::time::timeout(STOPPED, asked).await.is_err() {
            tracing::error!("the media engine hangs: publications end without it");
        }
        let publications = self.publications.clone();
        let left = tokio::task::spawn_blocking(move || publications.stop());
        if tokio::time::timeout(STOPPED, left).await.is_err() {
            tracing::error!("a publication is held by what hangs: the next start repairs its recording");
        }
    }

    /// What clients should use (`webrtc.ice_servers`).
    pub fn ice_servers(&self) -> &[IceServer] {
        &self.config.ice_servers
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, PublishError>>) -> Command,
    ) -> Result<T, PublishError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| PublishError::Stopping)?;
        answer.await.map_err(|_| PublishError::Stopping)?
    }
}

fn accepted(session: SessionId, answer: Answer, publication: &Publication) -> Accepted {
    Accepted {
        session,
        answer: answer.sdp,
        candidates: answer.candidates,
        etag: answer.etag,
        resume: publication.resume().clone(),
        status: publication.status(),
    }
}
