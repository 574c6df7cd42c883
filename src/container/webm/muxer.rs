//! A file on its way: its head, the clusters in memory, and the index of those that were written.

use crate::container::webm::{Block, Clusters, Index, Layout, MAX_TAGS, head, seal};
use crate::container::{Head, Seal, Written};
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
