//! A publication: one name's claim by one publisher, over all its sessions, from the first offer
//! until its file is sealed.
//!
//! A name is only reserved at the offer and claimed when media can flow: the first to connect has
//! it. A publisher that vanishes keeps it for `record.reconnect_grace`, and goes on in the same
//! recording if it comes back.
//!
//! It claims and frees its name in the registry that made it, so the two know each other.

mod begin;
mod control;
mod end;
mod info;

pub use control::ControlError;
pub use info::{Change, Picture, StreamInfo, What};

use crate::base::clock::Anchor;
use crate::base::end_reason::EndReason;
use crate::base::id::{Secret, SessionId, StreamName};
use crate::base::metrics::Counter;
use crate::base::quota::Permit;
use crate::catalog::Manifest;
use crate::live::Stream;
use crate::media::{Demand, Event, Frame, GapReason, Kind};
use crate::publish::Transport;
use crate::publish::limits::{Meter, OFFLINE_BACKLOG};
use crate::publish::registry::Inner;
use crate::publish::status::Status;
use crate::publish::timeline::Timeline;
use crate::record::{ByteSink, Progress, Recording};
use info::StreamCounters;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
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
    connected: bool,
    stream: Option<Stream>,
    /// Where bytes go that are kept as they come, in place of a stream.
    bytes: Option<ByteSink>,
    /// Whether what comes is recorded: as the publisher wished, until an operator says otherwise.
    record: bool,
    /// The recording that its media goes to.
    recording: Option<Recording>,
    /// Recordings that have not come to their end, this one too.
    open_recordings: usize,
    newest_file: Option<Box<Manifest>>,
    /// What ended the recording that its media went to last, if nothing else has.
    last_progress: Option<Progress>,
    reason: Option<EndReason>,
    counters: StreamCounters,
    /// A new file waits for a keyframe.
    wants_keyframe: bool,
    timeline: Timeline,
    last_media: Option<Instant>,
    /// Its share of the streams that there may be, until it is over.
    permit: Option<Permit>,
    meter: Meter,
    metrics: MediaMetrics,
    /// Counts connections, so that a grace that ran out knows whether the publisher is back.
    generation: u64,
}

#[derive(Debug, Default)]
struct MediaMetrics {
    /// By the stream's track.
    frames: Vec<Counter>,
    bytes: Counter,
}

impl MediaMetrics {
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
        (permit, meter): (Permit, Meter),
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
            state: Mutex::new(State::new(record, permit, meter)),
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
        let up = state.session.as_ref().filter(|_| state.connected);
        up.or(state.pending.last()).cloned()
    }

    /// Whether this session connected last.
    pub(crate) fn is_current(&self, session: &SessionId) -> bool {
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

    /// Its publisher has asked to stop. What was sent before may still be on its way, and is waited for; the
    /// name and the permit are free for the next publisher, which may be the same.
    pub(crate) fn leaves(&self) {
        self.leaving.store(true, Ordering::Release);
        self.lock().permit = None;
    }

    /// Whether no other publication may have its name.
    pub(crate) fn needs_name(&self) -> bool {
        !self.is_over() && !self.leaving.load(Ordering::Acquire)
    }

    /// Whether the publisher has gone on with another session, which may have come another way.
    pub fn has_left(&self, session: &SessionId) -> bool {
        let state = self.lock();
        state.generation > 0 && state.session.as_ref() != Some(session) && !state.pending.contains(session)
    }

    /// Media of a session; of no effect if another session has taken over.
    pub fn media(&self, session: &SessionId, event: Event, now: Instant) -> Demand {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.session.as_ref() != Some(session) || state.stream.is_none() {
            return Demand::default();
        }
        state.last_media = Some(now);
        let bytes = if let Event::Frame(frame) = &event { Some(frame.data.len()) } else { None };
        let exceeded = bytes.and_then(|bytes| state.measure(bytes, now));
        let mut demand = Demand::default();
        if let Some(stream) = &state.stream {
            let is_keyframe = state.counters.count(&event, stream.tracks());
            state.timeline.push(event, |event| {
                if let Event::Frame(frame) = &event {
                    state.metrics.count(frame);
                }
                demand |= stream.push(event, now);
            });
            // Asked for until it comes: requests right after another don't reach the publisher.
            state.wants_keyframe &= !is_keyframe;
            demand.keyframe |= state.wants_keyframe;
        }
        if bytes.is_some() && !state.record {
            self.publishing(state);
        }
        drop(guard);
        self.end_at_limit(exceeded, now);
        demand
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
        state.counters.bytes += bytes as u64;
        state.metrics.bytes.inc_by(bytes as u64);
        let exceeded = state.measure(bytes, now);
        drop(state);
        self.end_at_limit(exceeded, now);
    }

    fn publishing(&self, state: &State) {
        let first = self.status.send_if_modified(|status| {
            let Status::Pending(troubles) = status else { return false };
            *status = Status::Publishing(*troubles);
            true
        });
        if let (true, Some(owner)) = (first, self.owner.upgrade()) {
            owner.announce(What::Live, self.info_of(state));
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
    fn new(record: bool, permit: Permit, meter: Meter) -> Self {
        Self {
            pending: Vec::new(),
            session: None,
            transport: None,
            connected: false,
            stream: None,
            bytes: None,
            record,
            recording: None,
            open_recordings: 0,
            newest_file: None,
            last_progress: None,
            reason: None,
            counters: StreamCounters::default(),
            wants_keyframe: false,
            timeline: Timeline::default(),
            last_media: None,
            permit: Some(permit),
            meter,
            metrics: MediaMetrics::default(),
            generation: 0,
        }
    }

    /// Counts media; the limit that it exceeds.
    fn measure(&mut self, bytes: usize, now: Instant) -> Option<&'static str> {
        let backlog =
            if self.transport == Some(Transport::Chunks) { OFFLINE_BACKLOG } else { Duration::ZERO };
        self.meter.take(bytes, backlog, now)
    }
}
