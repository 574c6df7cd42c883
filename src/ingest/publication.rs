//! A publication: one name's claim by one publisher, over all its sessions, from the first offer
//! until its file is sealed.
//!
//! A name is only reserved at the offer and claimed when media can flow: whoever connects first has
//! it. A publisher that vanishes keeps it for `record.reconnect_grace`, and goes on in the same
//! recording if it comes back.

use crate::base::clock::Anchor;
use crate::base::id::{RecordingId, Secret, StreamName};
use crate::base::reason::EndReason;
use crate::base::tasks::Tasks;
use crate::ingest::timeline::Timeline;
use crate::ingest::webrtc::{Refusal, SessionId};
use crate::live::Stream;
use crate::media::{Codec, Event, Track};
use crate::record::{Manifest, Progress, Recording, Recordings};
use serde::Serialize;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A `resume` secret tells what became of its publication for this long after the end.
const REMEMBERED: Duration = Duration::from_secs(60);
/// WHIP has no `resume`: the same bearer may take over a session that is silent for this long.
const TAKEOVER_SILENCE: Duration = Duration::from_secs(2);

/// What a publisher is told.
#[derive(Clone, Debug)]
pub enum Status {
    /// Accepted; no media yet.
    Pending,
    /// The recorder has its first frame (or, unrecorded, media flows).
    Publishing,
    /// Over: a file is sealed, or nothing was to be recorded.
    Unpublished {
        /// The sealed recording.
        recording: Option<Box<Manifest>>,
        /// Why it ended.
        reason: EndReason,
    },
    /// Over, and nothing was recorded.
    Failed {
        /// The contract's error code.
        code: &'static str,
        /// What to do.
        message: String,
    },
}

impl Status {
    /// The contract's word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Publishing => "PUBLISHING",
            Self::Unpublished { .. } => "UNPUBLISHED",
            Self::Failed { .. } => "FAILED",
        }
    }

    /// Nothing comes after this.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Unpublished { .. } | Self::Failed { .. })
    }
}

/// A live stream, for the list.
#[derive(Clone, Debug, Serialize)]
pub struct StreamInfo {
    /// Its name.
    pub stream: StreamName,
    /// The contract's status word.
    pub status: &'static str,
    /// When its publisher was first accepted.
    pub started_at: jiff::Timestamp,
    /// What it is recorded to.
    pub recording: Option<RecordingId>,
    /// How it comes in.
    pub via: &'static str,
    /// What it carries.
    pub tracks: Vec<Codec>,
}

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
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The session whose media counts.
    session: Option<SessionId>,
    stream: Option<Stream>,
    recording: Option<Recording>,
    timeline: Timeline,
    last_media: Option<Instant>,
    /// Counts sessions, so that a grace that ran out knows whether anybody came.
    generation: u64,
}

impl Publication {
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

    /// The session whose media counts, if one is up.
    pub fn session(&self) -> Option<SessionId> {
        self.lock().session.clone()
    }

    /// What becomes of it.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Whether its sessions should be closed.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// A session is up. Returns the session it replaces.
    ///
    /// # Errors
    ///
    /// Somebody else was quicker, or nothing can be recorded; the publication is over then.
    pub fn connected(
        self: &Arc<Self>,
        session: &SessionId,
        tracks: &[Track],
        now: Instant,
    ) -> Result<Option<SessionId>, Refusal> {
        let owner = self.owner.upgrade().ok_or(Refusal::Stopping)?;
        let claimed = owner.claim(self);
        if let Err(refusal) = claimed {
            self.finish(Status::Failed { code: refusal.code(), message: refusal.to_string() });
            return Err(refusal);
        }
        let mut guard = self.lock();
        let state = &mut *guard;
        state.generation += 1;
        let fits = state.stream.as_ref().is_some_and(|stream| state.timeline.resume(stream.tracks(), tracks));
        if !fits && let Some(stream) = state.stream.take() {
            // Other tracks than before can't go on in the same file.
            stream.end(EndReason::PublisherLost, now);
        }
        if state.stream.is_none() {
            let stream = Stream::new(self.name.clone(), tracks.to_vec());
            state.timeline = Timeline::new(tracks.len());
            state.recording = None;
            if self.record {
                match owner.recordings.start(&stream) {
                    Ok(recording) => {
                        self.watch(&owner, recording.clone());
                        state.recording = Some(recording);
                    }
                    Err(error) => {
                        drop(guard);
                        tracing::error!(stream = %self.name, %error, "a recording can't start");
                        let refusal = Refusal::DiskFull;
                        self.finish(Status::Failed { code: refusal.code(), message: error.to_string() });
                        return Err(refusal);
                    }
                }
            }
            state.stream = Some(stream);
        }
        state.last_media = Some(now);
        Ok(state.session.replace(session.clone()).filter(|old| old != session))
    }

    /// Media of a session; of no effect if another session has taken over.
    pub fn media(&self, session: &SessionId, event: Event, now: Instant) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let (true, Some(stream)) = (state.session.as_ref() == Some(session), &state.stream) else { return };
        state.last_media = Some(now);
        let is_frame = matches!(event, Event::Frame(_));
        state.timeline.place(event, |event| stream.push(&event, now));
        if is_frame && !self.record && matches!(*self.status.borrow(), Status::Pending) {
            self.status.send_replace(Status::Publishing);
        }
    }

    /// A session ended without its publisher's word: the name and the file wait for its return.
    pub fn lost(self: &Arc<Self>, session: &SessionId, now: Instant) {
        let Some(owner) = self.owner.upgrade() else { return };
        let generation = {
            let mut state = self.lock();
            if state.session.as_ref() != Some(session) {
                // Never connected, or replaced: only the former is the end.
                let never = state.session.is_none() && state.generation == 0;
                drop(state);
                if never {
                    self.finish(Status::Failed {
                        code: "session_not_found",
                        message:
                            "no media connection came about within 15 s: check that UDP reaches the server \
                                  (webrtc.udp_bind, webrtc.advertise, firewalls)"
                                .to_owned(),
                    });
                }
                return;
            }
            state.session = None;
            state.generation
        };
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
            let nobody_came = publication.lock().generation == generation;
            if nobody_came {
                publication.end(EndReason::PublisherLost, Instant::now());
            }
        });
    }

    /// Ends it: the recorder seals, then the status says so.
    pub fn end(&self, reason: EndReason, now: Instant) {
        let (stream, recorded) = {
            let mut state = self.lock();
            state.session = None;
            state.generation += 1;
            (state.stream.take(), state.recording.is_some())
        };
        self.over.store(true, Ordering::Release);
        match stream {
            Some(stream) => {
                stream.end(reason, now);
                if !recorded {
                    self.finish(Status::Unpublished { recording: None, reason });
                }
            }
            None if !recorded => self.finish(Status::Failed {
                code: "bad_request",
                message: "it ended before any media came: nothing was recorded".to_owned(),
            }),
            None => {}
        }
    }

    /// Follows the recorder and translates.
    fn watch(self: &Arc<Self>, owner: &Arc<Inner>, recording: Recording) {
        let (publication, mut progress) = (self.clone(), recording.progress);
        owner.tasks.spawn("publication", async move {
            loop {
                let status = match &*progress.borrow_and_update() {
                    Progress::Waiting => None,
                    Progress::Writing => Some(Status::Publishing),
                    Progress::Sealed(manifest) => Some(Status::Unpublished {
                        reason: manifest.end_reason.unwrap_or(EndReason::Stopped),
                        recording: Some(manifest.clone()),
                    }),
                    Progress::Empty(_) => Some(Status::Failed {
                        code: "bad_request",
                        message: "it ended before any decodable frame came: nothing was recorded".to_owned(),
                    }),
                    Progress::Failed { code, message } => {
                        Some(Status::Failed { code, message: message.clone() })
                    }
                };
                match status {
                    Some(status) if status.is_final() => {
                        // A publisher that came back with other tracks has a newer recording to follow.
                        let newest = publication.lock().recording.as_ref().map(|newest| newest.id.clone());
                        if publication.is_over() || newest.as_ref() == Some(&recording.id) {
                            publication.finish(status);
                        }
                        return;
                    }
                    Some(status) => drop(publication.status.send_replace(status)),
                    None => {}
                }
                if progress.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// Gives the last word, frees the name, and is forgotten a minute later.
    fn finish(&self, status: Status) {
        let first = self.status.send_if_modified(|current| {
            let first = !current.is_final();
            if first {
                *current = status;
            }
            first
        });
        self.over.store(true, Ordering::Release);
        if let (true, Some(owner)) = (first, self.owner.upgrade()) {
            tracing::info!(stream = %self.name, status = self.status.borrow().word(), "the publication is over");
            owner.release(&self.name, &self.resume);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All publications. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Publications {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    recordings: Recordings,
    tasks: Tasks,
    grace: Duration,
    max_streams: usize,
    maps: Mutex<Maps>,
}

#[derive(Debug, Default)]
struct Maps {
    /// Who has each name.
    names: HashMap<StreamName, Arc<Publication>>,
    /// Everybody who may come back, and for a minute those whose file is sealed.
    secrets: HashMap<Secret, Arc<Publication>>,
    stopping: bool,
}

impl Publications {
    /// No publications yet.
    pub fn new(recordings: Recordings, tasks: Tasks, grace: Duration, max_streams: usize) -> Self {
        Self { inner: Arc::new(Inner { recordings, tasks, grace, max_streams, maps: Mutex::default() }) }
    }

    /// Reserves a name for a publisher who makes an offer, or finds the publication it had.
    pub fn reserve(
        &self,
        name: &StreamName,
        record: bool,
        resume: Option<&Secret>,
        bearer: Option<String>,
    ) -> Result<Arc<Publication>, Refusal> {
        let mut maps = self.inner.lock();
        if maps.stopping {
            return Err(Refusal::Stopping);
        }
        if let Some(resume) = resume {
            let held = maps.secrets.get(resume).filter(|held| held.name == *name && !held.is_over());
            return held.cloned().ok_or(Refusal::ResumeExpired);
        }
        if let Some(held) = maps.names.get(name) {
            let silent = held.lock().last_media.is_none_or(|at| at.elapsed() >= TAKEOVER_SILENCE);
            let same = bearer.is_some() && held.bearer == bearer;
            return if same && silent && !held.is_over() {
                Ok(held.clone())
            } else {
                Err(Refusal::StreamBusy(name.clone()))
            };
        }
        if maps.secrets.values().filter(|publication| !publication.is_over()).count()
            >= self.inner.max_streams
        {
            return Err(Refusal::LimitReached("limits.max_streams"));
        }
        let publication = Arc::new(Publication {
            name: name.clone(),
            resume: Secret::new(),
            record,
            bearer,
            began: Anchor::now(),
            owner: Arc::downgrade(&self.inner),
            status: watch::Sender::new(Status::Pending),
            over: AtomicBool::new(false),
            state: Mutex::default(),
        });
        maps.secrets.insert(publication.resume.clone(), publication.clone());
        Ok(publication)
    }

    /// The publication of this name behind a secret; for a minute after its end, too.
    pub fn find(&self, name: &StreamName, resume: &Secret) -> Option<Arc<Publication>> {
        self.inner.lock().secrets.get(resume).filter(|held| held.name == *name).cloned()
    }

    /// All live streams, by name.
    pub fn list(&self) -> Vec<StreamInfo> {
        let mut list: Vec<_> =
            self.inner.lock().names.values().map(|publication| publication.info()).collect();
        list.sort_by(|a, b| a.stream.cmp(&b.stream));
        list
    }

    /// Ends one stream.
    pub fn kick(&self, name: &StreamName) -> Result<(), Refusal> {
        let held = self.inner.lock().names.get(name).cloned().ok_or(Refusal::SessionNotFound)?;
        held.end(EndReason::Kicked, Instant::now());
        Ok(())
    }

    /// Takes no more offers.
    pub fn refuse(&self) {
        self.inner.lock().stopping = true;
    }

    /// Ends all that are left: those who wait for a publisher's return.
    pub fn stop(&self) {
        self.refuse();
        let all: Vec<_> = self.inner.lock().secrets.values().cloned().collect();
        for publication in all.iter().filter(|publication| !publication.is_over()) {
            publication.end(EndReason::ServerStopped, Instant::now());
        }
    }
}

impl Publication {
    fn info(&self) -> StreamInfo {
        let state = self.lock();
        StreamInfo {
            stream: self.name.clone(),
            status: self.status.borrow().word(),
            started_at: self.began.wall,
            recording: state.recording.as_ref().map(|recording| recording.id.clone()),
            via: "webrtc",
            tracks: state.stream.iter().flat_map(|stream| stream.tracks()).map(|track| track.codec).collect(),
        }
    }
}

impl Inner {
    /// Gives the name to whoever connects first.
    fn claim(&self, publication: &Arc<Publication>) -> Result<(), Refusal> {
        let mut maps = self.lock();
        if maps.stopping {
            return Err(Refusal::Stopping);
        }
        let holder = maps.names.entry(publication.name.clone()).or_insert_with(|| publication.clone());
        if Arc::ptr_eq(holder, publication) {
            Ok(())
        } else {
            Err(Refusal::StreamBusy(publication.name.clone()))
        }
    }

    /// Frees the name at once and the secret after a while.
    fn release(self: &Arc<Self>, name: &StreamName, resume: &Secret) {
        let mut maps = self.lock();
        if maps.names.get(name).is_some_and(|held| held.resume == *resume) {
            maps.names.remove(name);
        }
        let (inner, resume, stop) = (self.clone(), resume.clone(), self.tasks.stop_token());
        self.tasks.spawn("forget a publication", async move {
            tokio::select! {
                () = tokio::time::sleep(REMEMBERED) => {}
                () = stop.cancelled() => {}
            }
            inner.lock().secrets.remove(&resume);
        });
    }

    fn lock(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
