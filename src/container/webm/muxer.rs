//! A file on its way: its head, the clusters in memory, the index of those that were written; and its seal, which is
//! the index at the end and the patches at the front.

use crate::container::webm::cluster::{Block, Clusters};
use crate::container::webm::cues::{Index, cues};
use crate::container::webm::ebml::{element, id, void};
use crate::container::webm::tags::{self, MAX_TAGS};
use crate::container::webm::track_entry::ALPHA;
use crate::container::webm::write::{DEFAULT_DURATION_LEN, Layout, SEEK_LEN, head, seek};
use crate::container::{Head, Patch, Seal, Written};
use crate::media::{Frame, Size};
use std::ops::Range;
use std::time::Duration;

/// Writes WebM or Matroska.
#[derive(Debug)]
pub struct Muxer {
    head: Vec<u8>,
    layout: Layout,
    clusters: Clusters,
    index: Index,
}

impl Muxer {
    /// Begins a file, of clusters that span at most `max_span`.
    pub fn new(of: &Head<'_>, max_span: Duration) -> Self {
        let (head, layout) = head(of);
        let (clusters, index) = (Clusters::new(of.tracks, max_span), Index::new(of.tracks));
        Self { head, layout, clusters, index }
    }
}

impl crate::container::Muxer for Muxer {
    fn push(&mut self, frame: &Frame, time: Duration) {
        self.clusters.push(&Block { time, ..Block::from(frame) });
    }

    fn push_filler(&mut self, track: usize, time: Duration, data: &[u8]) {
        self.clusters.push_filler(track, time, data);
    }

    fn reserve(&mut self, bytes: usize) {
        self.clusters.reserve(bytes);
    }

    fn finish(&mut self) {
        self.clusters.finish();
    }

    fn head(&self) -> &[u8] {
        &self.head
    }

    fn bytes(&self) -> &[u8] {
        self.clusters.bytes()
    }

    fn fragments(&self) -> Vec<Range<usize>> {
        self.clusters.finished().iter().map(|cluster| cluster.range.clone()).collect()
    }

    fn commit(&mut self, fragment: usize, at: u64) {
        self.index.commit(&self.clusters.finished()[fragment].stats, at - self.layout.segment_at);
    }

    fn clear(&mut self) {
        self.clusters.clear();
    }

    fn tail_at_most(&self) -> u64 {
        self.index.bytes_at_most() + MAX_TAGS
    }

    fn seal(&self, end: u64) -> Seal {
        seal(&self.layout, &self.index, end)
    }

    fn written(&self, track: usize) -> Written {
        let track = &self.index.tracks[track];
        let size = Size { width: track.width, height: track.height };
        Written {
            frames: track.frames - track.filled,
            filled: track.filled,
            size: (track.width > 0).then_some(size),
        }
    }
}

/// Seals a file whose clusters end at byte `end`.
pub fn seal(layout: &Layout, index: &Index, end: u64) -> Seal {
    let duration = index.duration();
    let mut append = cues(&index.cues(), |track| layout.tracks.get(track).map_or(0, |track| track.number));
    let mut patches = vec![Patch { at: layout.duration_at, bytes: duration_element(duration) }];
    if !append.is_empty() {
        let bytes = seek(id::CUES, end - layout.segment_at);
        patches.push(Patch { at: layout.seek_cues_at, bytes });
    }
    if let Some(at) = layout.seek_tags_at {
        let behind = end + append.len() as u64 - layout.segment_at;
        let tags = statistics(layout, index);
        let bytes = if tags.is_empty() { void(SEEK_LEN) } else { seek(id::TAGS, behind) };
        patches.push(Patch { at, bytes });
        append.extend(tags);
    }
    let anything = index.tracks.iter().any(|track| track.frames > 0);
    for (track, layout) in index.tracks.iter().zip(&layout.tracks) {
        if track.frames == 0 && anything {
            // A track that never had a frame keeps players waiting for its first one.
            let len = (layout.entry.end - layout.entry.start) as usize;
            patches.push(Patch { at: layout.entry.start, bytes: void(len) });
        } else if let Some((width_at, height_at)) = layout.size_at.filter(|_| track.width > 0) {
            patches.push(Patch { at: width_at, bytes: track.width.to_be_bytes().to_vec() });
            patches.push(Patch { at: height_at, bytes: track.height.to_be_bytes().to_vec() });
        }
        if let Some(at) = layout.default_duration_at.filter(|_| track.frames > 0) {
            let mean = track.interval.mean(index.tick());
            let bytes = mean.map_or_else(|| void(DEFAULT_DURATION_LEN), default_duration);
            patches.push(Patch { at, bytes });
        }
        if let Some(at) = layout.alpha_at.filter(|_| track.frames > 0 && !track.has_additions) {
            // An alpha channel that is announced and never comes keeps players waiting for it.
            patches.push(Patch { at, bytes: void(ALPHA.len()) });
        }
    }
    let segment_len = end + append.len() as u64 - layout.segment_at;
    let size = (segment_len | 1 << 56).to_be_bytes().to_vec();
    patches.push(Patch { at: layout.segment_size_at, bytes: size });
    Seal { append, patches, duration }
}

/// Tags with the statistics of all tracks; empty if there is nothing to tell.
fn statistics(layout: &Layout, index: &Index) -> Vec<u8> {
    let tracks = index.tracks.iter().zip(&layout.tracks);
    let tags =
        tags::of_tracks(tracks.map(|(track, layout)| index.statistics(track, layout.uid)), &layout.stamp);
    let mut out = Vec::new();
    if !tags.is_empty() {
        element(&mut out, id::TAGS, &tags);
    }
    out
}

/// The mean distance of two pictures as DefaultDuration, [`DEFAULT_DURATION_LEN`] bytes long. Tools take it
/// for the frame rate: they count frames, seek and convert by it. Without one they guess from the first
/// pictures of a camera whose rate varies, or take a tick for it.
pub(super) fn default_duration(mean: Duration) -> Vec<u8> {
    let mut out = Vec::new();
    element(&mut out, id::DEFAULT_DURATION, &(mean.as_nanos() as u32).to_be_bytes());
    out
}

fn duration_element(duration: Duration) -> Vec<u8> {
    let mut out = Vec::new();
    element(&mut out, id::DURATION, &(duration.as_secs_f64() * 1000.0).to_be_bytes());
    out
}
