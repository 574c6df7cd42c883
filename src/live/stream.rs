//! A stream: a publisher's events, handed to all its readers.

use crate::base::end_reason::EndReason;
use crate::base::id::StreamName;
use crate::live::frames::{FrameReader, FrameReaders};
use crate::live::tap::{Item, Queue, Tap};
use crate::live::viewer::{Viewer, Viewers};
use crate::media::{Demand, Event, Kind, Track};
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::time::Instant;

/// One name's media, from its first frame to its end. Cheap to clone; all clones are the same
/// stream.
#[derive(Clone, Debug)]
pub struct Stream {
    name: StreamName,
    tracks: Arc<[Track]>,
    taps: Arc<Mutex<Vec<Arc<Queue>>>>,
    lossy: Arc<LossyReaders>,
}

/// The lossy readers; when the last clone of a stream goes without a word, they learn that nothing comes.
#[derive(Debug)]
struct LossyReaders {
    viewers: Arc<Viewers>,
    frames: FrameReaders,
}

impl LossyReaders {
    fn end(&self, reason: EndReason) {
        self.viewers.end(reason);
        self.frames.end(reason);
    }
}

impl Drop for LossyReaders {
    fn drop(&mut self) {
        self.end(EndReason::PublisherLost);
    }
}

impl Stream {
    /// A stream with all the tracks its publisher has negotiated.
    pub fn new(name: StreamName, tracks: Vec<Track>) -> Self {
        let tracks: Arc<[Track]> = tracks.into();
        let (viewers, frames) = (Arc::new(Viewers::new(tracks.clone())), FrameReaders::new(&tracks));
        let lossy = Arc::new(LossyReaders { viewers, frames });
        Self { name, tracks, taps: Arc::default(), lossy }
    }

    /// Its name.
    pub fn name(&self) -> &StreamName {
        &self.name
    }

    /// Its tracks; a frame's `track` is an index into them.
    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// Hands one event to every reader, the last lossless one the event itself. Never waits. A publisher that can
    /// make a keyframe should be asked for one that is wanted.
    pub fn push(&self, event: Event, now: Instant) -> Demand {
        let mut demand = Demand::default();
        if let Event::Frame(frame) = &event {
            demand |= self.lossy.viewers.push(frame, now);
            demand |= self.lossy.frames.push(frame);
        }
        let is_keyframe = self.is_keyframe(&event);
        let mut taps = self.lock();
        // A reader that went away (a full disk ends a recorder) must not leave a queue that fills.
        taps.retain(|tap| Arc::strong_count(tap) > 1);
        if let Some((last, others)) = taps.split_last() {
            for tap in others {
                tap.push(Item::Media(event.clone()), now);
            }
            last.push(Item::Media(event), now);
        }
        for tap in taps.iter() {
            demand.keyframe |= tap.wants_keyframe(is_keyframe);
        }
        demand
    }

    fn is_keyframe(&self, event: &Event) -> bool {
        let Event::Frame(frame) = event else { return false };
        let pictures = |track: &Track| track.codec.kind() == Kind::Video;
        frame.keyframe && self.tracks.get(frame.track).is_some_and(pictures)
    }

    /// Ends the stream for every reader.
    pub fn end(&self, reason: EndReason, now: Instant) {
        for tap in self.lock().drain(..) {
            tap.push(Item::End(reason), now);
        }
        self.lossy.end(reason);
    }

    /// Resolves when the lossless readers keep up. For publishers that can be held back, so that nothing
    /// has to be refused; one that can't (RTP) doesn't ask.
    pub async fn ready(&self) {
        let taps: Vec<_> = self.lock().clone();
        for tap in taps {
            tap.ready().await;
        }
    }

    /// Bytes that the slowest lossless reader has before it.
    pub fn backlog(&self) -> usize {
        self.lock().iter().map(|tap| tap.bytes()).max().unwrap_or(0)
    }

    /// A lossless reader of what is pushed from now on.
    pub fn tap(&self) -> Tap {
        let queue = Arc::new(Queue::default());
        self.lock().push(queue.clone());
        Tap::new(queue)
    }

    /// A lossy reader of clusters. All of them share `cache` bytes of them (`live.cache`).
    pub fn view(&self, cache: usize) -> Viewer {
        self.lossy.viewers.join(cache, Instant::now())
    }

    /// A lossy reader of frames that may be `bound` bytes behind.
    pub fn frames(&self, bound: usize) -> FrameReader {
        self.lossy.frames.join(bound)
    }

    /// Whether this viewer reads this stream.
    pub fn has_viewer(&self, viewer: &Viewer) -> bool {
        viewer.is_of(&self.lossy.viewers)
    }

    /// How many watch.
    pub fn viewers(&self) -> usize {
        self.lossy.viewers.viewers() + self.lossy.frames.len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Queue>>> {
        self.taps.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_went_away_leaves_no_queue_and_a_stream_that_went_away_is_noticed() {
        let stream = Stream::new("s".parse().unwrap(), Vec::new());
        let (gone, stays) = (stream.tap(), stream.tap());
        drop(gone);
        stream.push(Event::Lost { track: 0, packets: 1 }, Instant::now());
        assert_eq!(stream.lock().len(), 1, "queues left");
        assert!(!stays.orphaned());
        drop(stream);
        assert!(stays.orphaned());
        assert_eq!(stays.drain().len(), 1, "what came before is still there");
    }
}
