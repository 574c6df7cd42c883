//! What makes a file whole that was cut off or damaged.

use crate::container::webm::{Hole, Lack, Plan};
use crate::container::{Patch, Seal};
use crate::media::{Codec, Kind};
use std::fmt::Display;
use std::time::Duration;

/// Takes a file front to back, in pieces of any length, and says what makes it whole.
pub trait Repair {
    /// Takes the next bytes.
    fn push(&mut self, bytes: &[u8]) -> Result<(), Beyond>;

    /// There are no more.
    fn finish(self: Box<Self>) -> Result<Found, Beyond>;
}

/// There is nothing in a file that could be made whole; why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Beyond(String);

impl Beyond {
    pub(crate) fn because(why: impl Display) -> Self {
        Self(why.to_string())
    }
}

/// What there is in a file, and what makes it whole.
#[derive(Debug)]
pub struct Found {
    /// Its tracks.
    pub tracks: Vec<RepairedTrack>,
    /// Its duration once it is whole.
    pub duration: Duration,
    /// What it lacks, unless the remedy turns out to be there already.
    pub lacks: Vec<Lack>,
    /// Bytes in its middle that make no sense.
    pub damaged: u64,
    /// Bytes at its end that belong to nothing whole.
    pub cut: u64,
    /// Holes that the damage makes; `track` counts from 0 in `tracks`.
    pub holes: Vec<Hole>,
    /// What to do.
    pub remedy: Remedy,
}

/// What to do to make a file whole.
#[derive(Debug)]
pub enum Remedy {
    /// In the room that it has.
    InPlace {
        /// To be written, durably, before anything else.
        patches: Vec<Patch>,
        /// Where the last whole piece ends: what is behind it is cut off.
        end: u64,
        /// The last step.
        seal: Seal,
    },
    /// As a copy that takes its place.
    Copy(Box<Plan>),
}

/// A track as it is in the whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairedTrack {
    /// TrackNumber; in MP4 the position among the tracks, counted from 1.
    pub number: u64,
    /// Video, audio, or something that is only copied.
    pub kind: Option<Kind>,
    /// CodecID of Matroska.
    pub codec_id: String,
    /// Frames.
    pub frames: u64,
    /// Picture size; video only.
    pub size: Option<(u32, u32)>,
}

impl RepairedTrack {
    /// Its codec, if it is one that we record.
    pub fn codec(&self) -> Option<Codec> {
        Codec::of_matroska_id(&self.codec_id)
    }
}
