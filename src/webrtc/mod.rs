//! One engine for the peers of all sessions: offers and answers, one port for UDP and TCP, event loops behind it. What
//! a session brings, and its end, go to a [`PeerOwner`], of which it knows nothing else.

pub mod check;
pub mod dtls;
pub(crate) mod engine;
mod loops;
mod offer;
pub(crate) mod packet_path;
mod paths;
mod peer;
pub mod route;
pub mod session;
mod simulcast;
mod socket;
mod sources;
mod starter;
mod stats;
pub(crate) mod tcp;
mod transport_address;
mod turn;

pub use loops::Loops;
pub use transport_address::{Protocol, TransportAddress};

use crate::base::critical_task::CriticalTask;
use crate::base::end_reason::EndReason;
use crate::base::heartbeat::Heartbeat;
use crate::base::id::{SessionId, StreamName};
use crate::base::metrics::Scrape;
use crate::base::quota::Permit;
use crate::base::units;
use crate::media::{Demand, Event, GapReason, Kind, Track};
use dtls::Identity;
use engine::Command;
use loops::Directory;
use offer::RejectedSection;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use session::{Answer, Session, SessionConfig};
use socket::Addresses;
use starter::{Inlets, Starter};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tcp::Connections;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

/// Certificates of the server, which sessions show in turn.
const IDENTITIES: usize = 64;

/// Section `webrtc` of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The one UDP address of all media, or `auto`: port 8189, on loopback if the server is there.
    pub udp_bind: String,
    /// Whether peers may connect to the same port by TCP (RFC 6544).
    pub tcp: bool,
    /// Event loops behind that port, each a thread: `auto` is one until that is full, then more, up to one a processor
    /// and eight at most.
    pub loops: Loops,
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
            loops: Loops::Auto,
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
    /// Where each loop takes commands.
    loops: Arc<[mpsc::Sender<Command<O>>]>,
    directory: Arc<Directory>,
    config: Arc<Config>,
    identities: Arc<[Arc<Identity>]>,
    candidates: Arc<[TransportAddress]>,
    local_addr: SocketAddr,
    heartbeats: Arc<[Heartbeat]>,
}

impl<O> Clone for Peers<O> {
    fn clone(&self) -> Self {
        let Self { loops, directory, config, identities, candidates, local_addr, heartbeats } = self;
        Self {
            loops: loops.clone(),
            directory: directory.clone(),
            config: config.clone(),
            identities: identities.clone(),
            candidates: candidates.clone(),
            local_addr: *local_addr,
            heartbeats: heartbeats.clone(),
        }
    }
}

impl<O: PeerOwner + 'static> Peers<O> {
    /// Binds the media port and starts the loops, each on a thread of its own: one busy publisher must
    /// not wait for an HTTP request, nor the other way round.
    ///
    /// `local_only` is what `webrtc.udp_bind = "auto"` means; `alive` goes with the first loop that ends.
    pub fn start(config: Config, local_only: bool, alive: CriticalTask) -> io::Result<Self> {
        let identities = identities(IDENTITIES)?;
        let (begin, most) = config.loops.numbers();
        let (first, listener) = socket::open_both(&config, local_only)?;
        let local_addr = first.local_addr()?;
        let addresses = Addresses::new(local_addr, &config.advertise)?;
        let (frames, arrivals): (Vec<_>, Vec<_>) = (0..most).map(|_| tcp::arrivals()).unzip();
        let (loops, receivers): (Vec<_>, Vec<_>) = (0..most).map(|_| mpsc::channel(engine::COMMANDS)).unzip();
        let (frames, directory): (Arc<[_]>, _) = (frames.into(), Directory::new(most));
        let connections = match listener {
            Some(listener) => {
                let alive = alive.beside("ICE-TCP connections");
                tcp::start(listener, addresses.clone(), frames.clone(), directory.clone(), alive)?
            }
            None => Connections::default(),
        };
        let heartbeats: Arc<[_]> = (0..most).map(|_| Heartbeat::unborn("media engine")).collect();
        let inlets = arrivals.into_iter().zip(receivers).zip(heartbeats.iter().cloned());
        let inlets = inlets.map(|((arrivals, commands), heartbeat)| Inlets { arrivals, commands, heartbeat });
        let starter = Arc::new(Starter {
            first,
            addresses: addresses.clone(),
            connections,
            commands: loops.iter().map(mpsc::Sender::downgrade).collect(),
            loops: frames,
            directory: directory.clone(),
            waiting: Mutex::new(inlets.collect()),
            alive,
        });
        for _ in 0..begin {
            starter.start_one()?;
        }
        let advertised = addresses.advertised();
        let udp = advertised.iter().copied().map(TransportAddress::udp);
        let tcp_too = advertised.iter().copied().map(TransportAddress::tcp).filter(|_| config.tcp);
        let candidates = udp.chain(tcp_too).collect();
        let (loops, config) = (loops.into(), Arc::new(config));
        Ok(Self { loops, directory, config, identities, candidates, local_addr, heartbeats })
    }

    /// Whether the loops turn.
    pub fn heartbeats(&self) -> &[Heartbeat] {
        &self.heartbeats
    }

    /// What there is at present.
    pub fn gauges(&self, scrape: &mut Scrape) {
        let sessions = self.directory.sessions();
        if sessions.len() > 1 {
            let help = "Sessions that each media loop has";
            let of = sessions.into_iter().enumerate().map(|(at, sessions)| (at.to_string(), sessions));
            scrape.gauges("media_loop_sessions", help, "loop", of);
        }
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

    /// A slot in a loop's queue for a session: the one wait, before anything is taken that only the loop
    /// would give back.
    pub async fn reserve(&self) -> Result<Reserved<'_, O>, PeerError> {
        let home = self.directory.next_home();
        let permit = self.loops[home].reserve().await.map_err(|_| PeerError::Stopping)?;
        Ok(Reserved { peers: self, home, permit })
    }

    /// What the next session shows itself by: not what the one before did.
    fn next_identity(&self) -> &Arc<Identity> {
        &self.identities[self.directory.begun() as usize % self.identities.len()]
    }

    /// Another offer of a session's peer, for an ICE restart; `None` if it is another peer connection's.
    pub async fn reoffer(&self, id: &SessionId, sdp: &str) -> Result<Option<(Answer, Arc<O>)>, PeerError> {
        self.ask(id, |reply| Command::Reoffer { id: id.clone(), sdp: sdp.to_owned(), reply }).await
    }

    /// Adds a candidate of the peer (an empty one ends them).
    pub async fn candidate(&self, id: &SessionId, candidate: Candidate) -> Result<(), PeerError> {
        self.ask(id, |reply| Command::Candidate { id: id.clone(), candidate, reply }).await
    }

    /// WHIP PATCH.
    pub async fn patch(&self, id: &SessionId, patch: Patch) -> Result<Patched, PeerError> {
        self.ask(id, |reply| Command::Patch { id: id.clone(), patch, reply }).await
    }

    /// Ends a session, and what it is had for.
    pub async fn stop(&self, id: &SessionId, reason: EndReason) -> Result<(), PeerError> {
        self.ask(id, |reply| Command::Stop { id: id.clone(), reason, reply }).await
    }

    /// Ends all of them.
    pub async fn stop_all(&self) -> Result<(), PeerError> {
        // One after the other: what goes over to a loop that has stopped ends there.
        for commands in &self.loops[..self.directory.active()] {
            ask(commands, |reply| Command::StopAll { reply }).await?;
        }
        Ok(())
    }

    /// Asks the loop that has a session, or had it a moment ago.
    async fn ask<T>(
        &self,
        id: &SessionId,
        command: impl FnOnce(oneshot::Sender<Result<T, PeerError>>) -> Command<O>,
    ) -> Result<T, PeerError> {
        let home = self.directory.home(id).ok_or(PeerError::SessionNotFound)?;
        ask(&self.loops[home], command).await
    }
}

async fn ask<T, O>(
    commands: &mpsc::Sender<Command<O>>,
    command: impl FnOnce(oneshot::Sender<Result<T, PeerError>>) -> Command<O>,
) -> Result<T, PeerError> {
    let (reply, answer) = oneshot::channel();
    commands.send(command(reply)).await.map_err(|_| PeerError::Stopping)?;
    answer.await.map_err(|_| PeerError::Stopping)?
}

/// What sessions show themselves by. A peer connection that comes back to a new session must do another DTLS handshake,
/// which browsers take from the fingerprint alone (RFC 8842 section 5.1): it has to be another one than before.
fn identities(number: usize) -> io::Result<Arc<[Arc<Identity>]>> {
    (0..number).map(|_| Identity::generate().map(Arc::new).map_err(io::Error::other)).collect()
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

/// A slot in a loop's queue.
#[derive(Debug)]
pub struct Reserved<'a, O> {
    peers: &'a Peers<O>,
    home: usize,
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
            identity: self.peers.next_identity().clone(),
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
        let (session, owner) = (Box::new(session), owner.clone());
        let key = self.peers.directory.begin(id, self.home);
        self.permit.send(Command::Add { key, id: id.clone(), session, owner, handshake });
        if self.peers.loops[self.home].is_closed() { Err(PeerError::Stopping) } else { Ok(answer) }
    }
}

#[cfg(test)]
impl<O> Peers<O> {
    /// An engine that is this receiver: it takes nothing by itself.
    pub(crate) fn held() -> (Self, mpsc::Receiver<Command<O>>) {
        let (commands, receiver) = mpsc::channel(1);
        let local_addr = SocketAddr::from(([127, 0, 0, 1], 8189));
        let (config, candidates) = (Arc::new(Config::default()), [TransportAddress::udp(local_addr)].into());
        let (identities, heartbeats) = (identities(1).unwrap(), [Heartbeat::new("held")].into());
        let (loops, directory) = ([commands].into(), Directory::new(1));
        (Self { loops, directory, config, identities, candidates, local_addr, heartbeats }, receiver)
    }

    /// Takes the queue's only slot.
    pub(crate) fn fill(&self, command: Command<O>) {
        assert!(self.loops[0].try_send(command).is_ok());
    }
}
