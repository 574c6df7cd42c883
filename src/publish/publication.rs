//! A publication: one name's claim by one publisher, over all its sessions, from the first offer
//! until its file is sealed.
//!
//! A name is only reserved at the offer and claimed when media can flow: whoever connects first has
//! it. A publisher that vanishes keeps it for `record.reconnect_grace`, and goes on in the same
//! recording if it comes back.

mod control;
mod end;
mod info;

pub use control::ControlError;
pub use info::{Change, Picture, StreamInfo, What};

use crate::base::clock::Anchor;
use crate::base::error_code::ErrorCode;
use crate::base::id::SessionId;
use crate::base::id::{Secret, StreamName};
use crate::base::metrics::{Counter, metrics};
use crate::base::quota::Permit;
use crate::base::reason::EndReason;
use crate::catalog::Manifest;
use crate::catalog::RecordingError;
use crate::live::Stream;
use crate::media::{Event, Frame, GapReason, Kind, Track};
use crate::publish::limits::{KEPT, Meter};
use crate::publish::registry::Inner;
use crate::publish::status::Status;
use crate::publish::timeline::Timeline;
use crate::publish::{PublishError, Transport};
use crate::record::{ByteSink, Progress, Recording};
use info::StreamCounters;
use parking_lot::{Mutex, MutexGuard};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// WHIP has no `resume`: the same bearer may take over a session that is silent for this long.
const TAKEOVER_SILENCE: Duration = Duration::from_secs(2);

/// One publisher's claim.
#[derive(Debug)]
pub struct Publication {
    name: StreamName,
    resume: Secret,
    record: bool,
    bearer: Option<String>,
    began: Anchor,
    owner: Weak<Inner>,
    status: watch::Sender<Status>,
    over: AtomicBool,
    leaving: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Sessions that are answered and not yet connected, the newest last.
    pending: Vec<SessionId>,
    /// The session that connected last: its media counts.
    session: Option<SessionId>,
    transport: Option<Transport>,
    /// It has not been lost.
    up: bool,
    stream: Option<Stream>,
    /// Where bytes go that are kept as they come, in place of a stream.
    bytes: Option<ByteSink>,
    /// Whether what comes is recorded: as the publisher wished, until an operator says otherwise.
    record: bool,
    /// The recording that its media goes to.
    recording: Option<Recording>,
    /// Recordings that have not come to their end, this one too.
    unsettled: usize,
    /// The newest file there is so far.
    kept: Option<Box<Manifest>>,
    /// What ended the recording that its media went to last, if nothing else has.
    last: Option<Progress>,
    /// Why it is over.
    reason: Option<EndReason>,
    tally: StreamCounters,
    /// A new file waits for a keyframe.
    wants_keyframe: bool,
    timeline: Timeline,
    last_media: Option<Instant>,
    /// Its place among the streams, until it is over.
    place: Option<Permit>,
    meter: Meter,
    flow: Flow,
    /// Counts connections, so that a grace that ran out knows whether anybody came.
    generation: u64,
}

/// Where its frames are counted.
#[derive(Debug, Default)]
struct Flow {
    /// By the stream's track.
    frames: Vec<Counter>,
    bytes: Counter,
}

impl Flow {
    fn count(&self, frame: &Frame) {
        if let Some(frames) = self.frames.get(frame.track) {
            frames.inc();
        }
        self.bytes.inc_by(frame.data.len() as u64);
    }
}

impl Publication {
    pub(super) fn new(
        name: StreamName,
        record: bool,
        bearer: Option<String>,
        owner: Weak<Inner>,
        (place, meter): (Permit, Meter),
    ) -> Self {
        Self {
            name,
            resume: Secret::new(),
            record,
            bearer,
            began: Anchor::now(),
            owner,
            status: watch::Sender::new(Status::pending()),
            over: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            state: Mutex::new(State::new(record, place, meter)),
        }
    }

    /// Its stream's name.
    pub fn name(&self) -> &StreamName {
        &self.name
    }

    /// The publisher's proof of identity.
    pub fn resume(&self) -> &Secret {
        &self.resume
    }

    /// Time 0 of its frames.
    pub fn origin(&self) -> Instant {
        self.began.instant
    }

    /// The session a re-offer may be for: the one that is up, or the newest that tries.
    pub fn session(&self) -> Option<SessionId> {
        let state = self.lock();
        let up = state.session.as_ref().filter(|_| state.up);
        up.or(state.pending.last()).cloned()
    }

    /// Whether this session connected last.
    pub(crate) fn was(&self, session: &SessionId) -> bool {
        self.lock().session.as_ref() == Some(session)
    }

    /// Whether a WHIP client with this bearer may go on in place of one that is silent.
    pub(super) fn may_be_taken_over(&self, bearer: Option<&str>) -> bool {
        let silent = self.lock().last_media.is_none_or(|at| at.elapsed() >= TAKEOVER_SILENCE);
        bearer.is_some() && self.bearer.as_deref() == bearer && silent
    }

    /// What becomes of it.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Whether its sessions should be closed.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Its publisher has said stop. What was sent before may still be on its way, and is waited for; the
    /// name and the place are free for whoever is next, who may be the same.
    pub(crate) fn leaves(&self) {
        self.leaving.store(true, Ordering::Release);
        self.lock().place = None;
    }

    /// Whether nobody else may have its name.
    pub(crate) fn needs_name(&self) -> bool {
        !self.is_over() && !self.leaving.load(Ordering::Acquire)
    }

    /// A session is about to try: until it connects or is lost, the publication waits for it.
    pub fn offered(&self, session: &SessionId) {
        self.lock().pending.push(session.clone());
    }

    /// A session is up. Returns the session it replaces.
    ///
    /// # Errors
    ///
    /// Somebody else was quicker, or nothing can be recorded; the publication is over then.
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

    /// Takes the name, if nobody else has it.
    ///
    /// # Errors
    ///
    /// Somebody else was quicker; the publication is over then.
    pub(crate) fn claim(self: &Arc<Self>) -> Result<(), PublishError> {
        self.claimed().map(drop)
    }

    fn claimed(self: &Arc<Self>) -> Result<Arc<Inner>, PublishError> {
        let owner = self.owner.upgrade().ok_or(PublishError::Stopping)?;
        match owner.claim(self) {
            // Whoever ended it has the last word.
            Ok(()) | Err(PublishError::SessionNotFound) => Ok(owner),
            Err(refusal) => {
                self.finish(Status::Failed { code: refusal.code(), message: refusal.to_string() });
                Err(refusal)
            }
        }
    }

    fn fail_to_begin(&self, mut state: MutexGuard<'_, State>, failed: Progress) {
        self.over.store(true, Ordering::Release);
        // An earlier file is the last word; without one, this is.
        state.last = Some(failed);
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
        state.flow.frames = tracks.iter().map(frames).collect();
        state.stream = Some(stream);
        Ok(())
    }

    /// Whether the publisher has gone on with another session, which may have come another way.
    pub fn has_left(&self, session: &SessionId) -> bool {
        let state = self.lock();
        state.generation > 0 && state.session.as_ref() != Some(session) && !state.pending.contains(session)
    }

    /// Media of a session; of no effect if another session has taken over. Returns whether a viewer
    /// needs a keyframe to begin.
    pub fn media(&self, session: &SessionId, event: Event, now: Instant) -> bool {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.session.as_ref() != Some(session) || state.stream.is_none() {
            return false;
        }
        state.last_media = Some(now);
        let bytes = if let Event::Frame(frame) = &event { Some(frame.data.len()) } else { None };
        let exceeded = bytes.and_then(|bytes| state.measure(bytes, now));
        let mut keyframe_wanted = false;
        if let Some(stream) = &state.stream {
            let is_keyframe = state.tally.count(&event, stream.tracks());
            state.timeline.place(event, |event| {
                if let Event::Frame(frame) = &event {
                    state.flow.count(frame);
                }
                keyframe_wanted |= stream.push(&event, now);
            });
            // Asked for until it comes: a publisher is spared those that are wished right after another.
            state.wants_keyframe &= !is_keyframe;
            keyframe_wanted |= state.wants_keyframe;
        }
        if bytes.is_some() && !state.record {
            self.publishing(state);
        }
        drop(guard);
        self.ends_at(exceeded, now);
        keyframe_wanted
    }

    /// A track of a session brings nothing, or does so again.
    pub(crate) fn trouble(&self, session: &SessionId, kind: Kind, reason: Option<GapReason>) {
        if self.lock().session.as_ref() == Some(session) {
            self.status.send_if_modified(|status| status.note(kind, reason));
        }
    }

    /// Bytes of a session that are kept as they come.
    pub(crate) fn kept_bytes(&self, session: &SessionId, bytes: usize, now: Instant) {
        let mut state = self.lock();
        if state.session.as_ref() != Some(session) {
            return;
        }
        state.last_media = Some(now);
        state.tally.bytes += bytes as u64;
        state.flow.bytes.inc_by(bytes as u64);
        let exceeded = state.measure(bytes, now);
        drop(state);
        self.ends_at(exceeded, now);
    }

    fn publishing(&self, state: &State) {
        let first = self.status.send_if_modified(|status| {
            let Status::Pending(troubles) = status else { return false };
            *status = Status::Publishing(*troubles);
            true
        });
        if let (true, Some(owner)) = (first, self.owner.upgrade()) {
            owner.tell(What::Live, self.info_of(state));
        }
    }

    /// Its media, while it has any: for viewers.
    pub(crate) fn stream(&self) -> Option<Stream> {
        self.lock().stream.clone()
    }

    /// How its media comes in, once it has; `None` once it is over.
    pub(super) fn transport(&self) -> Option<Option<Transport>> {
        (!self.is_over()).then(|| self.lock().transport)
    }

    pub(super) fn info(&self) -> StreamInfo {
        self.info_of(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn new(record: bool, place: Permit, meter: Meter) -> Self {
        Self {
            pending: Vec::new(),
            session: None,
            transport: None,
            up: false,
            stream: None,
            bytes: None,
            record,
            recording: None,
            unsettled: 0,
            kept: None,
            last: None,
            reason: None,
            tally: StreamCounters::default(),
            wants_keyframe: false,
            timeline: Timeline::default(),
            last_media: None,
            place: Some(place),
            meter,
            flow: Flow::default(),
            generation: 0,
        }
    }

    /// Counts media; the limit that it exceeds.
    fn measure(&mut self, bytes: usize, now: Instant) -> Option<&'static str> {
        let kept = if self.transport == Some(Transport::Chunks) { KEPT } else { Duration::ZERO };
        self.meter.take(bytes, kept, now)
    }

    /// A session is up; returns the one it replaces.
    fn connect(&mut self, session: &SessionId, transport: Transport, now: Instant) -> Option<SessionId> {
        let counts = &metrics().publications;
        if self.generation == 0 {
            counts.connected.inc([transport.as_str()]);
        } else if self.session.as_ref() != Some(session) {
            counts.reconnected.inc([transport.as_str()]);
        }
        self.flow.bytes = metrics().media.bytes.of([transport.as_str()]);
        (self.generation, self.up, self.last_media) = (self.generation + 1, true, Some(now));
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
