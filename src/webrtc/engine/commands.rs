//! What the rest of the server asks of the loop.

use super::{Engine, Entry, Key, Outcome, catch_panic};
use crate::base::end_reason::EndReason;
use crate::base::id::SessionId;
use crate::base::quota::Permit;
use crate::webrtc::session::{Answer, Session};
use crate::webrtc::{Candidate, Patch, Patched, PeerError, PeerOwner, offer};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;
use tracing::info_span;

type Reply<T> = oneshot::Sender<Result<T, PeerError>>;

pub(crate) enum Command<O> {
    Add {
        id: SessionId,
        session: Box<Session>,
        owner: Arc<O>,
        handshake: Permit,
    },
    Candidate {
        id: SessionId,
        candidate: Candidate,
        reply: Reply<()>,
    },
    /// `None` if the offer is another peer connection's.
    Reoffer {
        id: SessionId,
        sdp: String,
        reply: Reply<Option<(Answer, Arc<O>)>>,
    },
    Patch {
        id: SessionId,
        patch: Patch,
        reply: Reply<Patched>,
    },
    Stop {
        id: SessionId,
        reason: EndReason,
        reply: Reply<()>,
    },
    /// Ends every session; the loop goes on until its last handle is gone.
    StopAll {
        reply: Reply<()>,
    },
}

/// The answer to an offer or a candidate that made its session panic.
pub(in crate::webrtc) fn panicked() -> PeerError {
    PeerError::BadSdp(
        "this can't be dealt with, which is a fault of the server: its log says more".to_owned(),
    )
}

impl<O: PeerOwner> Engine<O> {
    pub(super) fn command(&mut self, command: Command<O>, now: Instant) {
        match command {
            Command::Add { id, session, owner, handshake } => {
                self.add(id, session, owner, handshake);
            }
            Command::Candidate { id, candidate, reply } => {
                let result = self.on_session(&id, |entry| entry.session.add_candidate(&candidate.candidate));
                let _ = reply.send(result);
            }
            Command::Reoffer { id, sdp, reply } => {
                let result = self.on_session(&id, |entry| {
                    let answer = entry.session.reoffer(&sdp, now)?;
                    Ok(answer.map(|answer| (answer, entry.owner.clone())))
                });
                let _ = reply.send(result);
            }
            Command::Patch { id, patch, reply } => {
                let _ = reply.send(self.on_session(&id, |entry| apply(&mut entry.session, &patch, now)));
            }
            Command::Stop { id, reason, reply } => {
                let result = self.on_session(&id, |entry| {
                    entry.stop_reason.get_or_insert(reason);
                    entry.owner.leaves();
                    entry.session.stop(now);
                    Ok(())
                });
                let _ = reply.send(result);
            }
            Command::StopAll { reply } => {
                let keys: Vec<Key> = self.sessions.keys().copied().collect();
                for key in keys {
                    self.remove(key, Outcome::Stopped(EndReason::ServerStopped), now);
                }
                let _ = reply.send(Ok(()));
            }
        }
    }

    fn add(&mut self, id: SessionId, session: Box<Session>, owner: Arc<O>, handshake: Permit) {
        let key = self.next_key;
        self.next_key += 1;
        let span = info_span!("session", stream = %owner.name(), key);
        self.routes.ufrags.insert(session.ufrag().to_owned(), key);
        self.by_id.insert(id.clone(), key);
        let entry = Entry {
            id,
            session,
            owner,
            handshake: Some(handshake),
            next_timer: None,
            stop_reason: None,
            dirty: true,
            panicked: false,
            span,
        };
        self.sessions.insert(key, entry);
        self.dirty.push(key);
    }

    /// Does something with a session, and routes the user fragment here that it may have taken.
    pub(super) fn on_session<T>(
        &mut self,
        id: &SessionId,
        act: impl FnOnce(&mut Entry<O>) -> Result<T, PeerError>,
    ) -> Result<T, PeerError> {
        let key = *self.by_id.get(id).ok_or(PeerError::SessionNotFound)?;
        let entry = self.sessions.get_mut(&key).ok_or(PeerError::SessionNotFound)?;
        let result = catch_panic(entry, act).unwrap_or_else(|| Err(panicked()));
        self.routes.ufrags.insert(entry.session.ufrag().to_owned(), key);
        if !std::mem::replace(&mut entry.dirty, true) {
            self.dirty.push(key);
        }
        result
    }
}

fn apply(session: &mut Session, patch: &Patch, now: Instant) -> Result<Patched, PeerError> {
    if patch.if_match == ["*"] {
        let (fragment, etag) = session.restart(&patch.fragment, now)?;
        return Ok(Patched::Restarted { fragment, etag });
    }
    if !patch.if_match.contains(&session.etag()) {
        return Err(PeerError::StaleEtag);
    }
    for candidate in offer::candidates(&patch.fragment) {
        session.add_candidate(&candidate)?;
    }
    Ok(Patched::Trickled)
}
