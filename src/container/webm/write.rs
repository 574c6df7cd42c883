//! The head of a file: EBML header, Segment, SeekHead, Info, Tracks, with space reserved for what only sealing
//! knows.

use crate::container::webm::ebml::{EPOCH_NS, element, id, master, uint, void};
use crate::container::webm::{Stamp, track_entry};
use crate::container::{Container, Head};
use crate::media::{Codec, Kind, Size, Track, opus};
use std::ops::Range;

/// Length of a SeekHead entry with an 8-byte position.
pub(super) const SEEK_LEN: usize = 21;
/// Length of a Duration of 8 bytes.
pub(super) const DURATION_LEN: usize = 11;
/// The 8-byte size field that says "unknown", as it must while the end is not known.
const UNKNOWN_SIZE: [u8; 8] = [0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
/// What a file says of its maker, whatever the version.
pub(super) const MAKER: &str = "onrecord ";
const APP: &str = concat!("onrecord ", env!("CARGO_PKG_VERSION"));
/// Declared until a picture's size is known, since 0 is not allowed: many players give up on it.
const SIZE_UNKNOWN: Size = Size { width: 640, height: 480 };
/// DefaultDuration with a value of 4 bytes: 3 of id, 1 of size.
pub(super) const DEFAULT_DURATION_LEN: usize = 8;
/// How that element begins.
pub(super) const DEFAULT_DURATION_START: [u8; 4] = [0x23, 0xe3, 0x83, 0x84];

/// Where a head reserves space for what sealing patches; offsets in bytes from the start of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The Segment's 8-byte size field.
    pub segment_size_at: u64,
    /// Where the Segment's payload begins: positions in SeekHead and Cues count from here.
    pub segment_at: u64,
    /// Space for the SeekHead entry of Cues ([`SEEK_LEN`] bytes).
    pub seek_cues_at: u64,
    /// Space for the SeekHead entry of Tags; `None` in files of versions that reserved none.
    pub seek_tags_at: Option<u64>,
    /// Space for the Duration element ([`DURATION_LEN`] bytes).
    pub duration_at: u64,
    /// What statistics are stamped with.
    pub stamp: Stamp,
    /// Each track.
    pub tracks: Vec<TrackLayout>,
    /// Length of the head: where the first cluster begins.
    pub len: u64,
}

/// Where a track's entry lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackLayout {
    /// TrackNumber.
    pub number: u64,
    /// TrackUID, by which Tags name it.
    pub uid: u64,
    /// The whole TrackEntry.
    pub entry: Range<u64>,
    /// Where space for DefaultDuration is; video only.
    pub default_duration_at: Option<u64>,
    /// The 4-byte values of PixelWidth and PixelHeight; video only.
    pub size_at: Option<(u64, u64)>,
    /// AlphaMode, where it is announced.
    pub alpha_at: Option<u64>,
}

impl TrackLayout {
    /// The same in bytes that begin `by` later.
    fn moved(self, by: u64) -> Self {
        let moved = |at: Option<u64>| at.map(|at| at + by);
        Self {
            number: self.number,
            uid: self.uid,
            entry: self.entry.start + by..self.entry.end + by,
            default_duration_at: moved(self.default_duration_at),
            size_at: self.size_at.map(|(w, h)| (w + by, h + by)),
            alpha_at: moved(self.alpha_at),
        }
    }
}

/// Where in a TrackEntry's payload space for DefaultDuration is, where the values of its picture
/// size are, and AlphaMode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offsets {
    pub default_duration: usize,
    pub width: usize,
    pub height: usize,
    pub alpha: Option<usize>,
}

impl Offsets {
    /// The layout of an entry whose payload begins at `at`.
    pub fn layout(
        offsets: Option<Self>,
        (number, uid): (u64, u64),
        entry: Range<u64>,
        at: u64,
    ) -> TrackLayout {
        TrackLayout {
            number,
            uid,
            entry,
            default_duration_at: offsets.map(|offsets| at + offsets.default_duration as u64),
            size_at: offsets.map(|offsets| (at + offsets.width as u64, at + offsets.height as u64)),
            alpha_at: offsets.and_then(|offsets| offsets.alpha).map(|alpha| at + alpha as u64),
        }
    }
}

/// The bytes of a file up to its first cluster, and where they are patched later.
pub fn head(head: &Head<'_>) -> (Vec<u8>, Layout) {
    let mut out = Vec::with_capacity(512);
    ebml_header(&mut out, Container::of(head.tracks));
    out.extend_from_slice(&(id::SEGMENT as u32).to_be_bytes());
    let segment_size_at = out.len() as u64;
    out.extend_from_slice(&UNKNOWN_SIZE);
    let segment_at = out.len();

    let date = i64::try_from(head.unix_nanos - EPOCH_NS).unwrap_or(0);
    let (info, duration_in_info) = info(date, head.title);
    let (tracks, mut layouts) = tracks(head);
    // All SeekHead entries have one length, so that the positions don't depend on themselves:
    // 4 bytes of id, 1 of size, and the entries.
    let info_at = 4 + 1 + 4 * SEEK_LEN;
    let mut seeks = seek(id::INFO, info_at as u64);
    seeks.extend(seek(id::TRACKS, (info_at + info.len()) as u64));
    // Cues and Tags.
    seeks.extend(void(SEEK_LEN).repeat(2));
    let seeks_at = element(&mut out, id::SEEK_HEAD, &seeks);
    debug_assert_eq!(out.len(), segment_at + info_at, "the SeekHead's length was foretold");

    let duration_at = (out.len() + duration_in_info) as u64;
    out.extend_from_slice(&info);
    let tracks_at = out.len() as u64;
    out.extend_from_slice(&tracks);
    layouts = layouts.into_iter().map(|layout| layout.moved(tracks_at)).collect();
    let layout = Layout {
        segment_size_at,
        segment_at: segment_at as u64,
        seek_cues_at: (seeks_at + 2 * SEEK_LEN) as u64,
        seek_tags_at: Some((seeks_at + 3 * SEEK_LEN) as u64),
        duration_at,
        stamp: Stamp { app: APP.to_owned(), date: Some(date) },
        tracks: layouts,
        len: out.len() as u64,
    };
    (out, layout)
}

pub(super) fn ebml_header(out: &mut Vec<u8>, container: Container) {
    master(out, id::EBML, |out| {
        uint(out, id::EBML_VERSION, 1);
        uint(out, id::EBML_READ_VERSION, 1);
        uint(out, id::EBML_MAX_ID_LENGTH, 4);
        uint(out, id::EBML_MAX_SIZE_LENGTH, 8);
        element(out, id::DOC_TYPE, doc_type(container).as_bytes());
        // CodecDelay, SeekPreRoll and CueRelativePosition are of version 4; a reader of version 2
        // (SimpleBlock) can do without them.
        uint(out, id::DOC_TYPE_VERSION, 4);
        uint(out, id::DOC_TYPE_READ_VERSION, 2);
    });
}

/// The EBML DocType.
fn doc_type(container: Container) -> &'static str {
    match container {
        Container::Webm => "webm",
        Container::Matroska => "matroska",
    }
}

/// One SeekHead entry, [`SEEK_LEN`] bytes long.
pub(super) fn seek(to: u64, position: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(SEEK_LEN);
    master(&mut out, id::SEEK, |out| {
        element(out, id::SEEK_ID, &(to as u32).to_be_bytes());
        element(out, id::SEEK_POSITION, &position.to_be_bytes());
    });
    out
}

/// The Info element, and where in it the space for Duration begins.
fn info(date: i64, title: &str) -> (Vec<u8>, usize) {
    let (mut out, mut duration_at) = (Vec::new(), 0);
    let payload_at = master(&mut out, id::INFO, |out| {
        uint(out, id::TIMESTAMP_SCALE, 1_000_000);
        duration_at = out.len();
        // Until sealing there is no Duration; an element of 0 would be a lie that some readers trust.
        out.extend(void(DURATION_LEN));
        element(out, id::DATE_UTC, &date.to_be_bytes());
        element(out, id::MUXING_APP, APP.as_bytes());
        element(out, id::WRITING_APP, APP.as_bytes());
        if !title.is_empty() {
            element(out, id::TITLE, title.as_bytes());
        }
    });
    (out, payload_at + duration_at)
}

/// The Tracks element, with layouts relative to it.
fn tracks(head: &Head<'_>) -> (Vec<u8>, Vec<TrackLayout>) {
    let (mut payload, mut layouts) = (Vec::new(), Vec::new());
    for (index, track) in head.tracks.iter().enumerate() {
        let number = index as u64 + 1;
        let uid = track_uid(head.uid, number, track);
        let size = head.sizes.get(index).copied().flatten().unwrap_or(SIZE_UNKNOWN);
        let (entry, offsets) = track_entry(track, number, uid, size);
        let start = payload.len() as u64;
        let entry_at = element(&mut payload, id::TRACK_ENTRY, &entry) as u64;
        layouts.push(Offsets::layout(offsets, (number, uid), start..payload.len() as u64, entry_at));
    }
    let mut out = Vec::with_capacity(payload.len() + 12);
    let at = element(&mut out, id::TRACKS, &payload) as u64;
    (out, layouts.into_iter().map(|layout| layout.moved(at)).collect())
}

/// A TrackUID: never 0, another for each of a file's tracks. One byte of it is a sum over the codec's
/// id: `V_VP8` and `V_VP9` are one flipped bit apart. Four more are one over what a publisher's container
/// said, if it said anything.
pub(super) fn track_uid(file: u64, number: u64, track: &Track) -> u64 {
    let sum = track.codec.matroska_id().bytes().fold(0u8, u8::wrapping_add);
    let sums = u64::from(sum) << 48 | u64::from(track_entry::checksum(track).unwrap_or(0)) << 16;
    ((file | 1 << 62) & random_bits(track) | sums) ^ number
}

/// The bits of a TrackUID that are a file's alone.
pub(super) fn random_bits(track: &Track) -> u64 {
    let checksum = if track_entry::checksum(track).is_some() { 0xffff_ffff << 16 } else { 0 };
    !(0xff << 48 | checksum)
}

/// A TrackEntry's payload, and the offsets in it of a video track.
pub(super) fn track_entry(track: &Track, number: u64, uid: u64, size: Size) -> (Vec<u8>, Option<Offsets>) {
    let mut out = Vec::new();
    uint(&mut out, id::TRACK_NUMBER, number);
    uint(&mut out, id::TRACK_UID, uid);
    uint(&mut out, id::FLAG_LACING, 0);
    if !track_entry::says_language(track) {
        element(&mut out, id::LANGUAGE, b"und");
    }
    uint(&mut out, id::TRACK_TYPE, if track.codec.kind() == Kind::Video { 1 } else { 2 });
    element(&mut out, id::CODEC_ID, track.codec.matroska_id().as_bytes());
    let channels = track.channels.max(1);
    match track.codec {
        Codec::Opus if track.private.is_empty() => {
            element(&mut out, id::CODEC_PRIVATE, &opus::head(channels, 0));
        }
        _ if !track.private.is_empty() => {
            element(&mut out, id::CODEC_PRIVATE, &track.private);
        }
        _ => {}
    }
    track_entry::write_outer(&mut out, track);
    if track.codec.kind() == Kind::Audio {
        master(&mut out, id::AUDIO, |out| track_entry::write_audio(out, track, channels));
        return (out, None);
    }
    let default_duration = out.len();
    out.extend(void(DEFAULT_DURATION_LEN));
    let (mut width, mut height) = (0, 0);
    let at = master(&mut out, id::VIDEO, |out| {
        width = element(out, id::PIXEL_WIDTH, &size.width.to_be_bytes());
        height = element(out, id::PIXEL_HEIGHT, &size.height.to_be_bytes());
        out.extend_from_slice(track_entry::inner(track));
    });
    // It stands last.
    let alpha = track_entry::has_alpha(track).then(|| out.len() - track_entry::ALPHA.len());
    (out, Some(Offsets { default_duration, width: at + width, height: at + height, alpha }))
}
