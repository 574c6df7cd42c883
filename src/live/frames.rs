//! The lossy readers of frames, for viewers that are sent packets rather than clusters.
//!
//! Each has a queue of its own, bounded in bytes. When it is full its pictures go, and it goes on at the
//! newest keyframe and learns how many frames it missed (L1); sound goes only where sound alone fills it.
//! One that joins begins with the pictures since the newest keyframe, which are kept while there are readers.

use crate::base::end_reason::EndReason;
use crate::media::{Demand, Frame, Kind, Track};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::Notify;

/// What a reader of frames sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameItem {
    /// The next frame comes after a hole of so many.
    Skipped(u64),
    /// A frame.
    Frame(Frame),
    /// Nothing comes after this.
    End(EndReason),
}

/// A lossy reader of a stream's frames.
#[derive(Debug)]
pub struct FrameReader {
    queue: Arc<Queue>,
}

impl FrameReader {
    /// The next item, as soon as there is one. Safe to cancel.
    pub async fn next(&self) -> FrameItem {
        loop {
            if let Some(item) = self.queue.state.lock().pop() {
                return item;
            }
            self.queue.wake.notified().await;
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Frame>,
    bytes: usize,
    bound: usize,
    /// Frames left out since the last one given.
    skipped: u64,
    /// Pictures can't be decoded before the next keyframe.
    waits: bool,
    ended: Option<EndReason>,
}

impl State {
    fn pop(&mut self) -> Option<FrameItem> {
        if self.frames.is_empty() {
            return self.ended.map(FrameItem::End);
        }
        if self.skipped > 0 {
            return Some(FrameItem::Skipped(std::mem::take(&mut self.skipped)));
        }
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.footprint();
        Some(FrameItem::Frame(frame))
    }

    fn push(&mut self, frame: &Frame, is_picture: bool, pictures: &[bool]) {
        if self.bytes + frame.footprint() > self.bound {
            self.drop_where(|held| pictures[held.track]);
            self.waits = pictures.contains(&true);
        }
        while self.bytes + frame.footprint() > self.bound && !self.frames.is_empty() {
            let mut first = true;
            self.drop_where(|_| std::mem::take(&mut first));
        }
        if is_picture && self.waits && !frame.keyframe {
            self.skipped += 1;
            return;
        }
        self.waits &= !is_picture;
        self.bytes += frame.footprint();
        self.frames.push_back(frame.clone());
    }

    fn drop_where(&mut self, mut gone: impl FnMut(&Frame) -> bool) {
        let before = self.frames.len();
        self.frames.retain(|frame| !gone(frame));
        self.skipped += (before - self.frames.len()) as u64;
        self.bytes = self.frames.iter().map(Frame::footprint).sum();
    }
}

#[derive(Debug)]
pub(super) struct FrameReaders {
    pictures: Vec<bool>,
    all: Mutex<All>,
}

#[derive(Debug, Default)]
struct All {
    queues: Vec<Arc<Queue>>,
    /// Everything since the newest keyframe, while it is within the bound of the newest reader.
    group: Option<(usize, Vec<Frame>)>,
    bound: usize,
    ended: Option<EndReason>,
}

impl FrameReaders {
    pub fn new(tracks: &[Track]) -> Self {
        let is_video = |track: &Track| track.codec.kind() == Kind::Video;
        Self { pictures: tracks.iter().map(is_video).collect(), all: Mutex::default() }
    }

    /// A new reader that may be `bound` bytes behind.
    pub fn join(&self, bound: usize) -> FrameReader {
        let mut all = self.all.lock();
        all.bound = bound;
        let mut state = State { bound, waits: true, ended: all.ended, ..State::default() };
        for frame in all.group.iter().flat_map(|(_, frames)| frames) {
            state.push(frame, self.pictures[frame.track], &self.pictures);
        }
        let queue = Arc::new(Queue { state: Mutex::new(state), wake: Notify::new() });
        all.queues.push(queue.clone());
        FrameReader { queue }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.lock().queues.iter().filter(|queue| Arc::strong_count(queue) > 1).count()
    }

    /// Hands a frame to all.
    pub fn push(&self, frame: &Frame) -> Demand {
        let mut all = self.all.lock();
        all.queues.retain(|queue| Arc::strong_count(queue) > 1);
        if all.queues.is_empty() {
            all.group = None;
            return Demand::default();
        }
        let Some(&is_picture) = self.pictures.get(frame.track) else { return Demand::default() };
        all.remember(frame, is_picture);
        let mut demand = Demand { keyframe: false, watched: true };
        for queue in &all.queues {
            let mut state = queue.state.lock();
            state.push(frame, is_picture, &self.pictures);
            demand.keyframe |= state.waits && self.pictures.contains(&true);
            drop(state);
            queue.wake.notify_one();
        }
        demand
    }

    /// Nothing comes after this; the first reason counts.
    pub fn end(&self, reason: EndReason) {
        let mut all = self.all.lock();
        let reason = *all.ended.get_or_insert(reason);
        for queue in &all.queues {
            queue.state.lock().ended.get_or_insert(reason);
            queue.wake.notify_one();
        }
    }
}

impl All {
    fn remember(&mut self, frame: &Frame, is_picture: bool) {
        if is_picture && frame.keyframe {
            self.group = Some((0, Vec::new()));
        }
        let Some((bytes, frames)) = &mut self.group else { return };
        *bytes += frame.footprint();
        frames.push(frame.clone());
        if *bytes > self.bound {
            self.group = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Codec;
    use bytes::Bytes;
    use futures_util::FutureExt;
    use std::time::Duration;

    const BOUND: usize = 100_000;

    fn readers() -> FrameReaders {
        FrameReaders::new(&[Track::video(Codec::Vp8), Track::opus(2)])
    }

    fn frame(track: usize, number: u64, keyframe: bool) -> Frame {
        let (time, data) = (Duration::from_millis(number), Bytes::from(vec![0; 5000]));
        Frame { time, keyframe, ..Frame::of(track, data) }
    }

    /// All that is there: a frame's track and time, how many were skipped, or the end.
    fn drain(reader: &FrameReader) -> Vec<String> {
        let say = |item| match item {
            FrameItem::Frame(frame) => format!("{}:{}", frame.track, frame.time.as_millis()),
            FrameItem::Skipped(frames) => format!("skipped {frames}"),
            FrameItem::End(reason) => format!("end {}", reason.as_str()),
        };
        let mut found = Vec::new();
        while let Some(item) = reader.next().now_or_never() {
            let end = matches!(item, FrameItem::End(_));
            found.push(say(item));
            if end {
                break;
            }
        }
        found
    }

    #[test]
    fn a_slow_reader_goes_on_at_the_newest_keyframe_keeps_its_sound_and_slows_no_other() {
        let readers = readers();
        let (slow, quick) = (readers.join(BOUND), readers.join(BOUND));
        let mut seen = Vec::new();
        for number in 0..59 {
            let wanted = readers.push(&frame(0, number, number % 30 == 0)).keyframe;
            assert_eq!(wanted, (17..30).contains(&number), "{number}: the slow one waits for a keyframe");
            if number % 10 == 0 {
                readers.push(&frame(1, number, true));
            }
            seen.extend(drain(&quick));
            if number == 40 {
                let rest: Vec<String> = (31..=40).map(|number| format!("0:{number}")).collect();
                let before = ["skipped 30", "1:0", "1:10", "1:20", "0:30", "1:30"].map(str::to_owned);
                let after = ["1:40".to_owned()];
                let found = drain(&slow);
                assert_eq!(found[..6], before);
                assert_eq!(found[6..], [&rest[..], &after[..]].concat()[..]);
            }
        }
        assert_eq!(seen.len(), 65, "{seen:?}");
        drop(quick);
        readers.end(EndReason::Stopped);
        assert_eq!(drain(&slow).last().map(String::as_str), Some("end stopped"));
        assert_eq!(readers.len(), 1);
    }

    #[test]
    fn one_that_joins_begins_with_the_newest_keyframe_and_no_picture_that_needs_another_comes_first() {
        let readers = readers();
        let first = readers.join(BOUND);
        assert!(readers.push(&frame(0, 1, false)).keyframe, "nothing to begin with");
        for number in 2..6 {
            assert!(!readers.push(&frame(0, number, number == 2)).keyframe);
        }
        assert_eq!(drain(&first), ["skipped 1", "0:2", "0:3", "0:4", "0:5"]);
        let second = readers.join(BOUND);
        assert_eq!(drain(&second), ["0:2", "0:3", "0:4", "0:5"]);
        drop((first, second));
        assert_eq!(readers.push(&frame(0, 6, false)), Demand::default(), "there is no reader");
        let third = readers.join(BOUND);
        assert!(readers.push(&frame(0, 7, false)).keyframe, "what was kept went with the last reader");
        assert!(drain(&third).is_empty());
    }

    #[test]
    fn sound_alone_is_bounded_too() {
        let readers = FrameReaders::new(&[Track::opus(2)]);
        let reader = readers.join(BOUND);
        for number in 0..100 {
            assert!(!readers.push(&frame(0, number, true)).keyframe);
        }
        let found = drain(&reader);
        assert_eq!((found[0].as_str(), found.len()), ("skipped 81", 20), "{found:?}");
        assert_eq!(found.last().map(String::as_str), Some("0:99"));
    }
}
