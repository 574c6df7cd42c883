//! What a file's Info says of where it comes from (RFC 9559 section 5.1.2).

use crate::container::webm::ebml::{EPOCH_NS, Header, child, id, read_header, read_string};
use crate::container::webm::write::MAKER;

/// Where a file comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Whether it says that it is one of ours.
    pub ours: bool,
    /// The wall time of its time 0, in nanoseconds since 1970.
    pub unix_nanos: Option<i128>,
    /// Its Title: of our own files the stream's name.
    pub title: Option<String>,
}

impl Origin {
    /// Reads it in the first bytes of a file, up to [`super::MAX_HEAD`].
    pub fn find(bytes: &[u8]) -> Option<Self> {
        let Header::Valid { id: id::EBML, size: Some(size), len } = read_header(bytes) else { return None };
        let segment = bytes.get(len.checked_add(usize::try_from(size).ok()?)?..)?;
        let Header::Valid { id: id::SEGMENT, len, .. } = read_header(segment) else { return None };
        let info = child(&segment[len..], id::INFO)?;
        let date = child(info, id::DATE_UTC).and_then(|date| date.try_into().ok()).map(i64::from_be_bytes);
        let title = child(info, id::TITLE).map(read_string).filter(|title| !title.is_empty());
        Some(Self {
            ours: child(info, id::MUXING_APP).is_some_and(|app| app.starts_with(MAKER.as_bytes())),
            unix_nanos: date.map(|date| i128::from(date) + EPOCH_NS),
            title: title.map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Track;

    #[test]
    fn a_head_tells_its_streams_name_as_it_was_given_and_when_it_began() {
        for title in ["cafe\u{301} \u{202e}x", &"ж".repeat(64)] {
            let (tracks, sizes, unix_nanos) = ([Track::opus(2)], [None], 1_795_270_500_120_000_001);
            let (bytes, _) = super::super::head(&crate::container::Head {
                tracks: &tracks,
                sizes: &sizes,
                uid: 1,
                unix_nanos,
                title,
            });
            let origin = Origin { ours: true, unix_nanos: Some(unix_nanos), title: Some(title.to_owned()) };
            assert_eq!(Origin::find(&bytes), Some(origin));
            assert!(super::super::OwnHead::find(&bytes).is_some(), "a title makes it no foreign file");
        }
        assert_eq!(Origin::find(b"\x1a\x45\xdf\xa3\xff"), None);
    }
}
