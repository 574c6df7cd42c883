//! File names of stream names: the one encoder (D1).

use crate::base::id::{RecordingId, StreamName};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

/// What a file's name ends with until it is sealed.
pub const PART: &str = ".part";
/// The folder, inside the recordings', of what could not be repaired.
pub const QUARANTINE: &str = "quarantine";

/// What the name of a copy ends with while a repair writes it beside the original.
pub const COPY: &str = ".repair.tmp";

/// Whether a file is what a crash left of [`replace`](crate::disk::replace), or of a repair: the original is still there.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && (name.ends_with(".json.tmp") || name.ends_with(COPY))
}

/// Bytes of a stream's name in a file name. With start, id and the longest suffix a file name stays
/// far below the 255 bytes that file systems allow.
const MAX_NAME: usize = 120;
/// Behind a name that was cut: `~` and 8 hexadecimal digits of the whole name's SHA-256, so that
/// names with a common beginning stay different.
const HASH_LEN: usize = 9;

/// `<name>_<UTC start>_<id>`: what a recording's file and manifest are called, but for the suffix.
pub(crate) fn stem(name: &StreamName, started: Timestamp, id: &RecordingId) -> String {
    format!("{}_{}_{id}", encode(name.as_str()), started.strftime("%Y%m%dT%H%M%SZ"))
}

/// A name as a part of a file name: as it is (in NFC, since some file systems compare that way),
/// but for what would be a path, an option, a hidden file or unreadable in a listing.
fn encode(name: &str) -> String {
    let safe = |c: char| match c {
        '/' | '\\' => '_',
        // Line and paragraph separators, and marks that turn the direction of what follows.
        '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '_',
        c if c.is_control() => '_',
        c => c,
    };
    let mut encoded: String = name.nfc().map(safe).collect();
    if encoded.starts_with(['.', '-']) {
        encoded.replace_range(..1, "_");
    }
    if encoded.len() > MAX_NAME {
        let whole = (0..=MAX_NAME - HASH_LEN).rev().find(|end| encoded.is_char_boundary(*end));
        encoded.truncate(whole.unwrap_or(0));
        let hash = Sha256::digest(name);
        encoded.push_str(&format!("~{:02x}{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2], hash[3]));
    }
    encoded
}

/// The id in a file's name, if it has the form this module gives.
pub(crate) fn id_of(file: &str) -> Option<RecordingId> {
    let (stem, _) = file.rsplit_once('.')?;
    stem.rsplit_once('_')?.1.parse().ok()
}

/// The name and the start in a file's name, if it has the form this module gives. The name is as it
/// was encoded.
pub(crate) fn parts_of(file: &str) -> Option<(StreamName, Timestamp)> {
    let (stem, _) = file.rsplit_once('.')?;
    let (rest, id) = stem.rsplit_once('_')?;
    let (name, start) = rest.rsplit_once('_')?;
    id.parse::<RecordingId>().ok()?;
    let start = DateTime::strptime("%Y%m%dT%H%M%SZ", start).ok()?.to_zoned(TimeZone::UTC).ok()?;
    Some((name.parse().ok()?, start.timestamp()))
}

/// The stream that a file of ours is of: its title, and only without one what the file is called, which may be what
/// becomes of another stream's name.
pub(crate) fn stream_of(file: &str, title: Option<&str>) -> Option<StreamName> {
    let title = title.and_then(|title| title.parse().ok());
    title.or_else(|| parts_of(file).map(|(named, _)| named))
}

/// Whether a name can be a file in a folder and nothing else.
pub(crate) fn is_plain(file: &str) -> bool {
    !file.is_empty() && !file.starts_with('.') && !file.contains(['/', '\\', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stem_of(name: &str) -> String {
        let at: Timestamp = "2026-11-21T10:15:00.120Z".parse().unwrap();
        stem(&name.parse().unwrap(), at, &"01k0x700000000000000000000".parse().unwrap())
    }

    #[test]
    fn names_stay_readable() {
        for (name, file) in [
            ("interview 7", "interview 7_20261121T101500Z_01k0x700000000000000000000"),
            ("$HOME \"x\" 'y'", "$HOME \"x\" 'y'_20261121T101500Z_01k0x700000000000000000000"),
            ("собеседование", "собеседование_20261121T101500Z_01k0x700000000000000000000"),
            ("cafe\u{301}", "café_20261121T101500Z_01k0x700000000000000000000"),
            ("a\u{202e}b", "a_b_20261121T101500Z_01k0x700000000000000000000"),
        ] {
            assert_eq!(stem_of(name), file);
        }
        let (name, start) = parts_of(&(stem_of("a_b.c") + ".webm")).unwrap();
        assert_eq!((name.as_str(), start.to_string().as_str()), ("a_b.c", "2026-11-21T10:15:00Z"));
        assert_eq!(parts_of("holiday_2026.webm"), None);
        assert_eq!(id_of(&(stem_of("a_b.c") + ".webm")).unwrap().as_str(), "01k0x700000000000000000000");
    }

    #[test]
    fn names_that_are_cut_stay_different() {
        let (one, two) = ("ж".repeat(63) + "1", "ж".repeat(63) + "2");
        assert_ne!(encode(&one), encode(&two));
        assert!(encode(&one).len() <= MAX_NAME, "{} bytes", encode(&one).len());
    }

    #[test]
    fn a_file_gives_the_name_back_that_it_was_recorded_under() {
        for name in ["cafe\u{301}", "a\u{202e}b", &"ж".repeat(63), "plain"] {
            let file = stem_of(name) + ".webm";
            assert_eq!(stream_of(&file, Some(name)).unwrap().as_str(), name);
            assert_eq!(stream_of("renamed.webm", Some(name)).unwrap().as_str(), name);
            assert_eq!(stream_of(&file, None).unwrap().as_str(), encode(name), "what is left without it");
        }
        assert_eq!(stream_of("holiday.webm", None), None);
    }

    proptest! {
        #[test]
        fn every_name_makes_a_safe_file_name(name in "\\PC{1,128}|[\\x00-\\xff./\\\\-]{1,40}|[\u{958}\u{fb2c}a]{1,42}") {
            // The encoder is safe by itself, whatever the type that feeds it promises.
            let encoded = encode(&name);
            let file = format!("{encoded}_20261121T101500Z_01k0x700000000000000000000.webm.part");
            prop_assert!(!file.contains(['/', '\\']) && !file.chars().any(char::is_control), "{file:?}");
            prop_assert!(!file.starts_with(['.', '-']), "{file:?}");
            prop_assert!(encoded.len() <= MAX_NAME && file.len() <= 255, "{} bytes", file.len());
            prop_assert!(is_plain(&file));
        }

        #[test]
        fn long_names_that_differ_stay_different(a in "\\PC{30,40}", b in "\\PC{30,40}") {
            let differ = a.nfc().ne(b.nfc());
            let (a, b) = (format!("{}{a}", "x".repeat(100)), format!("{}{b}", "x".repeat(100)));
            prop_assert!(!differ || encode(&a) != encode(&b), "{a:?} and {b:?}");
        }

        #[test]
        fn names_that_need_no_change_are_kept_in_nfc(name in "[\\p{L}\\p{N} _.,()'$-]{1,40}") {
            let kept: String = name.nfc().collect();
            let plain = !kept.starts_with(['.', '-']) && kept.len() <= MAX_NAME;
            prop_assert!(!plain || encode(&name) == kept, "{:?} became {:?}", kept, encode(&name));
            prop_assert_eq!(encode(&encode(&name)), encode(&name));
        }

        #[test]
        fn a_recordings_file_tells_its_name_its_start_and_its_id(name in "\\PC{1,128}", seconds in 0..4_000_000_000i64) {
            let Ok(name) = name.parse::<StreamName>() else { return Ok(()) };
            let start = Timestamp::from_second(seconds).unwrap();
            let (id, other) = (RecordingId::new(start), RecordingId::new(start));
            let file = format!("{}.webm", stem(&name, start, &id));
            let (read, at) = parts_of(&file).unwrap();
            prop_assert_eq!((read.as_str(), at), (&*encode(name.as_str()), start));
            prop_assert_eq!(id_of(&file), Some(id.clone()));
            prop_assert_ne!(stem(&name, start, &other), stem(&name, start, &id), "of the same second");
        }
    }
}
