//! Files of media, as bytes: what is written, read and repaired. Knows no file, no clock.
//!
//! A file is written front to back by a [`Muxer`], in fragments that are whole each, and made whole at the end
//! by a [`Seal`]. What was cut off or damaged is read by a [`Repair`], which finds the [`Remedy`].

pub mod mp4;
mod repair;
pub mod webm;

pub use repair::{Defect, Found, Hole, Remedy, Repair, RepairedTrack, Unrepairable};

use crate::media::{Frame, Kind, Size, Track};
use std::fmt::Debug;
use std::ops::Range;
use std::time::Duration;

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// VP8, VP9, AV1 and Opus; every browser plays it.
    Webm,
    /// Anything else. WebM is Matroska with a short list of codecs.
    Matroska,
}

impl Container {
    /// What can hold these tracks.
    pub fn of(tracks: &[Track]) -> Self {
        if tracks.iter().all(|track| track.codec.is_in_webm()) { Self::Webm } else { Self::Matroska }
    }

    /// How the name of a file ends, without the dot.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Webm => "webm",
            Self::Matroska => "mkv",
        }
    }

    /// MIME type of a file with these tracks: for Matroska the old names, which browsers know.
    pub fn mime(self, tracks: &[Track]) -> &'static str {
        let video = tracks.iter().any(|track| track.codec.kind() == Kind::Video);
        match (self, video) {
            (Self::Webm, true) => "video/webm",
            (Self::Webm, false) => "audio/webm",
            (Self::Matroska, true) => "video/x-matroska",
            (Self::Matroska, false) => "audio/x-matroska",
        }
    }

    /// Begins a file, of fragments that span at most `max_span`.
    pub fn muxer(self, head: &Head<'_>, max_span: Duration) -> Box<dyn Muxer> {
        match self {
            Self::Webm | Self::Matroska => Box::new(webm::Muxer::new(head, max_span)),
        }
    }
}

/// What the beginning of a file is made of.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The tracks.
    pub tracks: &'a [Track],
    /// The picture size of each track, as far as it is known.
    pub sizes: &'a [Option<Size>],
    /// A random number that makes identifiers in the file.
    pub uid: u64,
    /// The wall time of time 0, in nanoseconds since 1970.
    pub unix_nanos: i128,
    /// The title; none if it is empty.
    pub title: &'a str,
}

/// Writes a file front to back, in fragments of which each leaves it readable: clusters of Matroska, movie
/// fragments of MP4. They are collected in memory; the writer says which have reached the file.
pub trait Muxer: Debug + Send {
    /// Adds a frame at a time of the file. What goes back on its track is moved to right behind the frame
    /// before it.
    fn push(&mut self, frame: &Frame, time: Duration);

    /// Adds a packet that was made up to fill a hole of sound, marked so that it can be told from what was
    /// received.
    fn push_filler(&mut self, track: usize, time: Duration, data: &[u8]);

    /// So many bytes more will be pushed, so that memory is taken once for all of them.
    fn reserve(&mut self, bytes: usize);

    /// Ends the open fragment.
    fn finish(&mut self);

    /// What is written before the first fragment.
    fn head(&self) -> &[u8];

    /// The bytes of the finished fragments, and of an open one after them.
    fn bytes(&self) -> &[u8];

    /// Where each finished fragment lies in [`Muxer::bytes`].
    fn fragments(&self) -> Vec<Range<usize>>;

    /// This fragment has been written, `at` bytes into the file: from now on the index has it.
    fn commit(&mut self, fragment: usize, at: u64);

    /// Forgets the finished fragments. Call after [`Muxer::finish`].
    fn clear(&mut self);

    /// Bytes that [`Muxer::seal`] would append now, at most.
    fn tail_at_most(&self) -> u64;

    /// What makes a file whole that ends at byte `end`, behind the last fragment that was committed.
    fn seal(&self, end: u64) -> Seal;

    /// What the file holds of a track.
    fn written(&self, track: usize) -> Written;
}

/// What a file holds of a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Frames that were received.
    pub frames: u64,
    /// Packets that were made up to fill holes of sound.
    pub filled: u64,
    /// The largest width and height; `None` if no picture said any.
    pub size: Option<Size>,
}

/// Bytes to write over others, at an offset from the start of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Offset in bytes from the start of the file.
    pub at: u64,
    /// What is written there.
    pub bytes: Vec<u8>,
}

/// What makes a file whole.
#[derive(Clone, Debug)]
pub struct Seal {
    /// To be appended behind the last fragment.
    pub append: Vec<u8>,
    /// To be written once that is on the disk: until then the file reads as an unfinished one.
    pub patches: Vec<Patch>,
    /// The file's duration.
    pub duration: Duration,
}
