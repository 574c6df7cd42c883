//! What the rest of the server asks of the loop.

use super::sessions::{Entry, Outcome, Sessions, catch_panic};
use super::{Engine, Key};
use crate::base::end_reason::EndReason;
use crate::base::id::SessionId;
use crate::base::quota::Permit;
use crate::webrtc::session::{Answer, Session};
use crate::webrtc::{Candidate, Patch, Patched, PeerError, PeerOwner, offer};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};
use tracing::info_span;

type Reply<T> = oneshot::Sender<Result<T, PeerError>>;

pub(crate) enum Command<O> {
    Add {
        key: Key,
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
    /// Another session has taken over from this one.
    Replaced {
        id: SessionId,
    },
    /// A session comes from another loop.
    Adopt {
        key: Key,
        entry: Box<Entry<O>>,
    },
}

impl<O> Command<O> {
    /// The session that it is about, which may have gone over to another loop.
    fn about(&self) -> Option<&SessionId> {
        match self {
            Self::Candidate { id, .. }
            | Self::Reoffer { id, .. }
            | Self::Patch { id, .. }
            | Self::Stop { id, .. }
            | Self::Replaced { id } => Some(id),
            Self::Add { .. } | Self::StopAll { .. } | Self::Adopt { .. } => None,
        }
    }
}

/// The answer to an offer or a candidate that made its session panic.
pub(in crate::webrtc) fn panicked() -> PeerError {
    PeerError::BadSdp(
        "this can't be dealt with, which is a fault of the server: its log says more".to_owned(),
    )
}

impl<O: PeerOwner + 'static> Engine<O> {
    pub(super) fn command(&mut self, command: Command<O>, now: Instant) {
        let Some(command) = self.pass_on(command) else { return };
        match command {
            Command::Add { key, id, session, owner, handshake } => {
                self.add(key, id, session, owner, handshake);
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
                self.stopping = true;
                let keys: Vec<Key> = self.sessions.all.keys().copied().collect();
                for key in keys {
                    self.remove(key, Outcome::Stopped(EndReason::ServerStopped), now);
                }
                let _ = reply.send(Ok(()));
            }
            Command::Replaced { id } => {
                if let Some(old) = self.sessions.by_id.get(&id).copied() {
                    self.remove(old, Outcome::Replaced, now);
                }
            }
            Command::Adopt { key, entry } => self.adopt(key, *entry, now),
        }
    }

    /// Gives a command to the loop that has its session, behind that session if it is on its way; gives it back if
    /// that is this one, or if there is none.
    fn pass_on(&mut self, command: Command<O>) -> Option<Command<O>> {
        let Some(id) = command.about().filter(|id| !self.sessions.by_id.contains_key(id)) else {
            return Some(command);
        };
        let Some(other) = self.sessions.routes.home(id).and_then(|home| self.commands[home].upgrade()) else {
            return Some(command);
        };
        if let Err(mpsc::error::TrySendError::Full(command)) = other.try_send(command) {
            self.postponed.push(command);
        }
        None
    }

    fn adopt(&mut self, key: Key, entry: Entry<O>, now: Instant) {
        self.sessions.routes.take(key);
        self.sessions.by_id.insert(entry.id.clone(), key);
        // Its timers are the other loop's.
        let entry = Entry { next_timer: None, moved: Some(now), dirty: false, ..entry };
        self.sessions.all.insert(key, entry);
        if self.stopping {
            self.remove(key, Outcome::Stopped(EndReason::ServerStopped), now);
        } else {
            self.sessions.touch(key);
        }
    }

    fn add(&mut self, key: Key, id: SessionId, session: Box<Session>, owner: Arc<O>, handshake: Permit) {
        let Sessions { all, by_id, routes, dirty, .. } = &mut self.sessions;
        let span = info_span!("session", stream = %owner.name(), key);
        routes.add(|routes| routes.ufrags.insert(session.ufrag().to_owned(), key));
        by_id.insert(id.clone(), key);
        let entry = Entry {
            id,
            session,
            owner,
            handshake: Some(handshake),
            next_timer: None,
            stop_reason: None,
            dirty: true,
            panicked: false,
            wanted_at: None,
            moved: None,
            span,
        };
        all.insert(key, entry);
        dirty.push(key);
    }

    /// Does something with a session, and routes the user fragment here that it may have taken.
    pub(super) fn on_session<T>(
        &mut self,
        id: &SessionId,
        act: impl FnOnce(&mut Entry<O>) -> Result<T, PeerError>,
    ) -> Result<T, PeerError> {
        let Sessions { all, by_id, routes, .. } = &mut self.sessions;
        let key = *by_id.get(id).ok_or(PeerError::SessionNotFound)?;
        let entry = all.get_mut(&key).ok_or(PeerError::SessionNotFound)?;
        let result = catch_panic(entry, act).unwrap_or_else(|| Err(panicked()));
        routes.add(|routes| routes.ufrags.insert(entry.session.ufrag().to_owned(), key));
        self.sessions.touch(key);
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
