//! One engine for the peers of all sessions: offers and answers, one UDP socket with TCP beside it, one event loop. What a session
//! brings, and its end, go to a [`PeerOwner`], of which it knows nothing else.

pub mod check;
pub mod dtls;
pub(crate) mod engine;
mod offer;
mod packet_path;
mod paths;
mod peer;
pub mod route;
pub mod session;
mod simulcast;
mod socket;
mod sources;
mod stats;
pub(crate) mod tcp;
mod transport_address;
mod turn;

pub use transport_address::{Protocol, TransportAddress};

use crate::base::critical_task::CriticalTask;
use crate::base::end_reason::EndReason;
use crate::base::heartbeat::Heartbeat;
use crate::base::id::{SessionId, StreamName};
use crate::base::quota::Permit;
use crate::base::units;
use crate::media::{Demand, Event, GapReason, Kind, Track};
use dtls::Identity;
use engine::{Command, Engine};
use offer::RejectedSection;
use serde::{Deserialize, Serialize};
use session::{Answer, Session, SessionConfig};
use socket::Socket;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tcp::Tcp;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

/// Section `webrtc` of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The one UDP address of all media, or `auto`: port 8189, on loopback if the server is there.
    pub udp_bind: String,
    /// Whether peers may connect to the same port by TCP (RFC 6544).
    pub tcp: bool,
    /// Addresses publishers reach the server by: `203.0.113.7`, or `10.0.0.5=203.0.113.7` as
    /// `private=public`.
    pub advertise: Vec<String>,
    /// STUN and TURN servers, handed to clients.
    pub ice_servers: Vec<IceServer>,
    /// A secret shared with the TURN servers among them that have no credential of their own; empty for none.
    pub turn_secret: String,
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
            tcp: true,
            advertise: Vec::new(),
            ice_servers: Vec::new(),
            turn_secret: String::new(),
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

/// What a session is had for: it gets the session's media, and hears of its end.
pub trait PeerOwner: fmt::Debug + Send + Sync {
    /// The stream's name, for the log.
    fn name(&self) -> &StreamName;

    /// The session is connected, with these tracks. Gives the session that it takes over from, if there is one;
    /// `None` if it is not wanted any more.
    fn connected(
        self: &Arc<Self>,
        session: &SessionId,
        tracks: &[Track],
        now: Instant,
    ) -> Option<Option<SessionId>>;

    /// Takes what the session brings.
    fn media(&self, session: &SessionId, event: Event, now: Instant) -> Demand;

    /// A track brings nothing, for this reason, or does so again.
    fn trouble(&self, session: &SessionId, kind: Kind, reason: Option<GapReason>);

    /// The peer has said that it leaves: the session goes on until what is under way has come.
    fn leaves(&self);

    /// Whether it is through with the session: it is over, or goes on in another one.
    fn has_left(&self, session: &SessionId) -> bool;

    /// The session is gone, and its peer may come back.
    fn lost(self: &Arc<Self>, session: &SessionId, now: Instant);

    /// It ends, with the session.
    fn end(&self, reason: EndReason, now: Instant);
}

/// Why an offer or a request for a session is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The SDP can't be used.
    #[error("{0}")]
    BadSdp(String),
    /// No codec of the offer can be recorded.
    #[error("none of the offered codecs is known")]
    UnsupportedCodec,
    /// No such session.
    #[error("there is no such session")]
    SessionNotFound,
    /// The ETag is another generation's.
    #[error("the session has another ETag by now")]
    StaleEtag,
    /// More of something than one session may have.
    #[error("too many: {0}")]
    RateLimited(&'static str),
    /// The engine is gone.
    #[error("the server is stopping")]
    Stopping,
}

/// The handle to the engine. Cheap to clone; the engine ends with its last handle.
#[derive(Debug)]
pub struct Peers<O> {
    commands: mpsc::Sender<Command<O>>,
    config: Arc<Config>,
    identity: Arc<Identity>,
    candidates: Arc<[TransportAddress]>,
    local_addr: SocketAddr,
    heartbeat: Heartbeat,
}

impl<O> Clone for Peers<O> {
    fn clone(&self) -> Self {
        let Self { commands, config, identity, candidates, local_addr, heartbeat } = self;
        Self {
            commands: commands.clone(),
            config: config.clone(),
            identity: identity.clone(),
            candidates: candidates.clone(),
            local_addr: *local_addr,
            heartbeat: heartbeat.clone(),
        }
    }
}

impl<O: PeerOwner + 'static> Peers<O> {
    /// Binds the media socket and starts the engine on a thread of its own: one busy publisher must
    /// not wait for an HTTP request, nor the other way round.
    ///
    /// `local_only` is what `webrtc.udp_bind = "auto"` means; `alive` goes with the engine.
    pub fn start(config: Config, local_only: bool, alive: CriticalTask) -> io::Result<Self> {
        let identity = Arc::new(Identity::generate().map_err(io::Error::other)?);
        let (runtime, (socket, tcp, local_addr)) = with_runtime(|| {
            let (socket, listener) = Socket::bind(&config, local_only)?;
            let tcp = match listener {
                Some(listener) => {
                    Tcp::start(listener, socket.addresses.clone(), alive.beside("ICE-TCP connections"))?
                }
                None => Tcp::none(),
            };
            let local_addr = socket.local_addr()?;
            Ok((socket, tcp, local_addr))
        })?;
        let advertised = socket.addresses.advertised();
        let udp = advertised.iter().copied().map(TransportAddress::udp);
        let tcp_too = advertised.iter().copied().map(TransportAddress::tcp).filter(|_| config.tcp);
        let candidates = udp.chain(tcp_too).collect();
        let (commands, receiver) = mpsc::channel(engine::COMMANDS);
        let heartbeat = Heartbeat::new("media engine");
        let engine = Engine::new(socket, tcp, heartbeat.clone());
        std::thread::Builder::new().name("webrtc".to_owned()).spawn(move || {
            let _alive = alive;
            runtime.block_on(engine.run(receiver));
        })?;
        Ok(Self { commands, config: Arc::new(config), identity, candidates, local_addr, heartbeat })
    }

    /// Whether the engine turns.
    pub fn heartbeat(&self) -> &Heartbeat {
        &self.heartbeat
    }

    /// The media socket's address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The addresses peers are told.
    pub fn candidates(&self) -> &[TransportAddress] {
        &self.candidates
    }

    /// What clients should use (`webrtc.ice_servers`), with TURN credentials that expire where there is a
    /// `webrtc.turn_secret`.
    pub fn ice_servers(&self) -> Vec<IceServer> {
        self.config.ice_servers_at(SystemTime::now())
    }

    /// A slot in the engine's queue for a session: the one wait, before anything is taken that only the engine
    /// would give back.
    pub async fn reserve(&self) -> Result<Reserved<'_, O>, PeerError> {
        let permit = self.commands.reserve().await.map_err(|_| PeerError::Stopping)?;
        Ok(Reserved { peers: self, permit })
    }

    /// Another offer of a session's peer, for an ICE restart; `None` if it is another peer connection's.
    pub async fn reoffer(&self, id: &SessionId, sdp: &str) -> Result<Option<(Answer, Arc<O>)>, PeerError> {
        self.ask(|reply| Command::Reoffer { id: id.clone(), sdp: sdp.to_owned(), reply }).await
    }

    /// Adds a candidate of the peer (an empty one ends them).
    pub async fn candidate(&self, id: &SessionId, candidate: Candidate) -> Result<(), PeerError> {
        self.ask(|reply| Command::Candidate { id: id.clone(), candidate, reply }).await
    }

    /// WHIP PATCH.
    pub async fn patch(&self, id: &SessionId, patch: Patch) -> Result<Patched, PeerError> {
        self.ask(|reply| Command::Patch { id: id.clone(), patch, reply }).await
    }

    /// Ends a session, and what it is had for.
    pub async fn stop(&self, id: &SessionId, reason: EndReason) -> Result<(), PeerError> {
        self.ask(|reply| Command::Stop { id: id.clone(), reason, reply }).await
    }

    /// Ends all of them.
    pub async fn stop_all(&self) -> Result<(), PeerError> {
        self.ask(|reply| Command::StopAll { reply }).await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, PeerError>>) -> Command<O>,
    ) -> Result<T, PeerError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| PeerError::Stopping)?;
        answer.await.map_err(|_| PeerError::Stopping)?
    }
}

/// Makes a runtime for a thread of its own, and what is to run there.
fn with_runtime<T>(setup: impl FnOnce() -> io::Result<T>) -> io::Result<(Runtime, T)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let entered = runtime.enter();
    let done = setup();
    drop(entered);
    match done {
        Ok(done) => Ok((runtime, done)),
        Err(error) => {
            // To be dropped it would wait for its threads, which the caller's runtime forbids by a panic.
            runtime.shutdown_background();
            Err(error)
        }
    }
}

/// A slot in the engine's queue.
#[derive(Debug)]
pub struct Reserved<'a, O> {
    peers: &'a Peers<O>,
    permit: mpsc::Permit<'a, Command<O>>,
}

impl<O: PeerOwner + 'static> Reserved<'_, O> {
    /// Answers an offer, and hands the session to the engine. `origin` is when the stream's time began.
    pub fn accept(
        self,
        id: &SessionId,
        sdp: &str,
        origin: Instant,
        owner: &Arc<O>,
        handshake: Permit,
    ) -> Result<Answer, PeerError> {
        let Config { reorder_window, keyframe_interval, idle_timeout, start_bitrate, .. } =
            *self.peers.config;
        let config = SessionConfig {
            candidates: self.peers.candidates.to_vec(),
            identity: self.peers.identity.clone(),
            pipeline: crate::rtp::Config { reorder_window, keyframe_interval },
            origin,
            idle_timeout,
            start_bitrate,
        };
        // An offer that makes the code below panic must leave nothing taken.
        let parse = AssertUnwindSafe(|| Session::accept(sdp, &config, Instant::now()));
        let (session, answer) = catch_unwind(parse).unwrap_or_else(|_| Err(engine::panicked()))?;
        for RejectedSection { mid, reason } in session.rejected() {
            tracing::warn!(stream = %owner.name(), session = id.as_str(), mid, reason, "a section is not recorded");
        }
        let session = Box::new(session);
        self.permit.send(Command::Add { id: id.clone(), session, owner: owner.clone(), handshake });
        if self.peers.commands.is_closed() { Err(PeerError::Stopping) } else { Ok(answer) }
    }
}

#[cfg(test)]
impl<O> Peers<O> {
    /// An engine that is this receiver: it takes nothing by itself.
    pub(crate) fn held() -> (Self, mpsc::Receiver<Command<O>>) {
        let (commands, receiver) = mpsc::channel(1);
        let local_addr = SocketAddr::from(([127, 0, 0, 1], 8189));
        let (config, candidates) = (Arc::new(Config::default()), [TransportAddress::udp(local_addr)].into());
        let (identity, heartbeat) = (Arc::new(Identity::generate().unwrap()), Heartbeat::new("held"));
        (Self { commands, config, identity, candidates, local_addr, heartbeat }, receiver)
    }

    /// Takes the queue's only slot.
    pub(crate) fn fill(&self, command: Command<O>) {
        assert!(self.commands.try_send(command).is_ok());
    }
}
