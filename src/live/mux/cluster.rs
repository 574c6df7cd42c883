//! Frames that wait, and the clusters that they are cut into.

use super::{AWAY, Mux, Pictures, SILENCE_MS, SPAN, Segment};
use crate::container::webm::{LiveBlock, live_cluster};
use crate::media::{Frame, Track};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// A cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Whose tracks it has.
    pub segment: Arc<Segment>,
    /// A viewer can begin here.
    pub entry: bool,
    /// When its first frame came.
    pub at: Instant,
    /// Time of its first frame, and the end of its last, in ms.
    pub start: u64,
    /// See `start`.
    pub end: u64,
    /// How many frames there were before, since the stream is watched.
    pub frames_before: u64,
    /// How many it has.
    pub frames: u64,
    /// The whole element.
    pub bytes: Bytes,
}

#[derive(Debug)]
pub(super) struct Waiting {
    tick: u64,
    /// How long before that it is shown, in ms.
    early: u64,
    pub keyframe: bool,
    pub filler: bool,
    at: Instant,
    data: Bytes,
    side_data: Bytes,
}

#[derive(Debug)]
pub(super) struct TrackQueue {
    /// Its index in the stream's tracks.
    pub index: usize,
    pub description: Track,
    /// TrackNumber.
    pub number: u64,
    pub pending: VecDeque<Waiting>,
    /// Time of the newest frame.
    pub newest: Option<u64>,
    /// How long after the one before it that was, in ms.
    pub step: u64,
}

impl Mux {
    /// Cuts off what no frame can come before any more, or all.
    pub(super) fn cut(&mut self, all: bool) {
        let pictures =
            self.video.as_ref().and_then(|track| track.newest).filter(|_| self.pictures == Pictures::Flowing);
        let sound = self.audio.is_some().then_some(self.heard);
        let certain = pictures.into_iter().chain(sound).min().filter(|_| !all).unwrap_or(u64::MAX);
        self.cut_until(certain, AWAY);
    }

    /// Cuts off all clusters that end by then; a picture without a successor is said to last so long.
    pub(super) fn cut_until(&mut self, certain: u64, lasts: u64) {
        while let Some(start) = self.first() {
            let keyframe = self.video.as_ref().and_then(|track| track.keyframe_after(start));
            let end = keyframe.map_or(start + SPAN, |tick| tick.min(start + SPAN));
            if end > certain {
                return;
            }
            self.emit(start, end, lasts);
        }
    }

    /// When what waits begins.
    pub(super) fn first(&self) -> Option<u64> {
        [&self.video, &self.audio].into_iter().flatten().filter_map(TrackQueue::first).min()
    }

    /// Makes a cluster of all frames up to `end`.
    pub(super) fn emit(&mut self, start: u64, end: u64, lasts: u64) {
        let Some(segment) = self.segment.clone() else { return };
        let anywhere = self.enters_anywhere();
        let mut taken: Vec<(u64, Waiting, Option<u64>)> = Vec::new();
        for (track, is_video) in [(&mut self.video, true), (&mut self.audio, false)] {
            let Some(track) = track else { continue };
            while track.first().is_some_and(|tick| tick < end) {
                let Some(frame) = track.pending.pop_front() else { break };
                let next = track.pending.front();
                // Which picture is shown after it isn't the one sent after it.
                let reordered = frame.early > 0 || next.is_some_and(|next| next.early > 0);
                let shown = |next: &Waiting| (next.tick - frame.tick).min(AWAY);
                let duration = (is_video && !reordered).then(|| next.map_or(lasts, shown));
                taken.push((track.number, frame, duration));
            }
        }
        // Stable: of the same time, the picture comes first.
        taken.sort_by_key(|(_, frame, _)| frame.tick);
        let Some((first, last)) = taken.first().zip(taken.last()) else { return };
        let (at, end) = (first.1.at, last.1.tick + SILENCE_MS);
        let is_picture = self.video.as_ref().is_some_and(|track| track.number == first.0);
        let entry = anywhere || (is_picture && first.1.keyframe);
        let blocks: Vec<_> =
            taken.iter().map(|(number, frame, duration)| frame.block(*number, *duration)).collect();
        let bytes = live_cluster(start, &blocks).into();
        let frames = taken.iter().filter(|(_, frame, _)| !frame.filler).count() as u64;
        let frames_before = self.frames;
        self.frames += frames;
        self.clusters.push(Cluster { segment, entry, at, start, end, frames_before, frames, bytes });
    }
}

impl Waiting {
    fn block(&self, number: u64, duration: Option<u64>) -> LiveBlock<'_> {
        let Self { tick, early, keyframe, data, side_data, .. } = self;
        LiveBlock { number, tick: *tick, early: *early, keyframe: *keyframe, duration, data, side_data }
    }
}

impl TrackQueue {
    /// Adds a frame; gives its time, which is later than those before.
    pub(super) fn push(&mut self, tick: u64, frame: &Frame, at: Instant) -> u64 {
        let tick = self.newest.map_or(tick, |newest| tick.max(newest + 1));
        self.step = self.newest.map_or(self.step, |newest| tick - newest);
        self.newest = Some(tick);
        self.pending.push_back(Waiting {
            tick,
            early: frame.early.as_millis() as u64,
            keyframe: frame.keyframe,
            filler: false,
            at,
            data: frame.data.clone(),
            side_data: frame.side_data.clone(),
        });
        tick
    }

    fn first(&self) -> Option<u64> {
        self.pending.front().map(|frame| frame.tick)
    }

    /// The first keyframe that has to begin a cluster after `start`.
    fn keyframe_after(&self, start: u64) -> Option<u64> {
        let begins = |frame: &&Waiting| frame.keyframe && frame.tick > start;
        let found = self.pending.iter().filter(|_| !self.description.codec.is_intra_only()).find(begins);
        found.map(|frame| frame.tick)
    }
}
