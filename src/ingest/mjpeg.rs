//! JPEG images, one a request: the way in that every browser and every camera has.
//!
//! ```text
//!  post ─▶ Source ─┬─▶ Publication ─▶ live::Stream ─▶ recorder
//!                  └─▶ live::mjpeg::Pictures ─▶ viewers
//! ```
//!
//! A stream begins with its first image and ends by [`Mjpeg::end`], after `mjpeg.idle_timeout` without
//! an image, or when its publisher goes on another way.

use crate::base::end_reason::EndReason;
use crate::base::id::{Secret, SessionId, StreamName};
use crate::base::quota::ClientKey;
use crate::base::tasks::Tasks;
use crate::base::units;
use crate::live::mjpeg::{Picture, Pictures, Viewer};
use crate::media::{Codec, Event, Frame, Size, Track};
use crate::publish::publication::Publication;
use crate::publish::registry::Publications;
use crate::publish::status::Status;
use crate::publish::{PublishError, Transport};
use parking_lot::Mutex;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;
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
/// The least time from one picture of a file to the next.
const TICK: Duration = Duration::from_millis(1);
/// How often a stream is looked at that may have gone on another way.
const POLL: Duration = Duration::from_secs(1);

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
    /// Told when one has begun.
    begun: watch::Sender<()>,
}

#[derive(Debug)]
struct Source {
    publication: Arc<Publication>,
    session: SessionId,
    pictures: Pictures,
    /// Of the newest image; held while one is handed on, so that all readers see one order.
    newest: Mutex<Newest>,
}

#[derive(Debug)]
struct Newest {
    arrived: Instant,
    /// Its time in the stream; `None` before the first.
    time: Option<Duration>,
}

/// An image and its picture's size.
pub type Image = (Picture, Size);

impl Mjpeg {
    /// There are no streams yet.
    pub fn new(config: Config, publications: Publications, tasks: Tasks) -> Self {
        let (sources, beginning) = Default::default();
        let begun = watch::Sender::new(());
        Self { inner: Arc::new(Inner { config, publications, tasks, sources, beginning, begun }) }
    }

    /// Bytes an image may have.
    pub fn max_frame(&self) -> usize {
        self.inner.config.max_frame as usize
    }

    /// Takes images, of which there is one at least: the oldest first. The first of a stream gives the secret that
    /// the next ones have to show.
    pub fn post(
        &self,
        name: &StreamName,
        token: Option<&Secret>,
        images: &[Image],
        client: Option<ClientKey>,
    ) -> Result<Option<Secret>, PublishError> {
        if self.take(name, token, images)? {
            return Ok(None);
        }
        let _one = self.inner.beginning.lock();
        if self.take(name, token, images)? {
            return Ok(None);
        }
        self.inner.begin(name, token, images, client).map(Some).inspect_err(PublishError::count)
    }

    /// Whether there was a stream that took them.
    fn take(
        &self,
        name: &StreamName,
        token: Option<&Secret>,
        images: &[Image],
    ) -> Result<bool, PublishError> {
        let Some(source) = self.inner.live(name) else { return Ok(false) };
        source.admit(token)?;
        Ok(source.take(images))
    }

    /// Ends a stream as its publisher asks; gives what becomes of it. Of one that is over already
    /// too, for a minute, to a caller with its secret. `None` if there is no such stream.
    pub fn end(
        &self,
        name: &StreamName,
        token: Option<&Secret>,
    ) -> Result<Option<watch::Receiver<Status>>, PublishError> {
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

    /// A viewer; `None` if no JPEG stream has this name.
    pub fn view(&self, name: &StreamName) -> Option<Viewer> {
        Some(self.inner.live(name)?.pictures.viewer())
    }

    /// The same once a JPEG stream of this name begins, if none is there yet; `None` when it is published
    /// another way.
    pub async fn wait(&self, name: &StreamName) -> Option<Viewer> {
        let mut begun = self.inner.begun.subscribe();
        loop {
            if let Some(viewer) = self.view(name) {
                return Some(viewer);
            }
            if self.is_elsewhere(name) {
                return None;
            }
            // A stream that begins another way is not announced here.
            let _ = tokio::time::timeout(POLL, begun.changed()).await;
        }
    }

    /// How many viewers there are.
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

    /// Whether this stream is published another way.
    pub fn is_elsewhere(&self, name: &StreamName) -> bool {
        self.inner.live(name).is_none() && self.inner.publications.stream(name).is_some()
    }
}

impl Inner {
    fn live(&self, name: &StreamName) -> Option<Arc<Source>> {
        self.sources.lock().get(name).filter(|source| source.is_live()).cloned()
    }

    fn begin(
        self: &Arc<Self>,
        name: &StreamName,
        token: Option<&Secret>,
        images: &[Image],
        client: Option<ClientKey>,
    ) -> Result<Secret, PublishError> {
        let publication = match self.publications.reserve(name, self.config.record, token, None, client) {
            // The name lives, so the secret is another publisher's rather than old.
            Err(PublishError::ResumeExpired) if self.publications.stream(name).is_some() => {
                return Err(PublishError::StreamBusy(name.clone()));
            }
            reserved => reserved?,
        };
        let (session, now) = (SessionId::new(), Instant::now());
        publication.connected(&session, Transport::Mjpeg, &TRACKS, now)?;
        let secret = publication.resume().clone();
        let pictures = Pictures::new(images[0].0.clone());
        let newest = Mutex::new(Newest { arrived: now, time: None });
        let source = Arc::new(Source { publication, session, pictures, newest });
        source.take(images);
        self.sources.lock().insert(name.clone(), source.clone());
        self.begun.send_replace(());
        let inner = self.clone();
        self.tasks.spawn("jpeg stream", async move {
            source.run(inner.config.idle_timeout, &inner.tasks).await;
            inner.forget(&source.publication);
        });
        Ok(secret)
    }

    /// Lets go of a stream that is over, which ends its viewers.
    fn forget(&self, publication: &Arc<Publication>) {
        let mut sources = self.sources.lock();
        if sources.get(publication.name()).is_some_and(|source| Arc::ptr_eq(&source.publication, publication))
        {
            sources.remove(publication.name());
        }
    }
}

impl Source {
    /// Whether it is neither over nor gone on another way.
    fn is_live(&self) -> bool {
        !self.publication.is_over() && self.publication.is_current(&self.session)
    }

    /// Whether an image with this secret, or with none, is the publisher's.
    fn admit(&self, token: Option<&Secret>) -> Result<(), PublishError> {
        let name = self.publication.name();
        let may = token.map_or(name.as_str() == DEFAULT, |token| token == self.publication.resume());
        if may { Ok(()) } else { Err(PublishError::StreamBusy(name.clone())) }
    }

    /// Hands images to every reader; false if the stream has ended by now.
    fn take(&self, images: &[Image]) -> bool {
        let mut newest = self.newest.lock();
        if !self.is_live() {
            return false;
        }
        let now = Instant::now();
        newest.arrived = now;
        let times =
            times(newest.time, now.saturating_duration_since(self.publication.origin()), images.len());
        for ((picture, size), time) in images.iter().zip(times) {
            let frame = Frame { time, keyframe: true, size: Some(*size), ..Frame::of(0, picture.image()) };
            self.publication.media(&self.session, Event::Frame(frame), now);
            self.pictures.show(picture.clone());
            newest.time = Some(time);
        }
        true
    }

    /// Resolves when the stream has ended, which it does at the latest `idle` after its last image.
    async fn run(&self, idle: Duration, tasks: &Tasks) {
        let (mut status, stop) = (self.publication.status(), tasks.stop_token());
        while self.is_live() {
            let last = self.newest.lock().arrived;
            if last.elapsed() >= idle {
                let reason = EndReason::PublisherLost;
                return self.publication.end_session(&self.session, reason, Instant::now());
            }
            let look = (last + idle).min(Instant::now() + POLL);
            tokio::select! {
                _ = status.wait_for(Status::is_final) => return,
                () = tokio::time::sleep_until(look.into()) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

/// The times of so many images that came together `now`: they were taken one after the other since the `last` one,
/// as far as one can tell, the newest just now.
fn times(last: Option<Duration>, now: Duration, count: usize) -> Vec<Duration> {
    let (begin, mut least) = (last.unwrap_or(now), last.map_or(Duration::ZERO, |last| last + TICK));
    let step = now.saturating_sub(begin).div_f64(count.max(1) as f64);
    let time = |number: usize| {
        let time = begin.saturating_add(step.mul_f64(number as f64)).max(least);
        least = time + TICK;
        time
    };
    (1..=count).map(time).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_came_together_share_the_time_since_the_last_one() {
        let of = |last: Option<u64>, now, count| -> Vec<u128> {
            let times = times(last.map(Duration::from_millis), Duration::from_millis(now), count);
            times.into_iter().map(|time| time.as_millis()).collect()
        };
        assert_eq!(of(None, 0, 1), [0]);
        assert_eq!(of(None, 7, 3), [7, 8, 9]);
        assert_eq!(of(Some(100), 300, 1), [300]);
        assert_eq!(of(Some(100), 300, 2), [200, 300]);
        assert_eq!(of(Some(100), 100, 2), [101, 102], "no two at the same time");
        assert_eq!(of(Some(105), 101, 1), [106], "never back");
    }
}
