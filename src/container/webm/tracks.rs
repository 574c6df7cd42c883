//! Tracks and Info of files that others wrote (RFC 9559 section 5.1).

use crate::container::webm::ebml::{child, children, id, is_well_formed, read_float, read_string, read_uint};
use crate::container::webm::track_entry;
use crate::media::Kind;
use bytes::Bytes;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

/// What a picture's side can be: VP9 can say up to 65 536, JPEG nearly as much. More is damage.
pub(super) const SIDES: RangeInclusive<u32> = 1..=1 << 16;

/// A track as its entry describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignTrack {
    /// TrackNumber.
    pub number: u64,
    /// TrackUID; 0 if there is none.
    pub uid: u64,
    /// Pictures or sound; `None` for subtitles and other things that are only copied.
    pub kind: Option<Kind>,
    /// CodecID.
    pub codec_id: String,
    /// Channels of sound.
    pub channels: u8,
    /// Declared picture size.
    pub size: (u32, u32),
    /// CodecPrivate; empty if there is none.
    pub private: Vec<u8>,
    /// Its frames are stored as they are: not compressed or encrypted by the container.
    pub plain: bool,
    /// What of its entry goes with it into a file of ours: see [`crate::media::Track::entry`].
    pub carried: Bytes,
    /// The whole entry, in Tracks' payload.
    pub(super) entry: Range<usize>,
    /// AlphaMode, if it says that there is an alpha channel.
    pub(super) alpha: Option<Range<usize>>,
    /// A checksum, which would no longer be right if the entry was changed.
    pub(super) crc: Option<Range<usize>>,
}

/// Reads the payload of Tracks; `None` if it makes no sense.
pub fn tracks(payload: &[u8]) -> Option<Vec<ForeignTrack>> {
    let mut tracks = Vec::<ForeignTrack>::new();
    for child in children(payload).filter(|child| child.id == id::TRACK_ENTRY) {
        let track = track(child.payload, child.at)?;
        if tracks.iter().any(|other| other.number == track.number) {
            return None;
        }
        tracks.push(track);
    }
    (is_well_formed(payload) && !tracks.is_empty()).then_some(tracks)
}

fn track(payload: &[u8], at: Range<usize>) -> Option<ForeignTrack> {
    let base = at.end - payload.len();
    let number =
        |payload: Option<&[u8]>, id| payload.and_then(|payload| child(payload, id)).and_then(read_uint);
    let (video, audio) = (child(payload, id::VIDEO), child(payload, id::AUDIO));
    let kind = match number(Some(payload), id::TRACK_TYPE)? {
        1 => Some(Kind::Video),
        2 => Some(Kind::Audio),
        _ => None,
    };
    let codec_id = read_string(child(payload, id::CODEC_ID)?);
    let side = |id| number(video, id).and_then(|side| u32::try_from(side).ok()).unwrap_or(0);
    let size = (side(id::PIXEL_WIDTH), side(id::PIXEL_HEIGHT));
    let sized = kind != Some(Kind::Video) || (SIDES.contains(&size.0) && SIDES.contains(&size.1));
    let right =
        is_well_formed(payload) && video.is_none_or(is_well_formed) && audio.is_none_or(is_well_formed);
    let described = codec_id != "A_OPUS" || child(payload, id::CODEC_PRIVATE).is_none_or(is_opus_head);
    if !right || !is_codec(codec_id, kind) || !sized || !described {
        return None;
    }
    let range_of = |payload: Option<&[u8]>, base: usize, id, wanted: Option<u64>| {
        let mut all = payload.into_iter().flat_map(children);
        let found =
            all.find(|child| child.id == id && wanted.is_none_or(|w| read_uint(child.payload) == Some(w)));
        found.map(|child| child.at.start + base..child.at.end + base)
    };
    let video_at = children(payload).find(|child| child.id == id::VIDEO);
    let video_at = video_at.map_or(base, |child| base + child.at.end - child.payload.len());
    Some(ForeignTrack {
        number: number(Some(payload), id::TRACK_NUMBER).filter(|number| *number > 0)?,
        uid: number(Some(payload), id::TRACK_UID).unwrap_or(0),
        kind,
        codec_id: codec_id.to_owned(),
        channels: number(audio, id::CHANNELS).map_or(1, |channels| channels.min(255) as u8),
        size,
        private: child(payload, id::CODEC_PRIVATE).unwrap_or_default().to_vec(),
        plain: child(payload, id::CONTENT_ENCODINGS).is_none(),
        carried: track_entry::carried(payload),
        alpha: range_of(video, video_at, id::ALPHA_MODE, Some(1)),
        crc: range_of(Some(payload), base, id::CRC_32, None),
        entry: at,
    })
}

/// Whether a CodecID has the form the registry gives them: `V_VP8`, `A_PCM/INT/LIT`.
fn is_codec(codec_id: &str, kind: Option<Kind>) -> bool {
    let prefix = match kind {
        Some(Kind::Video) => "V_",
        Some(Kind::Audio) => "A_",
        None => "",
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '/' | '.' | '-');
    codec_id.starts_with(prefix) && codec_id.len() > prefix.len() && codec_id.chars().all(allowed)
}

/// Whether a decoder can use an identification header (RFC 7845 section 5.1).
fn is_opus_head(head: &[u8]) -> bool {
    let (Some(version), Some(channels), Some(family)) = (head.get(8), head.get(9), head.get(18)) else {
        return false;
    };
    let channels_fit = *channels > 0 && (*family != 0 || *channels <= 2);
    head.starts_with(b"OpusHead") && *version < 16 && channels_fit
}

/// Info, as far as it matters here.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Info {
    /// Length of a tick.
    pub tick: Duration,
    /// Duration, if it tells one.
    pub duration: Option<Duration>,
    /// All children but Duration, checksums and Voids, as they are.
    pub kept: Vec<u8>,
}

/// The length of a tick, from the payload of Info; `None` if it makes no sense.
pub fn tick(payload: &[u8]) -> Option<Duration> {
    info(payload).map(|info| info.tick)
}

/// Reads the payload of Info; `None` if it makes no sense.
pub(super) fn info(payload: &[u8]) -> Option<Info> {
    let nanos = child(payload, id::TIMESTAMP_SCALE).map_or(Some(1_000_000), read_uint)?;
    let ticks = child(payload, id::DURATION).map_or(Some(0.0), read_float)?;
    let seconds = ticks * nanos as f64 / 1e9;
    let mut kept = Vec::new();
    for child in children(payload) {
        if !matches!(child.id, id::DURATION | id::CRC_32 | id::VOID) {
            kept.extend_from_slice(&payload[child.at]);
        }
    }
    // A tick longer than a second would be no way to time frames.
    let right = (1..=1_000_000_000).contains(&nanos) && is_well_formed(payload);
    right.then_some(Info {
        tick: Duration::from_nanos(nanos),
        duration: Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero()),
        kept,
    })
}
