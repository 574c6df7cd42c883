//! The lossless reader's queue.

use crate::base::end_reason::EndReason;
use crate::media::{Event, Frame, Gap, GapReason};
use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Bytes of memory that may wait for the disk, by [`Frame::footprint`]: a minute of 2 Mbit/s. When it is
/// full, new frames are refused track by track until half of it is free and a keyframe comes; the hole is
/// told as a [`Gap`] of reason [`GapReason::Overrun`], so nothing is lost in silence. Holes told then join
/// that one, and counts of lost packets are added up.
const BOUND: usize = 16 << 20;

/// No hole is shorter, even where the one frame that a track ever had was refused.
const MOMENT: Duration = Duration::from_millis(1);

/// What a tap yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An event of the stream.
    Media(Event),
    /// Nothing comes after this.
    End(EndReason),
}

/// A lossless reader of a stream. It is woken seldom and drained in batches: a wake-up a frame
/// would cost more than writing the frame.
#[derive(Debug)]
pub struct Tap {
    queue: Arc<Queue>,
}

impl Tap {
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        Self { queue }
    }

    /// Takes all that waits, each with the instant it was pushed.
    pub fn drain(&self) -> VecDeque<(Instant, Item)> {
        let mut state = self.queue.lock();
        state.tell_lost(Instant::now());
        state.bytes = 0;
        std::mem::take(&mut state.items)
    }

    /// The holes that reach up to now, since frames were refused and none was taken after them. For a reader
    /// that ends by itself; one that is ended finds them before the end.
    pub fn refused(&self) -> Vec<Gap> {
        self.queue.lock().refused()
    }

    /// Says how many bytes the reader has taken and still holds in memory. Call it after each drain:
    /// it lets publishers go on that wait in [`crate::live::Stream::ready`].
    pub fn holds(&self, bytes: usize) {
        self.queue.lock().held = bytes;
        self.queue.drained.notify_waiters();
    }

    /// Asks for a keyframe to go on with, until one comes.
    pub fn want_keyframe(&self) {
        self.queue.lock().wants_keyframe = true;
    }

    /// Whether the stream is gone, so that nothing more can come, not even its end.
    pub fn orphaned(&self) -> bool {
        Arc::strong_count(&self.queue) == 1
    }

    /// What ends this reader alone, while the stream goes on.
    pub fn stopper(&self) -> Stopper {
        Stopper { queue: Arc::downgrade(&self.queue) }
    }

    /// Resolves when there is a reason to drain before the reader's own timer: the first item, the
    /// end, or a quarter of the bound.
    pub async fn woken(&self) {
        self.queue.wake.notified().await;
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.queue.lock().unread = true;
        self.queue.drained.notify_waiters();
    }
}

/// Ends one reader from outside: it still reads all that was pushed before.
#[derive(Clone, Debug)]
pub struct Stopper {
    /// Weak, for a reader counts the references to its queue to see whether the stream is gone.
    queue: Weak<Queue>,
}

impl Stopper {
    /// Nothing is pushed to the reader after this.
    pub fn stop(&self, reason: EndReason, now: Instant) {
        if let Some(queue) = self.queue.upgrade() {
            queue.push(Item::End(reason), now);
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Notify,
    /// Wakes publishers that wait for capacity.
    drained: Notify,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<(Instant, Item)>,
    bytes: usize,
    /// What the reader has taken and not yet written.
    held: usize,
    /// The reader is gone.
    unread: bool,
    /// The end was pushed.
    ended: bool,
    seen_any: bool,
    /// The reader can do nothing with pictures before the next keyframe.
    wants_keyframe: bool,
    tracks: BTreeMap<usize, TrackState>,
    /// Packets of each track that never came, that there was no space to tell of.
    lost: BTreeMap<usize, u32>,
}

#[derive(Debug)]
struct TrackState {
    /// Time of the last frame taken, or of the first that came.
    last: Duration,
    /// Time of the newest one refused since.
    refused: Option<Duration>,
}

impl Queue {
    pub(super) fn push(&self, item: Item, now: Instant) {
        let mut state = self.lock();
        if state.ended {
            return;
        }
        let before = state.bytes;
        let wake = match item {
            Item::Media(Event::Frame(frame)) => {
                state.frame(frame, now);
                !std::mem::replace(&mut state.seen_any, true)
            }
            Item::Media(Event::Gap(gap)) => {
                state.gap(gap, now);
                false
            }
            Item::Media(Event::Lost { track, packets }) => {
                state.lost(track, packets, now);
                false
            }
            Item::End(_) => {
                state.ended = true;
                state.tell_lost(now);
                for gap in state.refused() {
                    state.items.push_back((now, Item::Media(Event::Gap(gap))));
                }
                state.items.push_back((now, item));
                true
            }
        };
        if wake || (before < BOUND / 4 && state.bytes >= BOUND / 4) {
            self.wake.notify_one();
        }
    }

    /// Resolves when the reader has less before it than what wakes it: a publisher that waits for this
    /// before each push of up to [`BOUND`] / 2 never makes it refuse a frame.
    pub(super) async fn ready(&self) {
        loop {
            let mut noted = std::pin::pin!(self.drained.notified());
            noted.as_mut().enable();
            if self.lock().has_capacity() {
                return;
            }
            noted.await;
        }
    }

    /// Whether the reader needs a keyframe, which this one may be.
    pub(super) fn wants_keyframe(&self, is_keyframe: bool) -> bool {
        let mut state = self.lock();
        state.wants_keyframe &= !is_keyframe;
        state.wants_keyframe
    }

    /// What the reader has not written yet.
    pub(super) fn bytes(&self) -> usize {
        let state = self.lock();
        state.bytes + state.held
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn has_capacity(&self) -> bool {
        self.unread || self.bytes + self.held < BOUND / 4
    }

    fn track(&mut self, track: usize, time: Duration) -> &mut TrackState {
        self.tracks.entry(track).or_insert(TrackState { last: time, refused: None })
    }

    fn frame(&mut self, frame: Frame, now: Instant) {
        let (cost, held) = (frame.footprint(), self.bytes);
        let track = self.track(frame.track, frame.time);
        let capacity = if track.refused.is_some() { BOUND / 2 } else { BOUND };
        if held + cost > capacity || (track.refused.is_some() && !frame.keyframe) {
            track.refused = track.refused.max(Some(frame.time));
            return;
        }
        let from = std::mem::replace(&mut track.last, frame.time);
        if track.refused.take().is_some() {
            let gap = Gap { track: frame.track, from, to: frame.time, reason: GapReason::Overrun };
            self.take(Event::Gap(gap), Frame::OVERHEAD, now);
        }
        self.take(Event::Frame(frame), cost, now);
    }

    /// Without space a hole is as good as a frame refused where it ends.
    fn gap(&mut self, gap: Gap, now: Instant) {
        if self.bytes + Frame::OVERHEAD > BOUND {
            let track = self.track(gap.track, gap.from);
            track.refused = track.refused.max(Some(gap.to));
        } else {
            self.take(Event::Gap(gap), Frame::OVERHEAD, now);
        }
    }

    fn lost(&mut self, track: usize, packets: u32, now: Instant) {
        if self.bytes + Frame::OVERHEAD > BOUND {
            let lost = self.lost.entry(track).or_default();
            *lost = lost.saturating_add(packets);
        } else {
            self.take(Event::Lost { track, packets }, Frame::OVERHEAD, now);
        }
    }

    fn take(&mut self, event: Event, cost: usize, now: Instant) {
        self.bytes += cost;
        self.items.push_back((now, Item::Media(event)));
    }

    /// Tells of packets that there was no space to tell of: one item a track.
    fn tell_lost(&mut self, now: Instant) {
        for (track, packets) in std::mem::take(&mut self.lost) {
            self.items.push_back((now, Item::Media(Event::Lost { track, packets })));
        }
    }

    /// Takes the holes that no frame has ended.
    fn refused(&mut self) -> Vec<Gap> {
        let hole = |(index, track): (&usize, &mut TrackState)| {
            let to = track.refused.take()?.max(track.last + MOMENT);
            Some(Gap { track: *index, from: track.last, to, reason: GapReason::Overrun })
        };
        self.tracks.iter_mut().filter_map(hole).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    /// A frame of so many bytes fills the queue.
    const FULL: usize = BOUND - Frame::OVERHEAD;

    fn hole(from_ms: u64, to_ms: u64) -> Item {
        let (from, to) = (Duration::from_millis(from_ms), Duration::from_millis(to_ms));
        Item::Media(Event::Gap(Gap { track: 0, from, to, reason: GapReason::Overrun }))
    }

    fn frame(time_ms: u64, keyframe: bool, bytes: usize) -> Item {
        let data = Bytes::from(vec![0; bytes]);
        let time = Duration::from_millis(time_ms);
        Item::Media(Event::Frame(Frame { time, keyframe, ..Frame::of(0, data) }))
    }

    #[test]
    fn a_reader_that_is_stopped_has_all_up_to_then_and_nothing_after() {
        let queue = Arc::new(Queue::default());
        let tap = Tap::new(queue.clone());
        let now = Instant::now();
        queue.push(frame(0, true, 1), now);
        tap.stopper().stop(EndReason::Stopped, now);
        queue.push(frame(33, false, 1), now);
        queue.push(Item::End(EndReason::Kicked), now);
        let items: Vec<_> = tap.drain().into_iter().map(|(_, item)| item).collect();
        assert_eq!(items, [frame(0, true, 1), Item::End(EndReason::Stopped)]);
        assert!(!tap.orphaned());
    }

    #[test]
    fn a_reader_that_stalls_learns_what_it_missed_and_goes_on_at_a_keyframe() {
        let queue = Arc::new(Queue::default());
        let tap = Tap::new(queue.clone());
        let now = Instant::now();
        queue.push(frame(0, true, FULL), now);
        queue.push(frame(33, false, 1), now);
        assert_eq!(tap.drain().len(), 1, "the bound was exceeded");
        queue.push(frame(66, false, 1), now);
        queue.push(frame(100, true, 1), now);
        let items: Vec<_> = tap.drain().into_iter().map(|(_, item)| item).collect();
        assert_eq!(items, [hole(0, 100), frame(100, true, 1)]);
    }

    #[test]
    fn frames_refused_up_to_the_end_are_told_before_it() {
        let queue = Arc::new(Queue::default());
        let tap = Tap::new(queue.clone());
        let now = Instant::now();
        let fill = || {
            queue.push(frame(0, true, FULL), now);
            queue.push(frame(33, false, 1), now);
            queue.push(frame(66, false, 1), now);
        };
        fill();
        assert_eq!(
            tap.refused().into_iter().map(|gap| Item::Media(Event::Gap(gap))).next(),
            Some(hole(0, 66))
        );
        assert_eq!((tap.refused(), tap.drain().len()), (Vec::new(), 1));
        fill();
        queue.push(Item::End(EndReason::Stopped), now);
        let items: Vec<_> = tap.drain().into_iter().map(|(_, item)| item).collect();
        assert_eq!(items, [frame(0, true, FULL), hole(0, 66), Item::End(EndReason::Stopped)]);
    }

    #[test]
    fn a_million_tiny_items_take_no_more_memory_than_the_bound() {
        let most = BOUND / Frame::OVERHEAD;
        let now = Instant::now();
        for what in ["frames", "holes", "losses"] {
            let queue = Arc::new(Queue::default());
            let tap = Tap::new(queue.clone());
            let data = Bytes::from_static(&[0]);
            for step in 0..1_000_000 {
                let time = Duration::from_millis(step);
                let event = match what {
                    "frames" => Event::Frame(Frame { time, keyframe: true, ..Frame::of(0, data.clone()) }),
                    "holes" => {
                        Event::Gap(Gap { track: 0, from: time, to: time + MOMENT, reason: GapReason::Loss })
                    }
                    _ => Event::Lost { track: 0, packets: 1 },
                };
                queue.push(Item::Media(event), now);
            }
            let held = queue.lock().items.len();
            println!("{held} {what} of a million");
            assert!(held <= most, "{held} {what} wait, {most} may");
            queue.push(Item::End(EndReason::Stopped), now);
            let items: Vec<_> = tap.drain().into_iter().map(|(_, item)| item).collect();
            let lost = items.iter().map(|item| match item {
                Item::Media(Event::Lost { packets, .. }) => u64::from(*packets),
                _ => 0,
            });
            assert_eq!(lost.sum::<u64>(), if what == "losses" { 1_000_000 } else { 0 });
            let ends = |item: &Item| match item {
                Item::Media(Event::Gap(gap)) => Some(gap.to.as_millis()),
                _ => None,
            };
            let last = items.iter().rev().find_map(ends);
            let expected = [("frames", 999_999), ("holes", 1_000_000)];
            let expected = expected.iter().find(|(of, _)| *of == what).map(|(_, to)| *to);
            assert_eq!(last, expected, "{what}: the end of the last hole");
        }
    }
}
