//! A recording's files seen from outside: which one is being written, and the wish for a new one.
//!
//! A cut is a rotation on request. It happens at the first frame that came after the request
//! and can begin a file, so what is said first is in the old file, and nothing falls between the two.

use crate::base::end_reason::EndReason;
use crate::base::id::{RecordingId, RecordingIds};
use crate::live::Stopper;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::time::Instant;

/// A new file, at a word from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The new file's identifier.
    pub recording: RecordingId,
    /// The file it goes on from.
    pub continues: Option<RecordingId>,
    /// It begins with the next keyframe; a stream that ends before leaves no such file.
    pub waits: bool,
}

/// What a recorder and its control have in common.
#[derive(Debug)]
pub(super) struct Files {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    current: RecordingId,
    /// The first frame is there.
    begun: bool,
    /// The identifier that was promised to the next file, and since when it is waited for.
    next: Option<(RecordingId, Instant)>,
}

impl Files {
    pub fn new(first: RecordingId) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { current: first, begun: false, next: None }) })
    }

    /// This one, the first or behind one that could not be written, has its first frame.
    pub fn begin(&self, id: RecordingId) {
        let mut state = self.lock();
        (state.current, state.begun) = (id, true);
    }

    /// Since when a new file is wished for.
    pub fn cut_since(&self) -> Option<Instant> {
        self.lock().next.as_ref().map(|(_, since)| *since)
    }

    /// The identifier of the file that begins now. Whatever it begins for, it is the one that was
    /// promised: ids have to rise.
    pub fn next(&self, new: impl FnOnce() -> RecordingId) -> RecordingId {
        self.lock().next.take().map_or_else(new, |(promised, _)| promised)
    }

    /// This one is being written.
    pub fn set_current(&self, id: RecordingId) {
        self.lock().current = id;
    }

    fn cut(&self, now: Instant, new: impl FnOnce() -> RecordingId) -> Begun {
        let mut state = self.lock();
        let current = state.current.clone();
        if !state.begun {
            return Begun { recording: current, continues: None, waits: true };
        }
        let (next, _) = state.next.get_or_insert_with(|| (new(), now));
        Begun { recording: next.clone(), continues: Some(current), waits: true }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// What a recording can be told to do.
#[derive(Clone, Debug)]
pub(super) struct Control {
    pub files: Arc<Files>,
    pub stopper: Stopper,
    pub ids: Arc<RecordingIds>,
}

impl Control {
    /// From the next keyframe on a new file; if one is wished for already, that one.
    pub fn cut(&self, now: Instant) -> Begun {
        self.files.cut(now, || self.ids.next(jiff::Timestamp::now()))
    }

    pub fn stop(&self, reason: EndReason, now: Instant) {
        self.stopper.stop(reason, now);
    }

    pub fn current(&self) -> RecordingId {
        self.files.lock().current.clone()
    }
}
