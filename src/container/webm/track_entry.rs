//! What a TrackEntry says beside its codec and size (RFC 9559 section 5.1.4.1): carried from a
//! publisher's container into ours as it is, for it changes what people see and hear.

use crate::container::webm::ebml::{
    Child, child, children, element, id, is_well_formed, read_float, read_string, read_uint, uint,
};
use crate::media::{Codec, Kind, Track, opus};
use bytes::Bytes;

/// More than this is not carried on; only a projection's mesh comes near it.
const MAX_LEN: usize = 32 << 10;
/// Decoding of Opus converges within 80 ms after a seek (RFC 7845 section 4.2; WebM's Opus mapping).
const OPUS_SEEK_PRE_ROLL_NS: u64 = 80_000_000;
/// Opus' only rate.
const OPUS_RATE: f64 = 48_000.0;
/// AlphaMode, as a file of ours has it.
pub(super) const ALPHA: [u8; 4] = [0x53, 0xc0, 0x81, 1];

/// What is carried on of the payload of a stranger's TrackEntry. A display size that only repeats the
/// picture's goes: the picture's may change, and the other would then distort it.
pub(super) fn carried(payload: &[u8]) -> Bytes {
    let video = child(payload, id::VIDEO).unwrap_or_default();
    let plain = displays_its_pixels(video);
    kept(payload, |id| plain && matches!(id, id::DISPLAY_WIDTH | id::DISPLAY_HEIGHT | id::DISPLAY_UNIT))
}

/// What is carried on of one of ours: what was put into it.
pub(super) fn found(payload: &[u8]) -> Bytes {
    kept(payload, |_| false)
}

/// In one form: first the entry's own children, then those of Video or Audio, AlphaMode last.
fn kept(payload: &[u8], drop: impl Fn(u64) -> bool) -> Bytes {
    let private = child(payload, id::CODEC_PRIVATE).unwrap_or_default();
    let (mut out, mut inner) = (Vec::new(), None);
    // A sound track with settings of pictures gets none of them when it is written.
    let kind = child(payload, id::CODEC_ID)
        .and_then(|codec| Codec::of_matroska_id(read_string(codec)))
        .map(Codec::kind);
    let strange = match kind {
        Some(Kind::Video) => Some(id::AUDIO),
        Some(Kind::Audio) => Some(id::VIDEO),
        None => None,
    };
    for child in children(payload) {
        match child.id {
            id if Some(id) == strange => {}
            id @ (id::VIDEO | id::AUDIO) => {
                inner.get_or_insert_with(|| (id, settings(child.payload, &drop)));
            }
            _ if is_written_anyway(&child, private) || !is_sound(&child) => {}
            _ if out.len() + child.at.len() <= MAX_LEN => out.extend_from_slice(&payload[child.at]),
            _ => {}
        }
    }
    if let Some((id, inner)) = inner.filter(|(_, inner)| !inner.is_empty()) {
        element(&mut out, id, &inner);
    }
    out.into()
}

fn settings(payload: &[u8], drop: impl Fn(u64) -> bool) -> Vec<u8> {
    let (mut out, mut alpha) = (Vec::new(), false);
    for child in children(payload) {
        match child.id {
            id::VOID | id::CRC_32 | id::FRAME_RATE => {}
            id::PIXEL_WIDTH | id::PIXEL_HEIGHT | id::CHANNELS => {}
            id::SAMPLING_FREQUENCY if read_float(child.payload) == Some(OPUS_RATE) => {}
            id::ALPHA_MODE => alpha = read_uint(child.payload) == Some(1),
            id if drop(id) || !is_sound(&child) => {}
            _ if out.len() + child.at.len() <= MAX_LEN => out.extend_from_slice(&payload[child.at]),
            _ => {}
        }
    }
    if alpha {
        out.extend_from_slice(&ALPHA);
    }
    out
}

/// What each file has of its own, what refers to things that aren't in ours, and what ours says in any
/// case.
fn is_written_anyway(child: &Child<'_>, private: &[u8]) -> bool {
    let number = || read_uint(child.payload);
    match child.id {
        id::LANGUAGE => read_string(child.payload) == "und",
        id::CODEC_DELAY => number() == Some(delay(private)),
        id::SEEK_PRE_ROLL => number() == Some(OPUS_SEEK_PRE_ROLL_NS),
        id::VOID | id::CRC_32 | id::TRACK_NUMBER | id::TRACK_UID | id::TRACK_TYPE | id::FLAG_LACING => true,
        id::CODEC_ID | id::CODEC_PRIVATE | id::CONTENT_ENCODINGS | id::ATTACHMENT_LINK => true,
        id::DEFAULT_DURATION | id::DEFAULT_DECODED_FIELD_DURATION | id::TRACK_TIMESTAMP_SCALE => true,
        id::MIN_CACHE | id::MAX_CACHE => true,
        id::TRACK_OVERLAY | id::TRACK_TRANSLATE | id::TRACK_OPERATION => true,
        id => id::TRICK_TRACKS.contains(&id),
    }
}

fn delay(private: &[u8]) -> u64 {
    opus::delay(private).as_nanos() as u64
}

/// Whether the lengths in it are right: readers of our file may trust them more than we do.
fn is_sound(child: &Child<'_>) -> bool {
    const MASTERS: [u64; 4] =
        [id::COLOUR, id::MASTERING_METADATA, id::PROJECTION, id::BLOCK_ADDITION_MAPPING];
    let inside = || is_well_formed(child.payload) && children(child.payload).all(|child| is_sound(&child));
    !MASTERS.contains(&child.id) || inside()
}

/// Whether the display size says nothing that the picture's doesn't.
fn displays_its_pixels(video: &[u8]) -> bool {
    let number = |id| child(video, id).and_then(read_uint);
    let [bottom, top, left, right] = id::PIXEL_CROP.map(|id| number(id).unwrap_or(0));
    let is = |shown, pixels, one, other| {
        let pixels = number(pixels).unwrap_or(0).saturating_sub(one).saturating_sub(other);
        number(shown).is_none_or(|shown| shown == pixels)
    };
    number(id::DISPLAY_UNIT).unwrap_or(0) == 0
        && is(id::DISPLAY_WIDTH, id::PIXEL_WIDTH, left, right)
        && is(id::DISPLAY_HEIGHT, id::PIXEL_HEIGHT, top, bottom)
}

/// Whether a track's own part of an entry has a Language.
pub(super) fn says_language(track: &Track) -> bool {
    child(&track.entry, id::LANGUAGE).is_some()
}

/// Appends a track's own part of an entry, but for Video or Audio, and what Opus needs there.
pub(super) fn write_outer(out: &mut Vec<u8>, track: &Track) {
    let said = |id| child(&track.entry, id).is_some();
    let outer = children(&track.entry).filter(|child| !matches!(child.id, id::VIDEO | id::AUDIO));
    outer.for_each(|child| out.extend_from_slice(&track.entry[child.at]));
    if track.codec == Codec::Opus {
        if !said(id::CODEC_DELAY) {
            uint(out, id::CODEC_DELAY, delay(&track.private));
        }
        if !said(id::SEEK_PRE_ROLL) {
            uint(out, id::SEEK_PRE_ROLL, OPUS_SEEK_PRE_ROLL_NS);
        }
    }
}

/// Appends the payload of Audio.
pub(super) fn write_audio(out: &mut Vec<u8>, track: &Track, channels: u8) {
    let inner = inner(track);
    if child(inner, id::SAMPLING_FREQUENCY).is_none() {
        element(out, id::SAMPLING_FREQUENCY, &OPUS_RATE.to_be_bytes());
    }
    uint(out, id::CHANNELS, u64::from(channels));
    out.extend_from_slice(inner);
}

/// Whether it announces an alpha channel.
pub(super) fn has_alpha(track: &Track) -> bool {
    // It stands last.
    children(inner(track)).last().is_some_and(|last| last.id == id::ALPHA_MODE)
}

/// Its own part of Video or Audio.
pub(super) fn inner(track: &Track) -> &[u8] {
    let id = if track.codec.kind() == Kind::Video { id::VIDEO } else { id::AUDIO };
    child(&track.entry, id).unwrap_or_default()
}

/// Whether pictures of both tracks can follow each other in one file: which way up they are, and what
/// part of them is shown in which proportions, stands in its head.
pub fn is_shown_alike(one: &Track, other: &Track) -> bool {
    let geometry = |track| {
        let shapes = |child: &Child<'_>| {
            let shown = [id::DISPLAY_WIDTH, id::DISPLAY_HEIGHT, id::DISPLAY_UNIT];
            let other = [id::PROJECTION, id::STEREO_MODE];
            let told = [&shown[..], &other, &id::PIXEL_CROP].concat().contains(&child.id);
            told && is_told(child)
        };
        let mut all: Vec<_> =
            children(inner(track)).filter(shapes).map(|child| (child.id, child.payload)).collect();
        all.sort_unstable();
        all
    };
    geometry(one) == geometry(other)
}

/// Whether a field of a picture's shape is another than without it: 0 is as good as nothing.
fn is_told(child: &Child<'_>) -> bool {
    match child.id {
        id::PROJECTION => children(child.payload).any(|child| is_told(&child)),
        _ => child.payload.iter().any(|byte| *byte != 0),
    }
}

/// The same track for live viewers: a browser's parser of Media Source Extensions gives up at elements
/// that are not on its list, and waits for an alpha channel that is announced.
pub fn for_live(track: &Track, alpha: bool) -> Track {
    let keep = |payload: &[u8]| {
        let mut out = Vec::new();
        let known = children(payload).filter(|child| is_known_to_browsers(child.id));
        known.filter(|child| alpha || child.id != id::ALPHA_MODE).for_each(|child| {
            out.extend_from_slice(&payload[child.at]);
        });
        out
    };
    let mut entry = Vec::new();
    for child in children(&track.entry) {
        match child.id {
            id @ (id::VIDEO | id::AUDIO) => {
                let inner = keep(child.payload);
                if !inner.is_empty() {
                    element(&mut entry, id, &inner);
                }
            }
            id::MAX_BLOCK_ADDITION_ID if !alpha => {}
            _ => entry.extend(keep(&track.entry[child.at])),
        }
    }
    Track { entry: entry.into(), ..track.clone() }
}

fn is_known_to_browsers(id: u64) -> bool {
    let outer = [id::FLAG_ENABLED, id::FLAG_DEFAULT, id::FLAG_FORCED, id::NAME, id::LANGUAGE];
    let coding = [id::CODEC_DELAY, id::SEEK_PRE_ROLL, id::MAX_BLOCK_ADDITION_ID];
    let sound = [id::SAMPLING_FREQUENCY, id::OUTPUT_SAMPLING_FREQUENCY, id::BIT_DEPTH];
    let shown = [id::DISPLAY_WIDTH, id::DISPLAY_HEIGHT, id::DISPLAY_UNIT, id::FLAG_INTERLACED];
    let pictures = [id::STEREO_MODE, id::ALPHA_MODE, id::COLOUR, id::PROJECTION];
    [&outer[..], &coding, &sound, &shown, &pictures, &id::PIXEL_CROP].concat().contains(&id)
}

/// A checksum of what only the publisher's container knew, for TrackUID; `None` where there is nothing
/// of the kind. FNV-1a: one changed byte always changes it.
pub(super) fn checksum(track: &Track) -> Option<u32> {
    let channels = track.channels.max(1);
    let plain = || opus::head(channels, opus::pre_skip(&track.private));
    let is_plain = track.codec == Codec::Opus && (track.private.is_empty() || track.private == plain());
    let private = if is_plain { &[] } else { &track.private[..] };
    if track.entry.is_empty() && (is_plain || track.codec != Codec::Opus) {
        return None;
    }
    let bytes = [&channels].into_iter().chain(private).chain(&track.entry);
    let sum = bytes
        .fold(0xcbf2_9ce4_8422_2325u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    Some((sum ^ sum >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::webm::ebml::master;

    fn entry(build: impl FnOnce(&mut Vec<u8>), video: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        uint(&mut out, id::TRACK_NUMBER, 9);
        build(&mut out);
        master(&mut out, id::VIDEO, |out| {
            uint(out, id::PIXEL_WIDTH, 720);
            uint(out, id::PIXEL_HEIGHT, 576);
            video(out);
        });
        out
    }

    fn put(out: &mut Vec<u8>, id: u64, payload: &[u8]) {
        element(out, id, payload);
    }

    fn track(entry: Vec<u8>) -> Track {
        Track { entry: carried(&entry), ..Track::video(Codec::Vp9) }
    }

    #[test]
    fn a_display_size_is_carried_on_where_it_is_not_the_pictures() {
        for (width, height, kept) in [(1024, 576, true), (720, 576, false)] {
            let track = track(entry(
                |_| {},
                |out| {
                    uint(out, id::DISPLAY_WIDTH, width);
                    uint(out, id::DISPLAY_HEIGHT, height);
                },
            ));
            assert_eq!(child(inner(&track), id::DISPLAY_WIDTH).is_some(), kept, "{width}x{height}");
            assert_eq!(is_shown_alike(&track, &Track::video(Codec::Vp9)), !kept);
        }
    }

    #[test]
    fn a_name_or_an_alpha_channel_begins_no_other_file_but_a_turned_camera_does() {
        let plain = Track::video(Codec::Vp9);
        let zeros = track(entry(
            |_| {},
            |out| {
                uint(out, id::FLAG_INTERLACED, 2);
                uint(out, id::STEREO_MODE, 0);
                master(out, id::PROJECTION, |out| put(out, 0x7675, &0f32.to_be_bytes()));
            },
        ));
        assert!(is_shown_alike(&zeros, &plain));
        let named = track(entry(
            |out| put(out, id::NAME, b"front"),
            |out| {
                uint(out, id::ALPHA_MODE, 1);
            },
        ));
        assert!(has_alpha(&named) && is_shown_alike(&named, &plain));
        let turned = track(entry(
            |_| {},
            |out| {
                master(out, id::PROJECTION, |out| put(out, 0x7675, &90f32.to_be_bytes()));
            },
        ));
        assert!(!is_shown_alike(&turned, &plain));
    }

    #[test]
    fn viewers_get_what_browsers_know() {
        let full = track(entry(
            |out| {
                element(out, id::NAME, b"front");
                element(out, 0x22_b59d, b"de");
                element(out, 0x4ffe, &[0; 8]);
            },
            |out| {
                uint(out, id::STEREO_MODE, 1);
                uint(out, id::ALPHA_MODE, 1);
            },
        ));
        let ids = |track: &Track| children(&track.entry).map(|child| child.id).collect::<Vec<_>>();
        assert_eq!(ids(&full), [id::NAME, 0x22_b59d, 0x4ffe, id::VIDEO]);
        let live = for_live(&full, false);
        assert_eq!(ids(&live), [id::NAME, id::VIDEO]);
        assert!(!has_alpha(&live) && has_alpha(&for_live(&full, true)));
        assert!(is_shown_alike(&live, &full));
    }

    #[test]
    fn lengths_that_lie_are_not_carried_on() {
        let lying = entry(|_| {}, |out| put(out, id::COLOUR, &[0x55, 0xb1, 0x89, 1]));
        assert!(carried(&lying).is_empty());
        let long = entry(|out| put(out, id::NAME, &vec![b'n'; MAX_LEN]), |_| {});
        assert!(carried(&long).is_empty());
    }
}
