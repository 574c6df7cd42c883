//! One publication's time over several sessions: strictly increasing, holes named.

use crate::container::webm;
use crate::media::{Codec, Event, Frame, Gap, GapReason, Track, opus};
use std::time::Duration;

/// A pause in a track that is worth telling: audio that is not transmitted for silence (DTX) still
/// sends a packet every 400 ms, and the slowest camera a picture a second.
const PAUSE: Duration = Duration::from_secs(2);
/// The file's clock ticks in milliseconds.
const TICK: Duration = Duration::from_millis(1);

/// Places each session's frames on the stream's tracks and time.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    /// The stream's track for each of the session's.
    tracks: Vec<usize>,
    /// Newest time on each of the stream's tracks.
    newest: Vec<Option<Duration>>,
    /// Tracks that have had no frame since the session began.
    returning: Vec<bool>,
    /// Tracks whose hole is explained already.
    explained: Vec<bool>,
}

impl Timeline {
    /// For a first session.
    pub fn new(tracks: usize) -> Self {
        Self {
            tracks: (0..tracks).collect(),
            newest: vec![None; tracks],
            returning: vec![false; tracks],
            explained: vec![false; tracks],
        }
    }

    /// For a further session; false if one of its tracks has no counterpart on the stream.
    pub fn resume(&mut self, stream: &[Track], session: &[Track]) -> bool {
        // Beside the gain, Opus' header tells only what to cut off at the very start.
        let known = |held: &Track, track: &Track| match held.codec {
            Codec::Opus => opus::sounds_alike(&held.private, &track.private),
            _ => held.private == track.private && webm::is_shown_alike(held, track),
        };
        let fits = |held: &Track, track: &Track| held.codec == track.codec && known(held, track);
        let stream_tracks: Option<Vec<usize>> =
            session.iter().map(|track| stream.iter().position(|held| fits(held, track))).collect();
        let Some(stream_tracks) = stream_tracks else { return false };
        self.tracks = stream_tracks;
        self.returning.fill(true);
        true
    }

    /// Hands an event on, preceded by the hole it ends.
    pub fn push(&mut self, event: Event, mut give: impl FnMut(Event)) {
        let Some(&track) = self.tracks.get(event_track(&event)) else { return };
        match event {
            Event::Frame(frame) => {
                let newest = self.newest[track];
                let time = newest.map_or(frame.time, |newest| frame.time.max(newest + TICK));
                let returning = std::mem::take(&mut self.returning[track]);
                let explained = std::mem::take(&mut self.explained[track]);
                if let Some(from) = newest
                    && !explained
                    && (returning || time - from >= PAUSE)
                {
                    let reason = if returning { GapReason::Reconnect } else { GapReason::Silence };
                    give(Event::Gap(Gap { track, from, to: time, reason }));
                }
                self.newest[track] = Some(time);
                give(Event::Frame(Frame { track, time, ..frame }));
            }
            Event::Gap(gap) => {
                // What came and could not be decoded was no silence, nor is a clock that was set.
                self.explained[track] |= matches!(gap.reason, GapReason::Undecodable | GapReason::Clock);
                give(Event::Gap(Gap { track, ..gap }));
            }
            Event::Lost { packets, .. } => give(Event::Lost { track, packets }),
        }
    }
}

fn event_track(event: &Event) -> usize {
    match event {
        Event::Frame(frame) => frame.track,
        Event::Gap(gap) => gap.track,
        Event::Lost { track, .. } => *track,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn frame(track: usize, ms: u64) -> Event {
        let time = Duration::from_millis(ms);
        Event::Frame(Frame { time, keyframe: true, ..Frame::of(track, Bytes::new()) })
    }

    #[test]
    fn a_publisher_that_returns_goes_on_in_time_and_the_hole_is_named() {
        const VIDEO: Track = Track::video(Codec::Vp8);
        const AUDIO: Track = Track::opus(2);
        let mut timeline = Timeline::new(2);
        let mut out = Vec::new();
        timeline.push(frame(0, 100), |event| out.push(event));
        assert!(timeline.resume(&[VIDEO, AUDIO], &[AUDIO, VIDEO]), "the same tracks in another order fit");
        timeline.push(frame(1, 90), |event| out.push(event));
        let gap = Gap {
            track: 0,
            from: Duration::from_millis(100),
            to: Duration::from_millis(101),
            reason: GapReason::Reconnect,
        };
        assert_eq!(out, [frame(0, 100), Event::Gap(gap), frame(0, 101)]);
        assert!(!timeline.resume(&[AUDIO], &[VIDEO]), "a track without a counterpart was taken");
    }

    #[test]
    fn a_long_silence_is_a_gap() {
        let mut timeline = Timeline::new(1);
        let mut gaps = 0;
        for ms in [0, 33, 5033] {
            timeline.push(frame(0, ms), |event| gaps += usize::from(matches!(event, Event::Gap(_))));
        }
        assert_eq!(gaps, 1);
    }
}
