//! Recording as the operator asks: begun, cut into a new file, and stopped while the stream goes on.

use crate::base::end_reason::EndReason;
use crate::base::id::RecordingId;
use crate::catalog::RecordingError;
use crate::publish::publication::Publication;
use crate::record::Begun;
use std::sync::Arc;
use std::time::Instant;

/// Why a stream can't be recorded, cut or stopped as wished.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No such stream, or no media of it yet.
    #[error("nobody is publishing this stream: see /api/streams")]
    NotLive,
    /// There is nothing to stop.
    #[error("this stream is not being recorded")]
    NotRecorded,
    /// MP4, which is one file from its first byte to its last.
    #[error(
        "this stream comes as MP4, which is kept byte for byte in one file: it can't be cut, or stopped \
         while it goes on; end the stream instead"
    )]
    Whole,
    /// The recorder can't.
    #[error(transparent)]
    Record(#[from] RecordingError),
}

impl Publication {
    /// From now on its media goes to a new file: begins a recording, or cuts the one there is at the next
    /// keyframe, which is asked for at once.
    pub(crate) fn begin_file(self: &Arc<Self>) -> Result<Begun, ControlError> {
        let owner = self.owner.upgrade().ok_or(ControlError::NotLive)?;
        // A call to the operating system, so before the lock.
        owner.recordings.has_space()?;
        let mut guard = self.lock();
        if self.is_over() {
            return Err(ControlError::NotLive);
        }
        let state = &mut *guard;
        if state.bytes.is_some() {
            return Err(ControlError::Whole);
        }
        let stream = state.stream.clone().ok_or(ControlError::NotLive)?;
        state.wants_keyframe = true;
        if let Some(open) = &state.recording {
            return open.cut(Instant::now()).ok_or(ControlError::Whole);
        }
        let recording = owner.recordings.join(&stream)?;
        let id = recording.id.clone();
        state.record = true;
        self.watch(&owner, state, recording);
        Ok(Begun { recording: id, continues: None, waits: false })
    }

    /// What came up to now is sealed; what comes is not recorded. Gives the file.
    pub(crate) fn stop_recording(&self) -> Result<RecordingId, ControlError> {
        let mut state = self.lock();
        if self.is_over() {
            return Err(ControlError::NotLive);
        }
        if state.bytes.is_some() {
            return Err(ControlError::Whole);
        }
        let open = state.recording.take().ok_or(ControlError::NotRecorded)?;
        state.record = false;
        open.stop(EndReason::Stopped, Instant::now());
        Ok(open.current())
    }
}
