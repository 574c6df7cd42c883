//! The lossless reader's queue.

use crate::base::reason::EndReason;
use crate::media::{Event, Frame, Gap, GapReason};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Bytes of frames that may wait for the disk: a minute of 2 Mbit/s. When it is full, new frames
/// are refused track by track until half of it is free and a keyframe comes; the hole is told as a
/// [`Gap`] of reason [`GapReason::Overrun`], so nothing is lost in silence.
const BOUND: usize = 16 << 20;

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
        state.bytes = 0;
        std::mem::take(&mut state.items)
    }

    /// Says how many bytes the reader has taken and still holds in memory. Call it after each drain:
    /// it lets publishers go on that wait in [`crate::live::Stream::room`].
    pub fn holds(&self, bytes: usize) {
        self.queue.lock().held = bytes;
        self.queue.room.notify_waiters();
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
        self.queue.room.notify_waiters();
    }
}

/// Ends one reader from outside: it still reads all that was pushed before.
#[derive(Clone, Debug)]
pub struct Stopper {
    /// Weak, for a reader counts who holds its queue to see whether the stream is gone.
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
    /// Tells publishers that can wait.
    room: Notify,
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
    /// Last time taken of each track, and whether frames have been refused since.
    tracks: HashMap<usize, (Duration, bool)>,
}

impl Queue {
    pub(super) fn push(&self, item: Item, now: Instant) {
        let mut state = self.lock();
        if state.ended {
            return;
        }
        state.ended = matches!(item, Item::End(_));
        let before = state.bytes;
        let wake = match item {
            Item::Media(Event::Frame(frame)) => {
                state.frame(frame, now);
                !std::mem::replace(&mut state.seen_any, true)
            }
            Item::End(_) => {
                state.items.push_back((now, item));
                true
            }
            other => {
                state.items.push_back((now, other));
                false
            }
        };
        if wake || (before < BOUND / 4 && state.bytes >= BOUND / 4) {
            self.wake.notify_one();
        }
    }

    /// Resolves when the reader has less before it than what wakes it: a publisher that waits for this
    /// before each push of up to [`BOUND`] / 2 never makes it refuse a frame.
    pub(super) async fn room(&self) {
        loop {
            let mut noted = std::pin::pin!(self.room.notified());
            noted.as_mut().enable();
            if self.lock().has_room() {
                return;
            }
            noted.await;
        }
    }

    /// What the reader has not written yet.
    pub(super) fn bytes(&self) -> usize {
        let state = self.lock();
        state.bytes + state.held
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_room(&self) -> bool {
        self.unread || self.bytes + self.held < BOUND / 4
    }

    fn frame(&mut self, frame: Frame, now: Instant) {
        let (last, refused) = self.tracks.get(&frame.track).copied().unwrap_or((frame.time, false));
        let room = if refused { BOUND / 2 } else { BOUND };
        if self.bytes + frame.data.len() > room || (refused && !frame.keyframe) {
            self.tracks.insert(frame.track, (last, true));
            return;
        }
        if refused {
            let gap = Gap { track: frame.track, from: last, to: frame.time, reason: GapReason::Overrun };
            self.items.push_back((now, Item::Media(Event::Gap(gap))));
        }
        self.tracks.insert(frame.track, (frame.time, false));
        self.bytes += frame.data.len();
        self.items.push_back((now, Item::Media(Event::Frame(frame))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn frame(time_ms: u64, keyframe: bool, bytes: usize) -> Item {
        let data = Bytes::from(vec![0; bytes]);
        Item::Media(Event::Frame(Frame {
            track: 0,
            time: Duration::from_millis(time_ms),
            keyframe,
            size: None,
            data,
        }))
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
        queue.push(frame(0, true, BOUND), now);
        queue.push(frame(33, false, 1), now);
        assert_eq!(tap.drain().len(), 1, "the bound was exceeded");
        queue.push(frame(66, false, 1), now);
        queue.push(frame(100, true, 1), now);
        let items: Vec<_> = tap.drain().into_iter().map(|(_, item)| item).collect();
        let gap = Gap {
            track: 0,
            from: Duration::ZERO,
            to: Duration::from_millis(100),
            reason: GapReason::Overrun,
        };
        assert_eq!(items, [Item::Media(Event::Gap(gap)), frame(100, true, 1)]);
    }
}
