//! Our own heads, found again in a file: where the space is that sealing patches.

use crate::container::Container;
use crate::container::webm::Stamp;
use crate::container::webm::ebml::{
    Child, Header, child, children, id, is_well_formed, read_header, read_string, read_uint, void,
};
use crate::container::webm::track_entry::{self, ALPHA};
use crate::container::webm::tracks::SIDES;
use crate::container::webm::write::{
    DEFAULT_DURATION_LEN, DEFAULT_DURATION_START, DURATION_LEN, Layout, MAKER, Offsets, SEEK_LEN,
    TrackLayout, ebml_header, random_bits, seek, track_entry, track_uid,
};
use crate::media::{Codec, Kind, Size, Track, opus};
use bytes::Bytes;

/// No head is longer: two tracks make 450 bytes.
pub const MAX_HEAD: usize = 64 << 10;

/// A file that [`super::head`] began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnHead {
    /// Where what is patched lies.
    pub layout: Layout,
    /// The tracks that have an entry, in the layout's order.
    pub tracks: Vec<Track>,
}

impl OwnHead {
    /// Finds the layout in the first bytes of a file (up to [`MAX_HEAD`]). Every field is compared with
    /// what would be written there, so that a head with a flipped bit is not taken for a good one.
    pub fn find(bytes: &[u8]) -> Option<Self> {
        let header = |container| {
            let mut start = Vec::new();
            ebml_header(&mut start, container);
            bytes.strip_prefix(&start[..]).map(|rest| (container, start.len(), rest))
        };
        let (container, start, rest) = header(Container::Webm).or_else(|| header(Container::Matroska))?;
        let Header::Valid { id: id::SEGMENT, size, len: 12 } = read_header(rest) else { return None };
        let segment_at = start + 12;
        let top: Vec<_> = children(&bytes[segment_at..]).take(3).collect();
        let [seeks, info, tracks] = &top[..] else { return None };
        if (seeks.id, info.id, tracks.id) != (id::SEEK_HEAD, id::INFO, id::TRACKS) {
            return None;
        }
        let in_file = |child: &Child<'_>| segment_at + child.at.end - child.payload.len();
        let reserved = reserved_entries(seeks.payload, info.at.start, tracks.at.start)?;
        let duration_at = in_file(info) + duration_in(info.payload)?;
        let (known, entries) = entries(tracks.payload, in_file(tracks) as u64)?;
        // A Matroska file may have lost the very track that made it one: a Void is in its place.
        let fits = container == Container::Matroska || Container::of(&known) == container;
        fits.then_some(())?;
        let layout = Layout {
            segment_size_at: segment_at as u64 - 8,
            segment_at: segment_at as u64,
            seek_cues_at: (in_file(seeks) + 2 * SEEK_LEN) as u64,
            seek_tags_at: (reserved == 2).then_some((in_file(seeks) + 3 * SEEK_LEN) as u64),
            duration_at: duration_at as u64,
            stamp: Stamp::of(info.payload),
            tracks: entries,
            len: (segment_at + tracks.at.end) as u64,
        };
        let all_there = size.is_none_or(|size| size >= tracks.at.end as u64);
        all_there.then_some(Self { layout, tracks: known })
    }

    pub(super) fn track(&self, number: u64) -> Option<usize> {
        self.layout.tracks.iter().position(|track| track.number == number)
    }
}

/// How many entries a SeekHead has, or has space for, behind those of Info and Tracks: Cues, and in all but
/// the oldest files Tags. `None` if it is not as we would have written it.
fn reserved_entries(payload: &[u8], info_at: usize, tracks_at: usize) -> Option<usize> {
    let expected = [seek(id::INFO, info_at as u64), seek(id::TRACKS, tracks_at as u64)].concat();
    let rest = payload.strip_prefix(&expected[..])?;
    // The entry, but for its position, or the space for it.
    let right = |(entry, id): (&[u8], u64)| entry == void(SEEK_LEN) || entry[..13] == seek(id, 0)[..13];
    let reserved = rest.len() / SEEK_LEN;
    let all_right = rest.chunks_exact(SEEK_LEN).zip([id::CUES, id::TAGS]).all(right);
    (rest.len().is_multiple_of(SEEK_LEN) && (1..=2).contains(&reserved) && all_right).then_some(reserved)
}

/// Where in Info the space for Duration begins.
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
    let right = read_uint(scale.payload) == Some(1_000_000)
        && duration.at.len() == DURATION_LEN
        && date.payload.len() == 8
        && is_well_formed(payload);
    (known && ours && right).then_some(duration.at.start)
}

/// The tracks, and where their entries are; a track that never had a frame left a Void.
fn entries(payload: &[u8], at: u64) -> Option<(Vec<Track>, Vec<TrackLayout>)> {
    let (mut tracks, mut layouts) = (Vec::new(), Vec::<TrackLayout>::new());
    // All UIDs of a file are made of one number: its bits, as far as they are known.
    let mut file = (0, 0);
    for child in children(payload).filter(|child| child.id != id::VOID) {
        let payload_at = at + (child.at.end - child.payload.len()) as u64;
        let (track, number, uid, size) = entry(&child)?;
        let (mut expected, offsets) = track_entry(&track, number, uid, size);
        if let Some(offsets) = &offsets {
            seal_alike(&mut expected, child.payload, offsets);
        }
        let bits = random_bits(&track);
        let one_number = (uid ^ number ^ file.0) & bits & file.1 == 0;
        if expected != child.payload || !one_number || uid != track_uid(uid ^ number, number, &track) {
            return None;
        }
        file = (file.0 & file.1 | (uid ^ number) & bits & !file.1, file.1 | bits);
        tracks.push(track);
        let entry = at + child.at.start as u64..at + child.at.end as u64;
        layouts.push(Offsets::layout(offsets, (number, uid), entry, payload_at));
    }
    let numbered = layouts.windows(2).all(|pair| pair[0].number < pair[1].number);
    (is_well_formed(payload) && numbered && !tracks.is_empty()).then_some((tracks, layouts))
}

/// Does to an entry what sealing did to it: filled the space for DefaultDuration, or covered an alpha
/// channel that never came.
fn seal_alike(expected: &mut [u8], sealed: &[u8], offsets: &Offsets) {
    let told = |at: usize, len: usize| sealed.get(at..at + len);
    let at = offsets.default_duration;
    if let Some(told) =
        told(at, DEFAULT_DURATION_LEN).filter(|told| told.starts_with(&DEFAULT_DURATION_START))
    {
        expected[at..at + DEFAULT_DURATION_LEN].copy_from_slice(told);
    }
    if let Some(at) = offsets.alpha
        && told(at, ALPHA.len()) == Some(&void(ALPHA.len()))
    {
        expected[at..at + ALPHA.len()].copy_from_slice(&void(ALPHA.len()));
    }
}

fn entry(entry: &Child<'_>) -> Option<(Track, u64, u64, Size)> {
    let number = |payload, id| child(payload, id).and_then(read_uint);
    let codec = Codec::of_matroska_id(read_string(child(entry.payload, id::CODEC_ID)?))?;
    let private = child(entry.payload, id::CODEC_PRIVATE).unwrap_or_default();
    let side = |id| {
        let value = number(child(entry.payload, id::VIDEO)?, id)?;
        u32::try_from(value).ok().filter(|side| SIDES.contains(side))
    };
    let (track, size) = match codec.kind() {
        Kind::Video => {
            let size = Size { width: side(id::PIXEL_WIDTH)?, height: side(id::PIXEL_HEIGHT)? };
            (Track { private: Bytes::copy_from_slice(private), ..Track::video(codec) }, size)
        }
        Kind::Audio => {
            let channels = number(child(entry.payload, id::AUDIO)?, id::CHANNELS)?;
            let channels = u8::try_from(channels).ok()?;
            // Without anything to tell, the track came without a header of its own.
            let told = (private != opus::head(channels, 0)).then(|| Bytes::copy_from_slice(private));
            let private = told.unwrap_or_default();
            (Track { private, ..Track::opus(channels) }, Size { width: 0, height: 0 })
        }
    };
    let track = Track { entry: track_entry::found(&with_alpha(entry.payload)), ..track };
    let track_number = number(entry.payload, id::TRACK_NUMBER).filter(|number| *number > 0)?;
    (entry.id == id::TRACK_ENTRY).then_some(())?;
    Some((track, track_number, number(entry.payload, id::TRACK_UID)?, size))
}

/// An entry's payload with the alpha channel that sealing covered: a Void that is the last child of its Video.
fn with_alpha(payload: &[u8]) -> Vec<u8> {
    let mut payload = payload.to_vec();
    let last = child(&payload, id::VIDEO).and_then(|video| children(video).last());
    let is_void = last.is_some_and(|last| last.id == id::VOID);
    if is_void && payload.ends_with(&void(ALPHA.len())) {
        let at = payload.len() - ALPHA.len();
        payload[at..].copy_from_slice(&ALPHA);
    }
    payload
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::webm::ebml::{element, master, uint as uint_element};
    use crate::container::webm::{Index, seal};

    const TRACKS: [Track; 2] = [Track::video(Codec::Vp8), Track::opus(2)];

    fn ours() -> (Vec<u8>, Layout) {
        let sizes = [Some(Size { width: 640, height: 360 }), None];
        super::super::head(&crate::container::Head {
            tracks: &TRACKS,
            sizes: &sizes,
            uid: 7,
            unix_nanos: 1 << 60,
            title: "",
        })
    }

    #[test]
    fn a_colour_that_ends_like_an_alpha_channel_is_none() {
        for end in [void(ALPHA.len()), ALPHA.to_vec()] {
            let mut entry = Vec::new();
            master(&mut entry, id::VIDEO, |video| {
                element(video, id::COLOUR, &end);
            });
            let track = Track { entry: entry.into(), ..Track::video(Codec::Vp8) };
            let head = crate::container::Head {
                tracks: std::slice::from_ref(&track),
                sizes: &[Some(Size { width: 640, height: 360 })],
                uid: 7,
                unix_nanos: 1 << 60,
                title: "",
            };
            let (mut bytes, layout) = super::super::head(&head);
            assert_eq!(OwnHead::find(&bytes).unwrap().tracks, std::slice::from_ref(&track));
            for patch in seal(&layout, &Index::new(std::slice::from_ref(&track)), layout.len).patches {
                bytes[patch.at as usize..patch.at as usize + patch.bytes.len()].copy_from_slice(&patch.bytes);
            }
            let colour = [&[0x55, 0xb0, 0x84][..], &end].concat();
            assert!(bytes.windows(colour.len()).any(|window| window == colour), "it is written over");
        }
    }

    #[test]
    fn our_head_is_found_again_before_and_after_sealing() {
        let (mut bytes, layout) = ours();
        let found = OwnHead::find(&bytes).unwrap();
        assert_eq!((&found.layout, &found.tracks[..]), (&layout, &TRACKS[..]));
        let sealed = seal(&layout, &Index::new(&TRACKS), layout.len);
        for patch in sealed.patches {
            bytes[patch.at as usize..patch.at as usize + patch.bytes.len()].copy_from_slice(&patch.bytes);
        }
        assert_eq!(OwnHead::find(&bytes).unwrap(), found);
    }

    #[test]
    fn a_head_without_space_for_tags_as_older_versions_wrote_it_is_found_too() {
        let (bytes, layout) = ours();
        let at = layout.segment_at as usize;
        let (seeks_end, shift) = (at + 5 + 4 * SEEK_LEN, SEEK_LEN as u64);
        let info = 5 + 3 * SEEK_LEN as u64;
        let tracks = layout.tracks[0].entry.start - layout.segment_at;
        let tracks_at =
            (0..tracks).rev().find(|start| bytes[at + *start as usize..].starts_with(&[0x16, 0x54]));
        let seeks =
            [seek(id::INFO, info), seek(id::TRACKS, tracks_at.unwrap() - shift), void(SEEK_LEN)].concat();
        let mut old = bytes[..at].to_vec();
        super::super::ebml::element(&mut old, id::SEEK_HEAD, &seeks);
        old.extend_from_slice(&bytes[seeks_end..]);
        let found = OwnHead::find(&old).unwrap();
        assert_eq!((found.layout.seek_tags_at, found.layout.len), (None, layout.len - shift));
        assert_eq!(found.layout.duration_at, layout.duration_at - shift);
        let index = Index::new(&TRACKS);
        assert!(seal(&found.layout, &index, found.layout.len).append.is_empty());
    }

    #[test]
    fn heads_of_every_codec_are_found_again_in_the_container_that_may_hold_them() {
        let private = Bytes::from_static(b"\x01configuration");
        for codec in [Codec::Vp9, Codec::Av1, Codec::H264, Codec::Mjpeg] {
            let video = Track { private: private.clone(), ..Track::video(codec) };
            let tracks = [video, Track { private: opus::head(2, 312), ..Track::opus(2) }];
            let head = crate::container::Head {
                tracks: &tracks,
                sizes: &[None, None],
                uid: 7,
                unix_nanos: 0,
                title: "",
            };
            let (bytes, layout) = super::super::head(&head);
            let found = OwnHead::find(&bytes).unwrap();
            assert_eq!((&found.layout, &found.tracks[..]), (&layout, &tracks[..]));
            let webm = bytes.windows(4).any(|bytes| bytes == b"webm");
            assert_eq!(webm, matches!(codec, Codec::Vp9 | Codec::Av1), "{codec:?}");
        }
    }

    /// Tracks whose publisher's container said something of them.
    fn described() -> [Track; 2] {
        let (mut picture, mut sound) = (Vec::new(), Vec::new());
        element(&mut picture, id::NAME, b"front");
        master(&mut picture, id::VIDEO, |out| {
            uint_element(out, id::STEREO_MODE, 1);
            uint_element(out, id::ALPHA_MODE, 1);
        });
        element(&mut sound, id::LANGUAGE, b"ger");
        let (picture, sound) = (track_entry::carried(&picture), track_entry::carried(&sound));
        let mut head = opus::head(2, 312).to_vec();
        head[16] = 7;
        [
            Track { entry: picture, ..Track::video(Codec::Vp8) },
            Track { entry: sound, private: head.into(), ..Track::opus(2) },
        ]
    }

    fn described_head() -> (Vec<u8>, Layout) {
        let sizes = [Some(Size { width: 640, height: 360 }), None];
        let tracks = described();
        super::super::head(&crate::container::Head {
            tracks: &tracks,
            sizes: &sizes,
            uid: 7,
            unix_nanos: 0,
            title: "",
        })
    }

    #[test]
    fn what_a_publisher_said_is_found_again_and_so_is_an_alpha_channel_that_never_came() {
        let (mut bytes, layout) = described_head();
        let found = OwnHead::find(&bytes).unwrap();
        assert_eq!((&found.layout, &found.tracks[..]), (&layout, &described()[..]));
        let mut index = Index::new(&found.tracks);
        index.tracks.iter_mut().for_each(|track| track.frames = 1);
        for patch in seal(&layout, &index, layout.len).patches {
            bytes[patch.at as usize..patch.at as usize + patch.bytes.len()].copy_from_slice(&patch.bytes);
        }
        assert!(!bytes.windows(4).any(|window| window == ALPHA), "an alpha channel is announced");
        assert_eq!(OwnHead::find(&bytes).unwrap(), found);
    }

    #[test]
    fn the_largest_pictures_a_codec_can_tell_of_make_no_file_unreadable() {
        let sizes = [Some(Size { width: 1 << 16, height: 1 << 16 })];
        let tracks = [Track::video(Codec::Vp9)];
        let head =
            crate::container::Head { tracks: &tracks, sizes: &sizes, uid: 7, unix_nanos: 0, title: "" };
        let (bytes, layout) = super::super::head(&head);
        assert_eq!(OwnHead::find(&bytes).map(|found| found.layout), Some(layout.clone()));
        let entries = &bytes[layout.tracks[0].entry.start as usize..];
        let read = super::super::tracks::tracks(entries);
        assert_eq!(read.map(|tracks| tracks[0].size), Some((1 << 16, 1 << 16)));
    }

    #[test]
    fn no_flipped_bit_that_matters_goes_unnoticed() {
        for ((bytes, layout), tracks) in [(ours(), TRACKS), (described_head(), described())] {
            // What may differ: the Segment's size, the patched space, the date, and the text behind a name.
            let mut unnoticed = Vec::new();
            for at in 0..bytes.len() {
                for bit in 0..8 {
                    let mut flipped = bytes.clone();
                    flipped[at] ^= 1 << bit;
                    let Some(OwnHead { layout: mut found, tracks: known }) = OwnHead::find(&flipped) else {
                        continue;
                    };
                    found.stamp = layout.stamp.clone();
                    if found != layout || known != tracks {
                        unnoticed.push((at, bit));
                    }
                }
            }
            assert_eq!(unnoticed, []);
            assert!(
                (0..bytes.len()).all(|end| OwnHead::find(&bytes[..end]).is_none()),
                "a head that is cut off"
            );
        }
    }
}
