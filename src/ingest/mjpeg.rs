//! JPEG images, one a request: the way in that every browser and every camera has.
//!
//! ```text
//!  post ─▶ Source ─┬─▶ Publication ─▶ live::Stream ─▶ recorder
//!                  └─▶ live::mjpeg::Pictures ─▶ viewers
//! ```
//!
//! A stream begins with its first image and ends by [`Mjpeg::end`], after `mjpeg.idle_timeout` without
//! an image, or when its publisher goes on another way.

use crate::base::id::{Secret, StreamName};
use crate::base::metrics::metrics;
use crate::base::places::Party;
use crate::base::reason::EndReason;
use crate::base::tasks::Tasks;
use crate::base::units;
use crate::ingest::publication::Publication;
use crate::ingest::publications::Publications;
use crate::ingest::status::Status;
use crate::ingest::{Refusal, SessionId, Way};
use crate::live::mjpeg::{Picture, Pictures, Viewer};
use crate::media::{Codec, Event, Frame, Size, Track};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Section `mjpeg` of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The largest image, in bytes.
    #[serde(deserialize_with = "units::size")]
    pub max_frame: u64,
    /// Whether JPEG streams are recorded.
    pub record: bool,
    /// A stream without an image for this long has ended.
    #[serde(deserialize_with = "units::duration")]
    pub idle_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        // A 4K picture at a browser's highest useful quality is under 4 MiB.
        Self { max_frame: 4 << 20, record: true, idle_timeout: Duration::from_secs(10) }
    }
}

/// The stream that needs no secret: a camera that can do nothing but POST.
pub const DEFAULT: &str = "default";
const TRACKS: [Track; 1] = [Track::video(Codec::Mjpeg)];
/// How often a stream is looked at that may have gone on another way.
const LOOK: Duration = Duration::from_secs(1);

/// All JPEG streams. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Mjpeg {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    publications: Publications,
    tasks: Tasks,
    sources: Mutex<HashMap<StreamName, Arc<Source>>>,
    /// Held while a stream begins, so that of two first images the second finds the first one's.
    beginning: Mutex<()>,
}

/// One stream.
#[derive(Debug)]
struct Source {
    publication: Arc<Publication>,
    session: SessionId,
    pictures: Pictures,
    /// When the newest image came; held while one is handed on, so that all readers see one order.
    newest: Mutex<Instant>,
}

impl Mjpeg {
    /// None yet.
    pub fn new(config: Config, publications: Publications, tasks: Tasks) -> Self {
        let (sources, beginning) = Default::default();
        Self { inner: Arc::new(Inner { config, publications, tasks, sources, beginning }) }
    }

    /// Bytes an image may have.
    pub fn max_frame(&self) -> usize {
        self.inner.config.max_frame as usize
    }

    /// Takes an image. The first of a stream gives the secret that the next ones have to show.
    pub fn post(
        &self,
        name: &StreamName,
        token: Option<&Secret>,
        picture: Picture,
        size: Size,
        client: Option<Party>,
    ) -> Result<Option<Secret>, Refusal> {
        if self.take(name, token, &picture, size)? {
            return Ok(None);
        }
        let _one = lock(&self.inner.beginning);
        if self.take(name, token, &picture, size)? {
            return Ok(None);
        }
        let begun = self.inner.begin(name, token, (picture, size), client).map(Some);
        if let Err(refusal) = &begun {
            metrics().publications.refused.inc([refusal.code()]);
        }
        begun
    }

    /// Whether there was a stream that took it.
    fn take(
        &self,
        name: &StreamName,
        token: Option<&Secret>,
        picture: &Picture,
        size: Size,
    ) -> Result<bool, Refusal> {
        let Some(source) = self.inner.live(name) else { return Ok(false) };
        source.admit(token)?;
        Ok(source.take(picture, size))
    }

    /// Ends a stream at its publisher's word; gives what becomes of it. Of one that is over already
    /// too, for a minute, to whoever has its secret. `None` if there is no such stream.
    pub fn end(
        &self,
        name: &StreamName,
        token: Option<&Secret>,
    ) -> Result<Option<watch::Receiver<Status>>, Refusal> {
        let publication = match self.inner.live(name) {
            Some(source) => {
                source.admit(token)?;
                source.publication.clone()
            }
            None => match token.and_then(|token| self.inner.publications.find(name, token)) {
                Some(publication) => publication,
                None => return Ok(None),
            },
        };
        publication.end(EndReason::Stopped, Instant::now());
        self.inner.forget(&publication);
        Ok(Some(publication.status()))
    }

    /// Somebody who looks on; `None` if no JPEG stream has this name.
    pub fn view(&self, name: &StreamName) -> Option<Viewer> {
        Some(self.inner.live(name)?.pictures.viewer())
    }

    /// How many look on.
    pub fn viewers(&self, name: &StreamName) -> usize {
        self.inner.live(name).map_or(0, |source| source.pictures.viewers())
    }

    /// The newest image.
    pub fn newest(&self, name: &StreamName) -> Option<Picture> {
        Some(self.inner.live(name)?.pictures.newest())
    }

    /// Whether this is the secret of the stream's publisher, by whatever way it came last.
    pub fn is_held_by(&self, name: &StreamName, token: &Secret) -> bool {
        self.inner.publications.find(name, token).is_some()
    }

    /// Whether somebody publishes this stream another way.
    pub fn is_elsewhere(&self, name: &StreamName) -> bool {
        self.inner.live(name).is_none() && self.inner.publications.stream(name).is_some()
    }
}

impl Inner {
    fn live(&self, name: &StreamName) -> Option<Arc<Source>> {
        lock(&self.sources).get(name).filter(|source| source.is_live()).cloned()
    }

    fn begin(
        self: &Arc<Self>,
        name: &StreamName,
        token: Option<&Secret>,
        (picture, size): (Picture, Size),
        client: Option<Party>,
    ) -> Result<Secret, Refusal> {
        let publication = match self.publications.reserve(name, self.config.record, token, None, client) {
            // The name lives, so the secret is somebody else's rather than old.
            Err(Refusal::ResumeExpired) if self.publications.stream(name).is_some() => {
                return Err(Refusal::StreamBusy(name.clone()));
            }
            reserved => reserved?,
        };
        let (session, now) = (SessionId(Secret::new()), Instant::now());
        publication.connected(&session, Way::Mjpeg, &TRACKS, now)?;
        let secret = publication.resume().clone();
        let pictures = Pictures::new(picture.clone());
        let source = Arc::new(Source { publication, session, pictures, newest: Mutex::new(now) });
        source.take(&picture, size);
        lock(&self.sources).insert(name.clone(), source.clone());
        let inner = self.clone();
        self.tasks.spawn("jpeg stream", async move {
            source.lives(inner.config.idle_timeout, &inner.tasks).await;
            inner.forget(&source.publication);
        });
        Ok(secret)
    }

    /// Lets go of a stream that is over, which ends its viewers.
    fn forget(&self, publication: &Arc<Publication>) {
        let mut sources = lock(&self.sources);
        if sources.get(publication.name()).is_some_and(|source| Arc::ptr_eq(&source.publication, publication))
        {
            sources.remove(publication.name());
        }
    }
}

impl Source {
    /// Whether it is neither over nor gone on another way.
    fn is_live(&self) -> bool {
        !self.publication.is_over() && self.publication.was(&self.session)
    }

    /// Whether an image with this secret, or with none, is the publisher's.
    fn admit(&self, token: Option<&Secret>) -> Result<(), Refusal> {
        let name = self.publication.name();
        let may = token.map_or(name.as_str() == DEFAULT, |token| token == self.publication.resume());
        if may { Ok(()) } else { Err(Refusal::StreamBusy(name.clone())) }
    }

    /// Hands an image to every reader; false if the stream has ended by now.
    fn take(&self, picture: &Picture, size: Size) -> bool {
        let mut newest = lock(&self.newest);
        if !self.is_live() {
            return false;
        }
        let now = Instant::now();
        *newest = now;
        let time = now.saturating_duration_since(self.publication.origin());
        let frame = Frame { time, keyframe: true, size: Some(size), ..Frame::of(0, picture.image()) };
        self.publication.media(&self.session, Event::Frame(frame), now);
        self.pictures.show(picture.clone());
        true
    }

    /// Resolves when the stream has ended, which it does at the latest `idle` after its last image.
    async fn lives(&self, idle: Duration, tasks: &Tasks) {
        let (mut status, stop) = (self.publication.status(), tasks.stop_token());
        while self.is_live() {
            let last = *lock(&self.newest);
            if last.elapsed() >= idle {
                let reason = EndReason::PublisherLost;
                return self.publication.end_session(&self.session, reason, Instant::now());
            }
            let look = (last + idle).min(Instant::now() + LOOK);
            tokio::select! {
                _ = status.wait_for(Status::is_final) => return,
                () = tokio::time::sleep_until(look.into()) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
