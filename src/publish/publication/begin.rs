//! How a publication begins: a session connects, the name is claimed, the stream and its recording begin.

use crate::base::end_reason::EndReason;
use crate::base::error_code::ErrorCode;
use crate::base::id::SessionId;
use crate::base::metrics::metrics;
use crate::catalog::RecordingError;
use crate::live::Stream;
use crate::media::{Kind, Track};
use crate::publish::publication::{Publication, State};
use crate::publish::registry::Inner;
use crate::publish::status::Status;
use crate::publish::timeline::Timeline;
use crate::publish::{PublishError, Transport};
use crate::record::{ByteSink, Progress};
use parking_lot::MutexGuard;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

impl Publication {
    /// A session is about to try: until it connects or is lost, the publication waits for it.
    pub fn offered(&self, session: &SessionId) {
        self.lock().pending.push(session.clone());
    }

    /// A session is up. Returns the session it replaces.
    ///
    /// # Errors
    ///
    /// Another publisher was quicker, or nothing can be recorded; the publication is over then.
    pub fn connected(
        self: &Arc<Self>,
        session: &SessionId,
        transport: Transport,
        tracks: &[Track],
        now: Instant,
    ) -> Result<Option<SessionId>, PublishError> {
        let owner = self.claimed()?;
        let mut guard = self.lock();
        if self.is_over() {
            return Err(PublishError::SessionNotFound);
        }
        let state = &mut *guard;
        state.pending.retain(|pending| pending != session);
        // What the session before lacked, this one may have.
        self.status
            .send_if_modified(|status| status.note(Kind::Video, None) | status.note(Kind::Audio, None));
        let fits = state.stream.as_ref().is_some_and(|stream| state.timeline.resume(stream.tracks(), tracks));
        if !fits && let Err(failed) = self.begin(&owner, state, session, tracks, now) {
            self.fail_to_begin(guard, failed);
            return Err(PublishError::DiskFull);
        }
        Ok(state.connect(session, transport, now))
    }

    /// The same for one whose bytes are kept as they come. A file before this one is sealed.
    ///
    /// # Errors
    ///
    /// As [`Publication::connected`].
    pub fn connected_bytes(
        self: &Arc<Self>,
        session: &SessionId,
        transport: Transport,
        now: Instant,
    ) -> Result<ByteSink, PublishError> {
        let owner = self.claimed()?;
        let mut guard = self.lock();
        if self.is_over() {
            return Err(PublishError::SessionNotFound);
        }
        let state = &mut *guard;
        state.end_file(session, now);
        let (recording, sink) = match owner.recordings.start_bytes(&self.name) {
            Ok(started) => started,
            Err(error) => {
                let failed = self.cannot_start(&error);
                self.fail_to_begin(guard, failed);
                return Err(PublishError::DiskFull);
            }
        };
        self.watch(&owner, state, recording);
        state.bytes = Some(sink.clone());
        state.connect(session, transport, now);
        Ok(sink)
    }

    /// Takes the name, if no other publisher has it.
    ///
    /// # Errors
    ///
    /// Another publisher was quicker; the publication is over then.
    pub(crate) fn claim(self: &Arc<Self>) -> Result<(), PublishError> {
        self.claimed().map(drop)
    }

    fn claimed(self: &Arc<Self>) -> Result<Arc<Inner>, PublishError> {
        let owner = self.owner.upgrade().ok_or(PublishError::Stopping)?;
        match owner.claim(self) {
            // The final status says why it ended.
            Ok(()) | Err(PublishError::SessionNotFound) => Ok(owner),
            Err(refusal) => {
                self.finish(Status::Failed { code: refusal.code(), message: refusal.to_string() });
                Err(refusal)
            }
        }
    }

    fn fail_to_begin(&self, mut state: MutexGuard<'_, State>, failed: Progress) {
        self.over.store(true, Ordering::Release);
        // An earlier file makes the final status; without one, this does.
        state.last_progress = Some(failed);
        self.finish_if_settled(state);
    }

    fn cannot_start(&self, error: &RecordingError) -> Progress {
        tracing::error!(stream = %self.name, %error, "a recording can't start");
        let full = matches!(error, RecordingError::DiskFull);
        let code = if full { ErrorCode::DiskFull } else { ErrorCode::WriteError };
        Progress::Failed { code, message: format!("nothing can be recorded: {error}") }
    }

    /// Begins a stream, and its recording; one with other tracks can't go on in the same file.
    fn begin(
        self: &Arc<Self>,
        owner: &Arc<Inner>,
        state: &mut State,
        session: &SessionId,
        tracks: &[Track],
        now: Instant,
    ) -> Result<(), Progress> {
        state.end_file(session, now);
        let stream = Stream::new(self.name.clone(), tracks.to_vec());
        if state.record {
            let recording = owner.recordings.start(&stream).map_err(|error| self.cannot_start(&error))?;
            self.watch(owner, state, recording);
        }
        state.timeline = Timeline::new(tracks.len());
        let frames = |track: &Track| metrics().media.frames.of([track.codec.as_str()]);
        state.metrics.frames = tracks.iter().map(frames).collect();
        state.stream = Some(stream);
        Ok(())
    }
}

impl State {
    /// A session is up; returns the one it replaces.
    fn connect(&mut self, session: &SessionId, transport: Transport, now: Instant) -> Option<SessionId> {
        let counts = &metrics().publications;
        if self.generation == 0 {
            counts.connected.inc([transport.as_str()]);
        } else if self.session.as_ref() != Some(session) {
            counts.reconnected.inc([transport.as_str()]);
        }
        self.metrics.bytes = metrics().media.bytes.of([transport.as_str()]);
        (self.generation, self.connected, self.last_media) = (self.generation + 1, true, Some(now));
        self.transport = Some(transport);
        self.session.replace(session.clone()).filter(|old| old != session)
    }

    /// What comes next doesn't fit into the file: it is sealed. A session that goes on by itself has
    /// lost nothing.
    fn end_file(&mut self, session: &SessionId, now: Instant) {
        let same = self.session.as_ref() == Some(session);
        let reason = if same { EndReason::Rotated } else { EndReason::PublisherLost };
        if let Some(stream) = self.stream.take() {
            stream.end(reason, now);
        }
        if let Some(bytes) = self.bytes.take() {
            bytes.end(reason);
        }
    }
}
