//! WebRTC ingest: one `accept(offer)` core for `/signal` and WHIP.

#[cfg(test)]
pub(crate) mod tests;

use crate::base::critical_task::CriticalTask;
use crate::base::end_reason::EndReason;
use crate::base::id::{Secret, SessionId, StreamName};
use crate::base::quota::ClientKey;
use crate::media::{Demand, Event, GapReason, Kind, Track};
use crate::publish::publication::Publication;
use crate::publish::registry::Publications;
use crate::publish::status::Status;
use crate::publish::{PublishError, Transport};
use crate::webrtc::session::Answer;
use crate::webrtc::{Candidate, Config, Patch, Patched, PeerError, PeerOwner, Peers};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long the engine, and then each publication, may take to end when the server stops. A turn of the
/// engine takes milliseconds.
const STOPPED: Duration = Duration::from_secs(3);

/// A client asks to publish.
#[derive(Debug)]
pub struct Offer {
    /// The stream's name.
    pub stream: StreamName,
    /// The SDP offer.
    pub sdp: String,
    /// Whether it is to be recorded.
    pub record: bool,
    /// Proof of an earlier publication under this name.
    pub resume: Option<Secret>,
    /// WHIP: the non-empty bearer token, which may take over a silent session (RFC 9725 has no
    /// resume of its own).
    pub bearer: Option<String>,
    /// A session the caller holds (`/signal`): a re-offer, for an ICE restart.
    pub session: Option<SessionId>,
    /// The client whose share of the limits it takes.
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
    /// What becomes of the publication.
    pub status: watch::Receiver<Status>,
}

impl From<PeerError> for PublishError {
    fn from(error: PeerError) -> Self {
        match error {
            PeerError::BadSdp(why) => Self::BadSdp(why),
            PeerError::UnsupportedCodec => Self::UnsupportedCodec,
            PeerError::SessionNotFound => Self::SessionNotFound,
            PeerError::StaleEtag => Self::StaleEtag,
            PeerError::RateLimited(limit) => Self::RateLimited(limit),
            PeerError::Stopping => Self::Stopping,
        }
    }
}

impl PeerOwner for Publication {
    fn name(&self) -> &StreamName {
        self.name()
    }

    fn connected(
        self: &Arc<Self>,
        session: &SessionId,
        tracks: &[Track],
        now: Instant,
    ) -> Option<Option<SessionId>> {
        self.connected(session, Transport::Webrtc, tracks, now).ok()
    }

    fn media(&self, session: &SessionId, event: Event, now: Instant) -> Demand {
        self.media(session, event, now)
    }

    fn trouble(&self, session: &SessionId, kind: Kind, reason: Option<GapReason>) {
        self.trouble(session, kind, reason);
    }

    fn leaves(&self) {
        self.leaves();
    }

    fn has_left(&self, session: &SessionId) -> bool {
        self.is_over() || self.has_left(session)
    }

    fn lost(self: &Arc<Self>, session: &SessionId, now: Instant) {
        self.lost(session, now);
    }

    fn end(&self, reason: EndReason, now: Instant) {
        self.end(reason, now);
    }
}

/// All publications by WebRTC. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WebRtc {
    peers: Peers<Publication>,
    publications: Publications,
}

impl WebRtc {
    /// Binds the media socket and starts the engine. `local_only` is what `webrtc.udp_bind = "auto"` means;
    /// `alive` goes with the engine.
    pub fn start(
        config: Config,
        local_only: bool,
        publications: Publications,
        alive: CriticalTask,
    ) -> io::Result<Self> {
        Ok(Self { peers: Peers::start(config, local_only, alive)?, publications })
    }

    /// The engine's peers.
    pub fn peers(&self) -> &Peers<Publication> {
        &self.peers
    }

    /// All publications.
    pub fn publications(&self) -> &Publications {
        &self.publications
    }

    /// Answers an offer.
    pub async fn accept(&self, offer: Offer) -> Result<Accepted, PublishError> {
        self.answer(offer).await.inspect_err(PublishError::count)
    }

    async fn answer(&self, offer: Offer) -> Result<Accepted, PublishError> {
        let mut known = offer.session;
        if let Some(held) =
            offer.resume.as_ref().and_then(|resume| self.publications.find(&offer.stream, resume))
        {
            if held.is_over() {
                // Nothing to connect to any more: only what became of it.
                let answer = Answer { sdp: String::new(), candidates: Vec::new(), etag: String::new() };
                return Ok(accepted(SessionId::new(), answer, &held));
            }
            known = known.or_else(|| held.session());
        }
        if let Some(id) = known {
            // The same peer connection restarts ICE and keeps its keys; another one needs a session of its own.
            match self.peers.reoffer(&id, &offer.sdp).await {
                Ok(Some((answer, publication))) => return Ok(accepted(id, answer, &publication)),
                Ok(None) => {}
                Err(PeerError::SessionNotFound) if offer.resume.is_some() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let handshake = self.publications.handshake(offer.client)?;
        // The one wait comes before anything is reserved: a caller that leaves meanwhile has taken nothing
        // that only the engine would give back.
        let reserved = self.peers.reserve().await?;
        let Offer { record, resume, bearer, client, .. } = offer;
        let publication =
            self.publications.reserve(&offer.stream, record, resume.as_ref(), bearer, client)?;
        let id = SessionId::new();
        publication.offered(&id);
        match reserved.accept(&id, &offer.sdp, publication.origin(), &publication, handshake) {
            Ok(answer) => Ok(accepted(id, answer, &publication)),
            Err(error) => {
                let refusal = PublishError::from(error);
                publication.refused(&id, &refusal);
                Err(refusal)
            }
        }
    }

    /// Adds a candidate of the peer (an empty one ends them).
    pub async fn candidate(&self, session: &SessionId, candidate: Candidate) -> Result<(), PublishError> {
        Ok(self.peers.candidate(session, candidate).await?)
    }

    /// WHIP PATCH.
    pub async fn patch(&self, session: &SessionId, patch: Patch) -> Result<Patched, PublishError> {
        Ok(self.peers.patch(session, patch).await?)
    }

    /// Ends the session's publication; its status tells when the file is sealed.
    /// A session that was lost can be stopped as long as it is waited for.
    pub async fn stop(&self, session: &SessionId, reason: EndReason) -> Result<(), PublishError> {
        match self.peers.stop(session, reason).await {
            Err(PeerError::SessionNotFound) => {
                let waiting = self.publications.waiting_for(session).ok_or(PublishError::SessionNotFound)?;
                waiting.end(reason, Instant::now());
                Ok(())
            }
            done => Ok(done?),
        }
    }

    /// Ends every publication in order, and takes no more. An engine that hangs, be it with a
    /// publication in its hands, keeps none of the others: they end.
    pub async fn stop_all(&self) {
        self.publications.refuse();
        if tokio::time::timeout(STOPPED, self.peers.stop_all()).await.is_err() {
            tracing::error!("the media engine hangs: publications end without it");
        }
        let publications = self.publications.clone();
        let left = tokio::task::spawn_blocking(move || publications.stop());
        if tokio::time::timeout(STOPPED, left).await.is_err() {
            tracing::error!("a publication is held by what hangs: the next start repairs its recording");
        }
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
