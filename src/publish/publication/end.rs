//! How a publication ends: as its publisher or an operator asks, by silence, or at a limit; its final status
//! is known once all of its recorders are done.

use crate::base::end_reason::EndReason;
use crate::base::error_code::ErrorCode;
use crate::base::id::{RecordingId, SessionId};
use crate::base::metrics::metrics;
use crate::publish::PublishError;
use crate::publish::publication::{Publication, State, What};
use crate::publish::registry::Inner;
use crate::publish::status::Status;
use crate::record::{Progress, Recording};
use parking_lot::MutexGuard;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// The code of one whose sessions never came up.
const NEVER_CONNECTED: ErrorCode = ErrorCode::SessionNotFound;

impl Publication {
    /// A session ended that its publisher has not stopped: the name and the file wait for the publisher.
    pub fn lost(self: &Arc<Self>, session: &SessionId, now: Instant) {
        let Some(owner) = self.owner.upgrade() else { return };
        let mut state = self.lock();
        if state.session.as_ref() != Some(session) {
            drop(state);
            return self.session_failed(
                session,
                NEVER_CONNECTED,
                "no media connection came about within 15 s: check that UDP, or TCP to the same port, reaches the server \
                 (webrtc.udp_bind, webrtc.tcp, webrtc.advertise, firewalls)",
            );
        }
        state.connected = false;
        let lost = state.generation;
        drop(state);
        if owner.grace.is_zero() {
            self.end(EndReason::PublisherLost, now);
            return;
        }
        let (publication, stop) = (self.clone(), owner.tasks.stop_token());
        owner.tasks.clone().spawn("reconnect grace", async move {
            tokio::select! {
                () = tokio::time::sleep(owner.grace) => {}
                () = stop.cancelled() => {}
            }
            publication.end_if(EndReason::PublisherLost, Instant::now(), |state| state.generation == lost);
        });
    }

    /// Ends it: the recorder seals, then the status says so. Only the first end counts.
    pub fn end(&self, reason: EndReason, now: Instant) {
        self.end_if(reason, now, |_| true);
    }

    /// Ends it, unless the publisher has gone on with another session.
    pub(crate) fn end_session(&self, session: &SessionId, reason: EndReason, now: Instant) {
        self.end_if(reason, now, |state| state.session.as_ref() == Some(session));
    }

    fn end_if(&self, reason: EndReason, now: Instant, wanted: impl FnOnce(&State) -> bool) {
        let mut state = self.lock();
        // Under the lock, so that no session connects in between.
        if !wanted(&state) || self.over.swap(true, Ordering::AcqRel) {
            return;
        }
        let (stream, bytes) = (state.stream.take(), state.bytes.take());
        (state.reason, state.permit) = (Some(reason), None);
        if let Some(stream) = &stream {
            stream.end(reason, now);
        }
        if let Some(bytes) = bytes {
            bytes.end(reason);
        }
        if stream.is_none() && self.record && state.last_progress.is_none() {
            state.last_progress = Some(Progress::Empty(reason));
        }
        // The final status is its recorders', if there are any.
        self.finish_if_settled(state);
    }

    pub(super) fn end_at_limit(&self, limit: Option<&'static str>, now: Instant) {
        let Some(limit) = limit else { return };
        if !self.is_over() {
            tracing::warn!(stream = %self.name, limit, "the publication exceeds a limit: it ends here");
            metrics().refused(limit);
            self.end(EndReason::Limit, now);
        }
    }

    /// A session was refused before it could try.
    pub(crate) fn refused(&self, session: &SessionId, refusal: &PublishError) {
        self.session_failed(session, refusal.code(), &refusal.to_string());
    }

    /// A session will not connect; the publication fails with it unless others try, or have connected.
    fn session_failed(&self, session: &SessionId, code: ErrorCode, message: &str) {
        let mut state = self.lock();
        state.pending.retain(|pending| pending != session);
        let hopeless = state.pending.is_empty() && state.generation == 0;
        drop(state);
        if hopeless {
            self.finish(Status::Failed { code, message: message.to_owned() });
        }
    }

    /// The recording is the one that media goes to from now on; follows its recorder.
    pub(super) fn watch(self: &Arc<Self>, owner: &Arc<Inner>, state: &mut State, recording: Recording) {
        state.open_recordings += 1;
        let (publication, id, mut progress) =
            (self.clone(), recording.id.clone(), recording.progress.clone());
        state.recording = Some(recording);
        owner.tasks.spawn("publication", async move {
            loop {
                let step = progress.borrow_and_update().clone();
                match step {
                    Progress::Waiting => {}
                    Progress::Writing => publication.publishing(&publication.lock()),
                    Progress::Sealing(error) => publication.sealing(&id, error),
                    last => return publication.recorded(&id, last),
                }
                if progress.changed().await.is_err() {
                    let message = "the server failed to record: its log says why".to_owned();
                    return publication
                        .recorded(&id, Progress::Failed { code: ErrorCode::Internal, message });
                }
            }
        });
    }

    /// A recording is over, and can't be sealed for now: its publisher has nothing more to send, and is
    /// told why it has to wait.
    fn sealing(&self, id: &RecordingId, error: String) {
        let mut state = self.lock();
        if state.recording.as_ref().is_some_and(|open| open.id == *id) {
            self.over.store(true, Ordering::Release);
            (state.stream, state.bytes, state.permit) = (None, None, None);
        }
        drop(state);
        if self.is_over() {
            self.status.send_if_modified(|status| {
                let waits = !status.is_final();
                if waits {
                    *status = Status::Sealing { error };
                }
                waits
            });
        }
    }

    /// A recording has come to its end. If the publication had not ended, there is nothing to
    /// go on with: it is over.
    fn recorded(&self, id: &RecordingId, last: Progress) {
        let mut state = self.lock();
        state.open_recordings -= 1;
        if let Progress::Sealed(kept) = &last
            && state.newest_file.as_ref().is_none_or(|newest| newest.id < kept.id)
        {
            state.newest_file = Some(kept.clone());
        }
        if state.recording.as_ref().is_some_and(|open| open.id == *id) {
            self.over.store(true, Ordering::Release);
            // A recorder that failed has left its stream open.
            (state.stream, state.bytes, state.permit) = (None, None, None);
            state.last_progress = Some(last);
        }
        if self.is_over() {
            self.finish_if_settled(state);
        }
    }

    /// Takes on the final status, unless a recorder may still have a file to add to it.
    pub(super) fn finish_if_settled(&self, state: MutexGuard<'_, State>) {
        if state.open_recordings > 0 {
            return;
        }
        let last = state.final_status(self.record);
        drop(state);
        self.finish(last);
    }

    /// Takes on this final status, frees the name, and is forgotten a minute later.
    pub(super) fn finish(&self, status: Status) {
        let was_live = matches!(*self.status.borrow(), Status::Publishing(_) | Status::Sealing { .. });
        let first = self.status.send_if_modified(|current| {
            let first = !current.is_final();
            if first {
                *current = status;
            }
            first
        });
        self.over.store(true, Ordering::Release);
        let mut state = self.lock();
        (state.stream, state.bytes, state.permit) = (None, None, None);
        let (info, reason) = (self.info_of(&state), state.reason);
        drop(state);
        if first {
            metrics().publications.ended.inc([ending(&self.status.borrow(), reason)]);
        }
        if let (true, Some(owner)) = (first, self.owner.upgrade()) {
            tracing::info!(stream = %self.name, status = self.status.borrow().as_str(), "the publication is over");
            owner.release(&self.name, &self.resume);
            if was_live {
                owner.announce(What::Ended, info);
            }
        }
    }
}

impl State {
    /// What becomes of a publication whose recorders are done. `wanted` says whether its publisher counts
    /// on a file.
    fn final_status(&self, wanted: bool) -> Status {
        let reason = self.reason.unwrap_or(EndReason::Stopped);
        match (&self.last_progress, &self.newest_file) {
            (Some(Progress::Sealed(last)), Some(kept)) if last.id == kept.id => {
                let reason = kept.end_reason.unwrap_or(reason);
                Status::Unpublished { recording: Some(kept.clone()), reason }
            }
            (_, Some(kept)) => Status::Unpublished { recording: Some(kept.clone()), reason },
            (Some(Progress::Failed { code, message }), None) => {
                Status::Failed { code: *code, message: message.clone() }
            }
            (Some(Progress::Empty(_)), None) if wanted => Status::Failed {
                code: ErrorCode::BadRequest,
                message: "it ended before any decodable frame came: nothing was recorded".to_owned(),
            },
            _ => Status::Unpublished { recording: None, reason },
        }
    }
}

/// The final status, as it is counted: why it was ended says more of an empty recording.
fn ending(status: &Status, said: Option<EndReason>) -> &'static str {
    match status {
        Status::Unpublished { reason, .. } => reason.as_str(),
        Status::Failed { code: NEVER_CONNECTED, .. } => "never_connected",
        Status::Failed { code: ErrorCode::BadRequest, .. } => said.map_or("empty", EndReason::as_str),
        Status::Failed { code, .. } => code.as_str(),
        Status::Pending(_) | Status::Publishing(_) | Status::Sealing { .. } => ErrorCode::Internal.as_str(),
    }
}
