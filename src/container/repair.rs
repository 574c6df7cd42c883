//! What makes a file whole that was cut off or damaged.
//!
//! It names [`CopyPlan`], which is made in `webm`: only Matroska is copied, and a trait for one format says less.

use crate::container::webm::CopyPlan;
use crate::container::{Patch, Seal};
use crate::media::{Codec, Kind};
use std::fmt::{self, Display};
use std::time::Duration;

/// Takes a file front to back, in pieces of any length, and says what makes it whole.
pub trait Repair {
    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// They show that nothing can be made whole.
    fn push(&mut self, bytes: &[u8]) -> Result<(), Unrepairable>;

    /// There are no more: what was found in all of them.
    ///
    /// # Errors
    ///
    /// There is nothing that could be made whole.
    fn finish(self: Box<Self>) -> Result<Found, Unrepairable>;
}

/// There is nothing in a file that could be made whole; why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unrepairable(String);

impl Unrepairable {
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
    /// What is missing in it or wrong, unless the remedy turns out to be there already.
    pub defects: Vec<Defect>,
    /// Bytes in its middle that make no sense.
    pub damaged: u64,
    /// Bytes at its end that belong to nothing whole.
    pub cut: u64,
    /// Holes that the damage makes; `track` counts from 0 in `tracks`.
    pub holes: Vec<Hole>,
    /// What to do.
    pub remedy: Remedy,
}

/// What keeps a file from being played and sought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// Info has no Duration.
    Duration,
    /// It has no index, or one that points elsewhere.
    Cues,
    /// Cues that no SeekHead tells of, so that a player would have to read the whole file to find them.
    SeekHead,
    /// Sizes that are unknown or wrong, as while a file is being written.
    Sizes,
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Duration => "no duration",
            Self::Cues => "no index",
            Self::SeekHead => "an index that players don't find",
            Self::Sizes => "unknown sizes",
        })
    }
}

/// A part of a track that is not to be had any more; times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Index of the track.
    pub track: usize,
    /// Time of the last frame before it.
    pub from: u64,
    /// Time of the first frame after it.
    pub to: u64,
}

/// What to do to make a file whole.
#[derive(Debug)]
pub enum Remedy {
    /// In the space that it has.
    InPlace {
        /// To be written, durably, before anything else.
        patches: Vec<Patch>,
        /// Where the last whole piece ends: what is behind it is cut off.
        end: u64,
        /// The last step.
        seal: Seal,
    },
    /// As a copy that takes its place.
    Copy(Box<CopyPlan>),
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
