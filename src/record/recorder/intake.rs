//! What comes from the tap, on its way to the interleaver.

use crate::base::end_reason::EndReason;
use crate::live::Item;
use crate::media::{Event, Frame, Kind, Track};
use crate::record::close::Stage;
use crate::record::recorder::{NO_PICTURES, Recorder};
use std::collections::VecDeque;
use std::time::Instant;

impl Recorder {
    /// Holes that no frame ends, since the recording does: what the tap refused, and what could not be
    /// decoded for want of a keyframe.
    pub(super) fn note_rest(&mut self) {
        for gap in self.tap.refused() {
            self.queue.gap(gap);
        }
        if let Stage::Writing(writer) = &mut self.stage {
            for gap in self.queue.rest() {
                writer.note_trailing(gap);
            }
        }
    }

    /// Sorts what the tap gave; returns why the stream ended, if it did.
    pub(super) fn take_in(&mut self, items: VecDeque<(Instant, Item)>, now: Instant) -> Option<EndReason> {
        for (at, item) in items {
            match item {
                Item::Media(Event::Frame(frame)) => {
                    // A publisher's clock may run ahead of ours (in a simulation); age counts from now.
                    let at = at.min(now);
                    if self.is_too_early(&frame, at) {
                        continue;
                    }
                    if self.queue.push(at, frame) && matches!(self.stage, Stage::Waiting(_)) {
                        self.begin(at);
                    }
                }
                Item::Media(Event::Gap(gap)) => self.queue.gap(gap),
                Item::Media(Event::Lost { track, packets }) if self.joined.is_none() => {
                    if let Some(lost) = self.lost.get_mut(track) {
                        *lost += u64::from(packets);
                    }
                }
                Item::Media(Event::Lost { .. }) => {}
                Item::End(reason) => return Some(reason),
            }
        }
        None
    }

    /// Whether a frame comes before the picture that a recording of a stream under way begins with: sound
    /// alone would be seen as a hole in the pictures.
    fn is_too_early(&mut self, frame: &Frame, at: Instant) -> bool {
        let Some(joined) = self.joined else { return false };
        let of_pictures = |track: &Track| track.codec.kind() == Kind::Video;
        let is_picture = frame.keyframe && self.tracks.get(frame.track).is_some_and(of_pictures);
        if is_picture || at >= joined + NO_PICTURES {
            self.joined = None;
        }
        self.joined.is_some()
    }
}
