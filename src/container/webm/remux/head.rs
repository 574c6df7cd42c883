//! What a copy has in front of its clusters, and the tags behind them.

use super::Remux;
use crate::container::webm::cues::Index;
use crate::container::webm::ebml::{children, element, id, master, uint, void};
use crate::container::webm::muxer::default_duration;
use crate::container::webm::tags::{self, Stamp};
use crate::container::webm::tracks::Info;
use crate::container::webm::write::{SEEK_LEN, seek};
use crate::media::Kind;
use std::time::Duration;

/// The new head: everything before the first cluster.
pub(super) struct HeadBuilder {
    bytes: Vec<u8>,
    segment_size_at: usize,
    pub segment_at: u64,
    seeks_at: usize,
    info_at: u64,
    tracks_at: u64,
}

impl HeadBuilder {
    pub fn new(remux: &Remux, index: &Index, tags: bool) -> Self {
        let mut bytes = Vec::new();
        let (doc_type, version, read_version) = remux.doc.clone().unwrap_or(("matroska".to_owned(), 4, 2));
        master(&mut bytes, id::EBML, |out| {
            uint(out, id::EBML_VERSION, 1);
            uint(out, id::EBML_READ_VERSION, 1);
            uint(out, id::EBML_MAX_ID_LENGTH, 4);
            uint(out, id::EBML_MAX_SIZE_LENGTH, 8);
            element(out, id::DOC_TYPE, doc_type.as_bytes());
            // CueRelativePosition is of version 4; a reader of an older one passes over it.
            uint(out, id::DOC_TYPE_VERSION, version.max(4));
            uint(out, id::DOC_TYPE_READ_VERSION, read_version.max(2));
        });
        bytes.extend_from_slice(&(id::SEGMENT as u32).to_be_bytes());
        let segment_size_at = bytes.len();
        bytes.extend_from_slice(&[0; 8]);
        let segment_at = bytes.len();
        // Info, Tracks, Cues, and what else there is.
        let seeks = vec![0; (3 + remux.extras.len() + usize::from(tags)) * SEEK_LEN];
        let seeks_at = element(&mut bytes, id::SEEK_HEAD, &seeks);
        let info_at = (bytes.len() - segment_at) as u64;
        bytes.extend(info(remux.info.as_ref(), remux.tick(), index.duration()));
        let tracks_at = (bytes.len() - segment_at) as u64;
        element(&mut bytes, id::TRACKS, &entries(remux, index));
        Self { bytes, segment_size_at, segment_at: segment_at as u64, seeks_at, info_at, tracks_at }
    }

    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Fills in what depends on the rest; returns the head and the length of the whole file.
    pub fn finish(mut self, remux: &Remux, tags: &[u8], cues: &[u8]) -> (Vec<u8>, u64) {
        let mut at = self.len() + remux.len - self.segment_at;
        let mut seeks = [seek(id::INFO, self.info_at), seek(id::TRACKS, self.tracks_at)].concat();
        for (id, range) in &remux.extras {
            seeks.extend(seek(*id, at));
            at += range.end - range.start;
        }
        if !tags.is_empty() {
            seeks.extend(seek(id::TAGS, at));
            at += tags.len() as u64;
        }
        seeks.extend(if cues.is_empty() { void(SEEK_LEN) } else { seek(id::CUES, at) });
        self.bytes[self.seeks_at..self.seeks_at + seeks.len()].copy_from_slice(&seeks);
        let size = at + cues.len() as u64;
        let field = (size | 1 << 56).to_be_bytes();
        self.bytes[self.segment_size_at..self.segment_size_at + 8].copy_from_slice(&field);
        let len = self.segment_at + size;
        (self.bytes, len)
    }
}

fn info(info: Option<&Info>, tick: Duration, duration: Duration) -> Vec<u8> {
    let mut out = Vec::new();
    master(&mut out, id::INFO, |out| {
        match info {
            Some(info) => out.extend_from_slice(&info.kept),
            None => uint(out, id::TIMESTAMP_SCALE, tick.as_nanos() as u64),
        }
        let ticks = duration.as_nanos() as f64 / tick.as_nanos() as f64;
        element(out, id::DURATION, &ticks.to_be_bytes());
    });
    out
}

/// The entries as they are, but for an alpha channel that never came: with it players wait for a
/// second picture to each, and Chromium's MediaRecorder always announces it. What they say of the frame
/// rate is the muxer's guess; in its place is what the frames say.
fn entries(remux: &Remux, index: &Index) -> Vec<u8> {
    let (mut out, mut entries) = (Vec::new(), remux.entries.clone());
    for ((track, has_additions), indexed) in remux.tracks.iter().zip(&remux.has_additions).zip(&remux.indexed)
    {
        let drop = track.alpha.clone().filter(|_| !has_additions);
        for range in drop.into_iter().flat_map(|alpha| [Some(alpha), track.crc.clone()]).flatten() {
            let bytes = void(range.len());
            entries[range].copy_from_slice(&bytes);
        }
        let entry = &entries[track.entry.clone()];
        match indexed.map(|indexed| &index.tracks[indexed]).filter(|track| track.kind == Kind::Video) {
            Some(track) => out.extend(with_default_duration(entry, track.interval.mean(index.tick()))),
            None => out.extend_from_slice(entry),
        }
    }
    out
}

/// A TrackEntry with this DefaultDuration instead of its own, and without a checksum, which would no longer
/// be right.
fn with_default_duration(entry: &[u8], mean: Option<Duration>) -> Vec<u8> {
    let mut out = Vec::new();
    for child in children(entry) {
        master(&mut out, id::TRACK_ENTRY, |out| {
            for field in children(child.payload) {
                if !matches!(field.id, id::DEFAULT_DURATION | id::CRC_32) {
                    out.extend_from_slice(&child.payload[field.at]);
                }
            }
            out.extend(mean.map(default_duration).unwrap_or_default());
        });
    }
    out
}

impl Remux {
    /// Tags of the copy, whole; empty if there is nothing to tell. Where the original's could not be taken apart,
    /// statistics might contradict them.
    pub(super) fn all_tags(&self, index: &Index) -> Vec<u8> {
        let mut payload = self.tags.clone();
        if self.extras.iter().all(|(id, _)| *id != id::TAGS) {
            let stamp = self.info.as_ref().map(|info| Stamp::of(&info.kept)).unwrap_or_default();
            let tracks = self.tracks.iter().zip(&self.indexed).filter(|(track, _)| track.plain);
            let told = tracks.filter_map(|(track, indexed)| {
                indexed.map(|indexed| index.statistics(&index.tracks[indexed], track.uid))
            });
            payload.extend(tags::of_tracks(told, &stamp));
        }
        let mut out = Vec::new();
        if !payload.is_empty() {
            element(&mut out, id::TAGS, &payload);
        }
        out
    }
}
