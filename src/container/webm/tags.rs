//! Statistics of a file's tracks, as Tags with the names that mkvmerge gave them and other tools read
//! (RFC 9559 section 5.1.8; the names are no part of it).

use crate::container::webm::ebml::{
    Child, EPOCH_NS, child, children, element, id, is_well_formed, master, read_string, read_uint, uint,
};
use jiff::Timestamp;
use std::time::Duration;

/// Bytes that the statistics of our own files take at most: two tracks of 400.
pub const MAX_TAGS: u64 = 1024;
/// TargetTypeValue of a whole (RFC 9559 section 5.1.8.1.1.1).
const WHOLE: u64 = 50;
/// Those of the names that speak of the track.
const NAMES: [&str; 4] = ["BPS", "DURATION", "NUMBER_OF_FRAMES", "NUMBER_OF_BYTES"];
/// Which of the names a Tag has.
const LIST: &str = "_STATISTICS_TAGS";
/// WritingApp and DateUTC of the file that they were written for: readers believe them only where
/// Info says the same.
const APP: &str = "_STATISTICS_WRITING_APP";
const DATE: &str = "_STATISTICS_WRITING_DATE_UTC";

/// Which application wrote a file, and when, by its Info.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// WritingApp; empty if there is none.
    pub app: String,
    /// DateUTC in nanoseconds since 2001.
    pub date: Option<i64>,
}

impl Stamp {
    /// Out of the payload of Info.
    pub(super) fn of(info: &[u8]) -> Self {
        let date = child(info, id::DATE_UTC).and_then(|date| Some(i64::from_be_bytes(date.try_into().ok()?)));
        Self { app: child(info, id::WRITING_APP).map_or("", read_string).to_owned(), date }
    }

    /// As mkvmerge writes it.
    fn date(&self) -> Option<String> {
        let date = Timestamp::from_nanosecond(i128::from(self.date?) + EPOCH_NS).ok()?;
        Some(date.strftime("%Y-%m-%d %H:%M:%S").to_string())
    }
}

/// What there is of a track in a file. Silence that fills holes counts, as all that is in the file does:
/// readers take these numbers for what they would find if they read all of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Statistics {
    /// TrackUID.
    pub uid: u64,
    /// Frames.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// From the start of the first to the end of the last.
    pub duration: Duration,
}

/// A Tag for each of these tracks that has frames and a UID to be named by: the payload of Tags.
pub(super) fn of_tracks(tracks: impl Iterator<Item = Statistics>, stamp: &Stamp) -> Vec<u8> {
    let mut out = Vec::new();
    for track in tracks.filter(|track| track.frames > 0 && track.uid > 0) {
        master(&mut out, id::TAG, |out| {
            master(out, id::TARGETS, |out| {
                uint(out, id::TARGET_TYPE_VALUE, WHOLE);
                uint(out, id::TAG_TRACK_UID, track.uid);
            });
            for (name, value) in NAMES.iter().zip(track.values()) {
                simple(out, name, &value);
            }
            let date = stamp.date();
            let app = Some(&stamp.app).filter(|app| !app.is_empty());
            for (name, value) in [(APP, app), (DATE, date.as_ref())] {
                value.into_iter().for_each(|value| simple(out, name, value));
            }
            simple(out, LIST, &NAMES.join(" "));
        });
    }
    out
}

impl Statistics {
    /// In the order of [`NAMES`].
    fn values(&self) -> [String; 4] {
        let millis = self.duration.as_millis() as u64;
        let bits_per_second = self.bytes.saturating_mul(8_000).checked_div(millis).unwrap_or(0);
        let (seconds, nanos) = (self.duration.as_secs(), self.duration.subsec_nanos());
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let clock = format!("{hours:02}:{minutes:02}:{seconds:02}.{nanos:09}");
        [bits_per_second.to_string(), clock, self.frames.to_string(), self.bytes.to_string()]
    }
}

fn simple(out: &mut Vec<u8>, name: &str, value: &str) {
    master(out, id::SIMPLE_TAG, |out| {
        element(out, id::TAG_NAME, name.as_bytes());
        element(out, id::TAG_STRING, value.as_bytes());
    });
}

/// The payload of any Tags without statistics of tracks and without checksums, which would no longer
/// be right; `None` if it makes no sense.
pub(super) fn without_statistics(tags: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for tag in children(tags).filter(|tag| tag.id != id::CRC_32) {
        let target = child(tag.payload, id::TARGETS).unwrap_or_default();
        let of_track = child(target, id::TAG_TRACK_UID).and_then(read_uint).is_some_and(|uid| uid > 0);
        if tag.id != id::TAG || !of_track || !is_well_formed(tag.payload) {
            out.extend_from_slice(&tags[tag.at]);
            continue;
        }
        let is_kept = |field: &Child<'_>| match field.id {
            id::CRC_32 => false,
            id::SIMPLE_TAG => !is_statistic(child(field.payload, id::TAG_NAME).map_or("", read_string)),
            _ => true,
        };
        let kept: Vec<_> = children(tag.payload).filter(is_kept).collect();
        if kept.iter().any(|field| field.id == id::SIMPLE_TAG) {
            master(&mut out, id::TAG, |out| {
                kept.into_iter().for_each(|field| out.extend_from_slice(&tag.payload[field.at]));
            });
        }
    }
    is_well_formed(tags).then_some(out)
}

fn is_statistic(name: &str) -> bool {
    NAMES.contains(&name) || [LIST, APP, DATE].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(uid: u64, frames: u64, bytes: u64, millis: u64) -> Statistics {
        Statistics { uid, frames, bytes, duration: Duration::from_millis(millis) }
    }

    fn words(tags: &[u8]) -> Vec<(String, String)> {
        let simple = |tag: Child<'_>| {
            let word = |id| read_string(child(tag.payload, id).unwrap()).to_owned();
            (word(id::TAG_NAME), word(id::TAG_STRING))
        };
        let all = children(tags).flat_map(|tag| children(tag.payload));
        all.filter(|field| field.id == id::SIMPLE_TAG).map(simple).collect()
    }

    #[test]
    fn statistics_have_the_words_that_mkvmerge_writes() {
        let stamp = Stamp { app: "onrecord 0.1.0".to_owned(), date: Some(1_000_000_000) };
        let tracks = [told(7, 30, 4_000, 3_723_040), told(8, 0, 0, 0), told(0, 5, 5, 5), told(9, 1, 5, 0)];
        let tags = of_tracks(tracks.into_iter(), &stamp);
        let expected = [
            ("BPS", "8"),
            ("DURATION", "01:02:03.040000000"),
            ("NUMBER_OF_FRAMES", "30"),
            ("NUMBER_OF_BYTES", "4000"),
            ("_STATISTICS_WRITING_APP", "onrecord 0.1.0"),
            ("_STATISTICS_WRITING_DATE_UTC", "2001-01-01 00:00:01"),
            ("_STATISTICS_TAGS", "BPS DURATION NUMBER_OF_FRAMES NUMBER_OF_BYTES"),
        ];
        let found = words(&tags);
        assert_eq!(found[..7], expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!((found.len(), &found[7].1[..]), (14, "0"), "a frame of no length has no rate");
    }

    #[test]
    fn the_space_kept_for_statistics_is_never_too_small() {
        let stamp = Stamp { app: "onrecord 100.100.100".to_owned(), date: Some(i64::MAX) };
        let most = told(u64::MAX, u64::MAX, u64::MAX, u64::MAX);
        let tags = of_tracks([most, most].into_iter(), &stamp);
        println!("{} bytes at worst", tags.len());
        assert!(tags.len() as u64 + 12 <= MAX_TAGS);
    }

    #[test]
    fn of_any_tags_all_but_statistics_of_tracks_is_kept() {
        let mut tags = of_tracks([told(7, 1, 1, 1)].into_iter(), &Stamp::default());
        let statistics = tags.len();
        let tag = |tags: &mut Vec<u8>, uid: Option<u64>, words: &[(&str, &str)]| {
            master(tags, id::TAG, |out| {
                master(out, id::TARGETS, |out| {
                    uid.into_iter().for_each(|uid| uint(out, id::TAG_TRACK_UID, uid))
                });
                words.iter().for_each(|(name, value)| simple(out, name, value));
            });
        };
        tag(&mut tags, Some(7), &[("ENCODER", "Lavc"), ("DURATION", "00:00:09.000000000")]);
        tag(&mut tags, None, &[("DURATION", "of a song")]);
        let kept = without_statistics(&tags).unwrap();
        let expected = [("ENCODER", "Lavc"), ("DURATION", "of a song")];
        assert_eq!(words(&kept), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(without_statistics(&tags[..statistics]), Some(Vec::new()));
        assert_eq!(without_statistics(&tags[..statistics - 1]), None, "cut");
    }
}
