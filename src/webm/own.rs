//! Our own heads, found again in a file: where the room is that sealing patches.

use crate::media::{Kind, Size, Track, opus};
use crate::webm::ebml::{id, void};
use crate::webm::foreign::SIDES;
use crate::webm::walk::{self, Child, Head, child, children, is_filled, text, uint};
use crate::webm::write::{
    DEFAULT_DURATION_LEN, DEFAULT_DURATION_START, DURATION_LEN, Layout, MAKER, SEEK_LEN, TrackLayout,
    ebml_header, seek, track_entry, track_uid,
};
use crate::webm::{Container, codec_of};
use bytes::Bytes;

/// No head is longer: two tracks make 450 bytes.
pub const MAX_HEAD: usize = 64 << 10;

/// A file that [`super::head`] began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Where what is patched lies.
    pub layout: Layout,
    /// The tracks that have an entry, in the layout's order.
    pub tracks: Vec<Track>,
}

impl Own {
    /// Finds the layout in the first bytes of a file (up to [`MAX_HEAD`]). Every field is compared with
    /// what would be written there, so that a head with a flipped bit is not taken for a good one.
    pub fn find(bytes: &[u8]) -> Option<Self> {
        let header = |container| {
            let mut start = Vec::new();
            ebml_header(&mut start, container);
            bytes.strip_prefix(&start[..]).map(|rest| (container, start.len(), rest))
        };
        let (container, start, rest) = header(Container::Webm).or_else(|| header(Container::Matroska))?;
        let Head::Is { id: id::SEGMENT, size, len: 12 } = walk::head(rest) else { return None };
        let segment_at = start + 12;
        let top: Vec<_> = children(&bytes[segment_at..]).take(3).collect();
        let [seeks, info, tracks] = &top[..] else { return None };
        if (seeks.id, info.id, tracks.id) != (id::SEEK_HEAD, id::INFO, id::TRACKS) {
            return None;
        }
        let in_file = |child: &Child<'_>| segment_at + child.at.end - child.payload.len();
        seeks_are_right(seeks.payload, info.at.start, tracks.at.start).then_some(())?;
        let duration_at = in_file(info) + duration_in(info.payload)?;
        let (known, entries) = entries(tracks.payload, in_file(tracks) as u64)?;
        // A Matroska file may have lost the very track that made it one: a Void is in its place.
        let fits = container == Container::Matroska || Container::of(&known) == container;
        fits.then_some(())?;
        let layout = Layout {
            segment_size_at: segment_at as u64 - 8,
            segment_at: segment_at as u64,
            seek_cues_at: (in_file(seeks) + 2 * SEEK_LEN) as u64,
            duration_at: duration_at as u64,
            tracks: entries,
            len: (segment_at + tracks.at.end) as u64,
        };
        let all_there = size.is_none_or(|size| size >= tracks.at.end as u64);
        all_there.then_some(Self { layout, tracks: known })
    }

    /// Index of the track with this number.
    pub(super) fn track(&self, number: u64) -> Option<usize> {
        self.layout.tracks.iter().position(|track| track.number == number)
    }
}

fn seeks_are_right(payload: &[u8], info_at: usize, tracks_at: usize) -> bool {
    let expected = [seek(id::INFO, info_at as u64), seek(id::TRACKS, tracks_at as u64)].concat();
    let Some(third) = payload.strip_prefix(&expected[..]) else { return false };
    // The entry for Cues, but for its position, or the room for it.
    let cues = seek(id::CUES, 0);
    third.len() == SEEK_LEN && (third == void(SEEK_LEN) || third[..13] == cues[..13])
}

/// Where in Info the room for Duration begins.
fn duration_in(payload: &[u8]) -> Option<usize> {
    let all: Vec<_> = children(payload).collect();
    let ids: Vec<_> = all.iter().map(|child| child.id).collect();
    let [scale, duration, date, muxing, writing, title @ ..] = &all[..] else { return None };
    let known = matches!(
        ids[..5],
        [id::TIMESTAMP_SCALE, id::VOID | id::DURATION, id::DATE_UTC, id::MUXING_APP, id::WRITING_APP]
    ) && title.len() <= 1
        && title.iter().all(|title| title.id == id::TITLE);
    let ours = [muxing, writing].iter().all(|app| app.payload.starts_with(MAKER.as_bytes()));
    let right = uint(scale.payload) == Some(1_000_000)
        && duration.at.len() == DURATION_LEN
        && date.payload.len() == 8
        && is_filled(payload);
    (known && ours && right).then_some(duration.at.start)
}

/// The tracks, and where their entries are; a track that never had a frame left a Void.
fn entries(payload: &[u8], at: u64) -> Option<(Vec<Track>, Vec<TrackLayout>)> {
    let (mut tracks, mut layouts, mut file) = (Vec::new(), Vec::<TrackLayout>::new(), None);
    for child in children(payload).filter(|child| child.id != id::VOID) {
        let payload_at = at + (child.at.end - child.payload.len()) as u64;
        let (track, number, uid, size) = entry(&child)?;
        let (mut expected, places) = track_entry(&track, number, uid, size);
        if let Some((at, ..)) = places
            && let Some(told) = child.payload.get(at..at + DEFAULT_DURATION_LEN)
            && told.starts_with(&DEFAULT_DURATION_START)
        {
            // Sealed: the room holds the value.
            expected[at..at + DEFAULT_DURATION_LEN].copy_from_slice(told);
        }
        if expected != child.payload {
            return None;
        }
        // All UIDs of a file are made of one number.
        if uid != track_uid(*file.get_or_insert(uid ^ number), number, track.codec) {
            return None;
        }
        tracks.push(track);
        layouts.push(TrackLayout {
            number,
            entry: at + child.at.start as u64..at + child.at.end as u64,
            default_duration_at: places.map(|(place, ..)| payload_at + place as u64),
            size_at: places.map(|(_, w, h)| (payload_at + w as u64, payload_at + h as u64)),
        });
    }
    let numbered = layouts.windows(2).all(|pair| pair[0].number < pair[1].number);
    (is_filled(payload) && numbered && !tracks.is_empty()).then_some((tracks, layouts))
}

fn entry(entry: &Child<'_>) -> Option<(Track, u64, u64, Size)> {
    let number = |payload, id| child(payload, id).and_then(uint);
    let codec = codec_of(text(child(entry.payload, id::CODEC_ID)?))?;
    let private = child(entry.payload, id::CODEC_PRIVATE).unwrap_or_default();
    let side = |id| {
        let value = number(child(entry.payload, id::VIDEO)?, id)?;
        u32::try_from(value).ok().filter(|side| SIDES.contains(side))
    };
    let (track, size) = match codec.kind() {
        Kind::Video => {
            let private = Bytes::copy_from_slice(private);
            let size = Size { width: side(id::PIXEL_WIDTH)?, height: side(id::PIXEL_HEIGHT)? };
            (Track { private, ..Track::video(codec) }, size)
        }
        Kind::Audio => {
            let channels = number(child(entry.payload, id::AUDIO)?, id::CHANNELS)?;
            let channels = u8::try_from(channels).ok()?;
            // Made anew from the one number that varies, so that every other field is compared.
            let private = match opus::pre_skip(private) {
                0 => Bytes::new(),
                pre_skip => opus::head(channels, pre_skip),
            };
            (Track { private, ..Track::opus(channels) }, Size { width: 0, height: 0 })
        }
    };
    let track_number = number(entry.payload, id::TRACK_NUMBER).filter(|number| *number > 0)?;
    (entry.id == id::TRACK_ENTRY).then_some(())?;
    Some((track, track_number, number(entry.payload, id::TRACK_UID)?, size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Codec;
    use crate::webm::{Index, seal};

    const TRACKS: [Track; 2] = [Track::video(Codec::Vp8), Track::opus(2)];

    fn ours() -> (Vec<u8>, Layout) {
        let sizes = [Some(Size { width: 640, height: 360 }), None];
        super::super::head(&super::super::Head {
            tracks: &TRACKS,
            sizes: &sizes,
            uid: 7,
            unix_nanos: 1 << 60,
            title: "",
        })
    }

    #[test]
    fn our_head_is_found_again_before_and_after_sealing() {
        let (mut bytes, layout) = ours();
        let found = Own::find(&bytes).unwrap();
        assert_eq!((&found.layout, &found.tracks[..]), (&layout, &TRACKS[..]));
        let sealed = seal(&layout, &Index::new(&TRACKS), layout.len);
        for patch in sealed.patches {
            bytes[patch.at as usize..patch.at as usize + patch.bytes.len()].copy_from_slice(&patch.bytes);
        }
        assert_eq!(Own::find(&bytes).unwrap(), found);
    }

    #[test]
    fn heads_of_every_codec_are_found_again_in_the_container_that_may_hold_them() {
        let private = Bytes::from_static(b"\x01configuration");
        for codec in [Codec::Vp9, Codec::Av1, Codec::H264, Codec::Mjpeg] {
            let video = Track { private: private.clone(), ..Track::video(codec) };
            let tracks = [video, Track { private: opus::head(2, 312), ..Track::opus(2) }];
            let head = super::super::Head {
                tracks: &tracks,
                sizes: &[None, None],
                uid: 7,
                unix_nanos: 0,
                title: "",
            };
            let (bytes, layout) = super::super::head(&head);
            let found = Own::find(&bytes).unwrap();
            assert_eq!((&found.layout, &found.tracks[..]), (&layout, &tracks[..]));
            let webm = bytes.windows(4).any(|bytes| bytes == b"webm");
            assert_eq!(webm, matches!(codec, Codec::Vp9 | Codec::Av1), "{codec:?}");
        }
    }

    #[test]
    fn the_largest_pictures_a_codec_can_tell_of_make_no_file_unreadable() {
        let sizes = [Some(Size { width: 1 << 16, height: 1 << 16 })];
        let tracks = [Track::video(Codec::Vp9)];
        let head = super::super::Head { tracks: &tracks, sizes: &sizes, uid: 7, unix_nanos: 0, title: "" };
        let (bytes, layout) = super::super::head(&head);
        assert_eq!(Own::find(&bytes).map(|found| found.layout), Some(layout.clone()));
        let entries = &bytes[layout.tracks[0].entry.start as usize..];
        let read = super::super::foreign::tracks(entries);
        assert_eq!(read.map(|tracks| tracks[0].size), Some((1 << 16, 1 << 16)));
    }

    #[test]
    fn no_flipped_bit_that_matters_goes_unnoticed() {
        let (bytes, layout) = ours();
        // What may differ: the Segment's size, the patched room, the date, and the text behind a name.
        let mut unnoticed = Vec::new();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                if Own::find(&flipped).is_some_and(|found| found.layout != layout || found.tracks != TRACKS) {
                    unnoticed.push((at, bit));
                }
            }
        }
        assert_eq!(unnoticed, []);
        assert!((0..bytes.len()).all(|end| Own::find(&bytes[..end]).is_none()), "a head that is cut off");
    }
}
