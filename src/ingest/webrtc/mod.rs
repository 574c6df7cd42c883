//! WebRTC ingest: one `accept(offer)` core for `/signal` and WHIP.

use crate::base::id::{Secret, StreamName};
use crate::base::reason::EndReason;
use crate::base::units;
use crate::ingest::publication::{Status, StreamInfo};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::sync::watch;

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

/// Names one session (one peer connection) to the engine; unguessable, usable in a URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(pub(crate) Secret);

impl SessionId {
    /// The id in a URL.
    pub fn as_str(&self) -> &str {
        self.0.reveal()
    }

    /// An id from a URL.
    pub fn from_client(text: &str) -> Self {
        Self(Secret::from_client(text))
    }
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
    /// A re-offer on a session the caller holds (`/signal`): same peer connection, ICE restart.
    pub session: Option<SessionId>,
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
    /// The ETag of `If-Match` without quotes; `*` restarts ICE.
    pub if_match: String,
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

/// Why a publisher is refused. Each has a code of the contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The SDP can't be used.
    #[error("{0}")]
    BadSdp(String),
    /// No codec of the offer can be recorded.
    #[error("none of the offered codecs can be recorded: offer VP8 for video and Opus for audio")]
    UnsupportedCodec,
    /// Another publisher has the name.
    #[error("stream {0} is being published by somebody else: choose another name, or stop it first")]
    StreamBusy(StreamName),
    /// The publication behind this secret is over.
    #[error("this resume secret is over: publish again without it")]
    ResumeExpired,
    /// No such session.
    #[error("there is no such session: it has ended, or the server was restarted")]
    SessionNotFound,
    /// The ETag is another generation's (412).
    #[error("the session has another ETag by now: restart ICE with If-Match: *")]
    StaleEtag,
    /// A limit of the server; try later.
    #[error("the server has reached {0}: try again later")]
    LimitReached(&'static str),
    /// No space to record.
    #[error("the server's disk is full: nothing can be recorded until space is freed")]
    DiskFull,
    /// The server shuts down.
    #[error("the server is stopping: try again in a moment")]
    Stopping,
}

/// The handle to the WebRTC engine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WebRtc {}

impl WebRtc {
    /// Answers an offer.
    pub async fn accept(&self, _offer: Offer) -> Result<Accepted, Refusal> {
        unimplemented!()
    }

    /// Adds a candidate of the peer (an empty one ends them).
    pub async fn candidate(&self, _session: &SessionId, _candidate: Candidate) -> Result<(), Refusal> {
        unimplemented!()
    }

    /// WHIP PATCH.
    pub async fn patch(&self, _session: &SessionId, _patch: Patch) -> Result<Patched, Refusal> {
        unimplemented!()
    }

    /// Ends the session's publication; its status tells when the file is sealed.
    pub async fn stop(&self, _session: &SessionId, _reason: EndReason) -> Result<(), Refusal> {
        unimplemented!()
    }

    /// Ends a publication by name, as the operator (`kicked`); `SessionNotFound` if nobody has it.
    pub async fn kick(&self, _stream: &StreamName) -> Result<(), Refusal> {
        unimplemented!()
    }

    /// All publications, by name.
    pub fn streams(&self) -> Vec<StreamInfo> {
        unimplemented!()
    }

    /// What clients should use (`webrtc.ice_servers`).
    pub fn ice_servers(&self) -> &[IceServer] {
        unimplemented!()
    }
}
