//! The lossy readers: all viewers of a stream read one log of clusters, each from a position of its own.
//!
//! The log is what a joining viewer begins with, and the queue of those that are behind; it is bounded
//! whatever their number. A viewer that falls out of it goes on at the newest keyframe and learns how many frames
//! it missed. Without viewers there is no log, and a frame costs a glance at a flag.

use crate::base::end_reason::EndReason;
use crate::base::metrics::metrics;
use crate::container::webm::TIMESTAMP_AT;
use crate::live::mux::{Cluster, Mux, Segment};
use crate::media::{Demand, Frame, Track};
use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A viewer begins with a keyframe that is at most this old; else a new one is worth waiting for.
const FRESH: Duration = Duration::from_secs(1);
/// The log is kept for this long after the last viewer: one that comes back finds a picture.
const REMEMBERED: Duration = Duration::from_secs(30);
/// A viewer that is this much behind goes on at the newest keyframe, even if the log reaches back further: live is now.
const BEHIND: Duration = Duration::from_secs(5);
/// When nothing came for this long, what waits for its successor is given.
const QUIET: Duration = Duration::from_millis(250);

/// What a viewer sees.
#[derive(Clone, Debug)]
pub enum View {
    /// The tracks are these from now on, and times begin at 0.
    Init(Arc<Segment>),
    /// The next clusters come after a hole of so many frames.
    Skipped(u64),
    /// A cluster, in two parts one after the other: what is this viewer's own, and what all share.
    Cluster(Bytes, Bytes),
    /// Nothing comes after this.
    End(EndReason),
}

/// A lossy reader of a stream.
#[derive(Debug)]
pub struct Viewer {
    viewers: Arc<Viewers>,
    changed: watch::Receiver<()>,
    /// The next cluster in the log to be read.
    next: Next,
    segment: Option<Arc<Segment>>,
    /// What is taken from times, in ms.
    base: u64,
    /// The end of what was seen last, and how many frames there were up to it.
    seen: Option<(u64, u64)>,
    /// Read and not yet given.
    ready: VecDeque<View>,
}

#[derive(Clone, Copy, Debug)]
enum Next {
    /// This one.
    At(u64),
    /// The first, from this one on, that a viewer can begin with.
    Entry(u64),
}

#[derive(Debug)]
pub(super) struct Viewers {
    tracks: Arc<[Track]>,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    log: Option<LiveLog>,
    viewers: usize,
    left: Option<Instant>,
    ended: Option<EndReason>,
    /// The newest picture, where each stands for itself and the next may be long in coming: a viewer that joins
    /// sees it at once.
    still: Option<Frame>,
}

/// What there is while the stream is watched.
#[derive(Debug)]
struct LiveLog {
    mux: Mux,
    clusters: VecDeque<Cluster>,
    /// The number of the log's first cluster.
    first: u64,
    bytes: usize,
    /// Bound of `bytes`; what is oldest goes when it is full. The newest cluster stays, however large a
    /// picture is: viewers would see none at all.
    bound: usize,
    last_push: Instant,
    /// A viewer waits for a picture to begin with.
    awaited: bool,
}

impl Viewers {
    pub fn new(tracks: Arc<[Track]>) -> Self {
        Self { tracks, state: Mutex::default(), changed: watch::Sender::new(()) }
    }

    /// Takes a frame.
    pub fn push(&self, frame: &Frame, now: Instant) -> Demand {
        let mut state = self.lock();
        let forgotten = state.viewers == 0
            && state.left.is_some_and(|left| now.saturating_duration_since(left) > REMEMBERED);
        if forgotten {
            state.log = None;
        }
        if self.tracks.get(frame.track).is_some_and(|track| track.codec.is_intra_only()) {
            state.still = Some(frame.clone());
        }
        let watched = state.viewers > 0;
        let Some(log) = &mut state.log else { return Demand { keyframe: false, watched } };
        log.last_push = now;
        log.mux.push(frame, now);
        let news = log.settle(now);
        let awaited = log.awaited && !log.mux.keyframe_pending();
        let keyframe = watched && (awaited || log.mux.wants_keyframe);
        drop(state);
        if news {
            self.changed.send_replace(());
        }
        Demand { keyframe, watched }
    }

    /// Nothing comes after this; the first reason counts.
    pub fn end(&self, reason: EndReason) {
        let mut state = self.lock();
        if state.ended.is_none() {
            state.ended = Some(reason);
            state.flush(Instant::now());
            drop(state);
            self.changed.send_replace(());
        }
    }

    /// A new viewer, of a log of so many bytes.
    pub fn join(self: &Arc<Self>, bound: usize, now: Instant) -> Viewer {
        let changed = self.changed.subscribe();
        let mut state = self.lock();
        let State { log, viewers, still, .. } = &mut *state;
        *viewers += 1;
        let log = log.get_or_insert_with(|| LiveLog::new(&self.tracks, bound, still.as_ref(), now));
        let next = log.entry_for_newcomer(now);
        log.awaited |= matches!(next, Next::Entry(_));
        drop(state);
        Viewer {
            viewers: self.clone(),
            changed,
            next,
            segment: None,
            base: 0,
            seen: None,
            ready: VecDeque::new(),
        }
    }

    /// How many there are.
    pub fn viewers(&self) -> usize {
        self.lock().viewers
    }

    /// Gives what waits for a successor that does not come.
    fn quiet(&self, now: Instant) {
        let mut state = self.lock();
        let Some(log) = &mut state.log else { return };
        let silence = now.saturating_duration_since(log.last_push);
        if silence < QUIET {
            return;
        }
        log.mux.pause(silence);
        if log.settle(now) {
            drop(state);
            self.changed.send_replace(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn flush(&mut self, now: Instant) -> bool {
        let Some(log) = &mut self.log else { return false };
        log.mux.flush();
        log.settle(now)
    }
}

impl LiveLog {
    fn new(tracks: &[Track], bound: usize, still: Option<&Frame>, now: Instant) -> Self {
        let (mut mux, clusters) = (Mux::new(tracks), VecDeque::new());
        if let Some(frame) = still {
            mux.push(frame, now);
        }
        Self { mux, clusters, first: 0, bytes: 0, bound, last_push: now, awaited: true }
    }

    /// Moves what the muxer has made into the log; whether there was anything.
    fn settle(&mut self, now: Instant) -> bool {
        let made = self.mux.take();
        let news = !made.is_empty();
        for cluster in made {
            self.awaited &= !cluster.entry;
            self.bytes += cluster.bytes.len();
            self.clusters.push_back(cluster);
        }
        if news {
            self.trim(now);
        }
        news
    }

    fn trim(&mut self, now: Instant) {
        let newest = self.newest_entry(self.first).unwrap_or(self.first);
        while let Some(oldest) = self.clusters.front() {
            let stale = self.first < newest && now.saturating_duration_since(oldest.at) > BEHIND;
            if (self.bytes <= self.bound && !stale) || self.clusters.len() == 1 {
                return;
            }
            self.bytes -= oldest.bytes.len();
            self.clusters.pop_front();
            self.first += 1;
        }
    }

    /// The newest cluster, from this one on, that a viewer can begin with.
    fn newest_entry(&self, from: u64) -> Option<u64> {
        let skip = usize::try_from(from.saturating_sub(self.first)).ok()?;
        let index = self.clusters.iter().skip(skip).rposition(|cluster| cluster.entry)?;
        Some(self.first + (skip + index) as u64)
    }

    fn entry_for_newcomer(&self, now: Instant) -> Next {
        let end = self.first + self.clusters.len() as u64;
        let fresh = self.newest_entry(self.first).filter(|entry| {
            let current = self.clusters.back().map(|newest| &newest.segment);
            let cluster = self.get(*entry);
            cluster.is_some_and(|cluster| {
                let recent = now.saturating_duration_since(cluster.at) <= FRESH;
                (recent || self.mux.enters_anywhere())
                    && current.is_some_and(|current| Arc::ptr_eq(current, &cluster.segment))
            })
        });
        match fresh {
            Some(entry) if !self.mux.keyframe_pending() => Next::At(entry),
            _ => Next::Entry(end),
        }
    }

    fn get(&self, number: u64) -> Option<&Cluster> {
        self.clusters.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// The cluster to go on with, and its number.
    fn find(&self, next: Next) -> Option<(u64, &Cluster)> {
        let number = match next {
            Next::At(number) if number >= self.first => number,
            Next::At(number) | Next::Entry(number) => self.newest_entry(number)?,
        };
        Some((number, self.get(number)?))
    }
}

impl Viewer {
    /// Whether it reads the stream of these viewers.
    pub(super) fn is_of(&self, viewers: &Arc<Viewers>) -> bool {
        Arc::ptr_eq(&self.viewers, viewers)
    }

    /// What comes next; waits for it. A viewer that is not asked loses frames, and costs nothing.
    pub async fn next(&mut self) -> View {
        loop {
            self.changed.mark_unchanged();
            if let Some(view) = self.ready.pop_front() {
                return view;
            }
            if let Some(reason) = self.read() {
                return View::End(reason);
            }
            if self.ready.is_empty() && tokio::time::timeout(QUIET, self.changed.changed()).await.is_err() {
                self.viewers.quiet(Instant::now());
            }
        }
    }

    /// Reads the next cluster, if there is one; else why there will be none.
    fn read(&mut self) -> Option<EndReason> {
        let viewers = self.viewers.clone();
        let state = viewers.lock();
        let Some((number, cluster)) = state.log.as_ref().and_then(|log| log.find(self.next)) else {
            return state.ended;
        };
        self.next = Next::At(number + 1);
        let (frames, end) = (cluster.frames_before + cluster.frames, cluster.end);
        let missed = self.seen.map_or(0, |(_, seen)| cluster.frames_before.saturating_sub(seen));
        if missed > 0 {
            metrics().viewers.skips.inc();
            metrics().viewers.skipped_frames.inc_by(missed);
            self.ready.push_back(View::Skipped(missed));
        }
        if self.segment.as_ref().is_none_or(|segment| !Arc::ptr_eq(segment, &cluster.segment)) {
            self.segment = Some(cluster.segment.clone());
            self.ready.push_back(View::Init(cluster.segment.clone()));
            self.base = cluster.start;
        } else if let (true, Some((seen, _))) = (missed > 0, self.seen) {
            // What follows a hole follows at once: players wait at holes, and live is now.
            self.base += cluster.start.saturating_sub(seen);
        }
        self.seen = Some((end.max(self.seen.map_or(0, |(end, _)| end)), frames));
        let time = cluster.start.saturating_sub(self.base);
        let mut own = BytesMut::from(&cluster.bytes[..TIMESTAMP_AT]);
        own.extend_from_slice(&time.to_be_bytes());
        self.ready.push_back(View::Cluster(own.freeze(), cluster.bytes.slice(TIMESTAMP_AT + 8..)));
        None
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let mut state = self.viewers.lock();
        state.viewers -= 1;
        if state.viewers == 0 {
            state.left = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Codec;

    const STEP: u64 = 40;

    struct Play {
        viewers: Arc<Viewers>,
        start: Instant,
        bound: usize,
    }

    impl Play {
        fn new(bound: usize) -> Self {
            let viewers = Arc::new(Viewers::new([Track::video(Codec::Vp8)].into()));
            Self { viewers, start: Instant::now(), bound }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        fn join(&self, ms: u64) -> Viewer {
            self.viewers.join(self.bound, self.at(ms))
        }

        /// Pictures of 100 bytes, 25 a second; whether a keyframe was asked for.
        fn pictures(&self, from: u64, to: u64, keyframes: &[u64]) -> bool {
            let mut wanted = false;
            for ms in (from..to).step_by(STEP as usize) {
                let (time, keyframe) = (Duration::from_millis(ms), keyframes.contains(&ms));
                let data = Bytes::from(vec![0x10; 100]);
                let frame = Frame { time, keyframe, ..Frame::of(0, data) };
                wanted |= self.viewers.push(&frame, self.at(ms)).keyframe;
            }
            wanted
        }
    }

    /// All there is for a viewer: words, and the times of clusters.
    fn seen(viewer: &mut Viewer) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let over = viewer.read();
            let idle = viewer.ready.is_empty();
            for view in viewer.ready.drain(..) {
                all.push(match view {
                    View::Init(_) => "init".to_owned(),
                    View::Skipped(frames) => format!("skipped {frames}"),
                    View::Cluster(own, _) => {
                        u64::from_be_bytes(own[TIMESTAMP_AT..].try_into().unwrap()).to_string()
                    }
                    View::End(reason) => reason.as_str().to_owned(),
                });
            }
            if idle {
                all.extend(over.map(|reason| reason.as_str().to_owned()));
                return all;
            }
        }
    }

    #[test]
    fn a_viewer_begins_with_a_fresh_keyframe_or_the_next_one() {
        let play = Play::new(1 << 20);
        assert!(!play.pictures(0, 200, &[0]), "asked for without a viewer");
        let mut first = play.join(200);
        assert!(play.pictures(200, 400, &[]), "not asked for");
        assert!(!play.pictures(440, 1000, &[440]), "asked for once more");
        let times = ["init", "0", "120", "240", "360"];
        assert_eq!(seen(&mut first), times);
        let mut second = play.join(1400);
        assert_eq!(seen(&mut second), times, "it is not a second old");
        let mut third = play.join(1500);
        assert!(seen(&mut third).is_empty(), "what is too old");
        assert!(play.pictures(1000, 1200, &[]));
        assert!(!play.pictures(1200, 1400, &[1200]));
        assert_eq!(seen(&mut third), ["init", "0"]);
        play.viewers.end(EndReason::Stopped);
        assert_eq!(seen(&mut third), ["120", "stopped"], "what is left, and the end");
    }

    #[test]
    fn a_viewer_that_does_not_read_goes_on_at_the_newest_keyframe_and_learns_what_it_missed() {
        let play = Play::new(4096);
        let (mut slow, mut quick) = (play.join(0), play.join(0));
        play.pictures(0, 240, &[0]);
        assert_eq!(seen(&mut slow), ["init", "0"]);
        for second in 1..20 {
            play.pictures(second * 1000 - 760, second * 1000 + 240, &[second * 1000]);
            assert!(
                !seen(&mut quick).iter().any(|word| word.starts_with("skipped")),
                "a quick one lost some"
            );
        }
        // Up to 100 ms, 3 pictures, were seen; from the keyframe at 19 s on it goes on.
        let words = seen(&mut slow);
        println!("{words:?}");
        assert_eq!(words[0], format!("skipped {}", 19_000 / STEP - 3));
        assert_eq!(words[1], "100", "it follows at once");
        let kept = play.viewers.lock().log.as_ref().map(|log| log.bytes);
        assert!(kept <= Some(4096), "{kept:?} bytes are kept");
    }

    #[test]
    fn a_picture_that_stands_for_itself_is_seen_at_once_however_large_and_old() {
        let viewers = Arc::new(Viewers::new([Track::video(Codec::Mjpeg)].into()));
        let (start, time) = (Instant::now(), Duration::ZERO);
        let data = Bytes::from(vec![0xff; 5000]);
        viewers.push(&Frame { time, keyframe: true, ..Frame::of(0, data) }, start);
        for seconds in [9, 20] {
            let now = start + Duration::from_secs(seconds);
            let mut viewer = viewers.join(4096, now);
            viewers.quiet(now + QUIET);
            assert_eq!(seen(&mut viewer), ["init", "0"], "after {seconds} s");
        }
    }

    #[test]
    fn a_stream_without_viewers_is_forgotten() {
        let play = Play::new(1 << 20);
        let viewer = play.join(0);
        play.pictures(0, 400, &[0]);
        drop(viewer);
        let there = || play.viewers.lock().log.is_some();
        play.pictures(400, 440, &[]);
        assert!(there(), "a viewer that comes back soon finds a picture");
        let data = Bytes::from_static(&[0x10]);
        let frame = Frame { time: Duration::from_secs(40), keyframe: true, ..Frame::of(0, data) };
        assert_eq!(play.viewers.push(&frame, play.at(40_000)), Demand::default());
        assert!(!there());
    }
}
