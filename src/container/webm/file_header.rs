//! Where to begin reading: a file's header, and its index (RFC 9559 section 22).

use crate::container::webm::ebml::{Header, child, children, id, read_header, read_uint};
use crate::container::webm::tracks::{self, ForeignTrack};
use crate::container::webm::{Item, Reader};
use std::time::Duration;

/// What stands before the clusters of a file.
#[derive(Clone, Debug)]
pub struct FileHeader {
    /// Where the Segment's payload begins, from which the index counts.
    pub segment_at: u64,
    /// Where the Segment ends, if it tells.
    pub end: Option<u64>,
    /// Where Cues is, counted from there, if SeekHead says so.
    pub cues_at: Option<u64>,
    /// Length of a tick.
    pub tick: Duration,
    /// The tracks.
    pub tracks: Vec<ForeignTrack>,
    /// Bytes up to the end of Tracks. A reader that has been given them goes on at any cluster.
    pub len: u64,
}

impl FileHeader {
    /// Reads it out of a file's first bytes; `None` if Tracks is not whole in them.
    pub fn find(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(None);
        reader.push(bytes);
        let (mut segment, mut cues_at, mut tick) = (None, None, Duration::from_millis(1));
        loop {
            match reader.read().ok()?? {
                Item::Segment { payload_at, size } => segment = Some((payload_at, size)),
                Item::Element { id: id::SEEK_HEAD, payload, .. } => {
                    cues_at = cues_position(payload).or(cues_at)
                }
                Item::Element { id: id::INFO, payload, .. } => tick = tracks::tick(payload)?,
                Item::Element { id: id::TRACKS, payload, at } => {
                    let tracks = tracks::tracks(payload)?;
                    let (segment_at, size) = segment?;
                    let end = size.map(|size| segment_at.saturating_add(size));
                    return Some(Self { segment_at, end, cues_at, tick, tracks, len: at.end });
                }
                Item::Cluster { .. } | Item::Damaged { .. } => return None,
                _ => {}
            }
        }
    }
}

/// SeekPosition of Cues in a SeekHead.
pub(super) fn cues_position(seek_head: &[u8]) -> Option<u64> {
    let is_cues = |seek: &[u8]| child(seek, id::SEEK_ID).and_then(read_uint) == Some(id::CUES);
    let seeks = children(seek_head).filter(|seek| seek.id == id::SEEK);
    let seek = seeks.map(|seek| seek.payload).find(|seek| is_cues(seek))?;
    child(seek, id::SEEK_POSITION).and_then(read_uint)
}

/// The length of the Cues element that begins with these bytes, its id and size with it; `None` if there is none
/// of known size.
pub fn cues_len(bytes: &[u8]) -> Option<u64> {
    match read_header(bytes) {
        Header::Valid { id: id::CUES, size: Some(size), len } => size.checked_add(len as u64),
        _ => None,
    }
}

/// The positions of clusters that the payload of Cues names.
pub(super) fn cluster_positions(cues: &[u8]) -> Vec<u64> {
    let points = children(cues).filter(|point| point.id == id::CUE_POINT);
    let positions = points.flat_map(|point| {
        let of_tracks = children(point.payload).filter(|child| child.id == id::CUE_TRACK_POSITIONS);
        of_tracks.filter_map(|track| child(track.payload, id::CUE_CLUSTER_POSITION).and_then(read_uint))
    });
    positions.collect()
}

/// Where the cluster begins, from the Segment's payload on, that a whole Cues element names for a track as the
/// last not after `ticks`.
pub fn cluster_before(cues: &[u8], track: u64, ticks: u64) -> Option<u64> {
    let cues = child(cues, id::CUES)?;
    let points = children(cues).filter(|point| point.id == id::CUE_POINT);
    let positions_of_track = points.filter_map(|point| {
        let time = child(point.payload, id::CUE_TIME).and_then(read_uint).filter(|time| *time <= ticks)?;
        let mut positions = children(point.payload)
            .filter(|child| child.id == id::CUE_TRACK_POSITIONS)
            .map(|child| child.payload);
        let of_track = |entry: &&[u8]| child(entry, id::CUE_TRACK).and_then(read_uint) == Some(track);
        let entry = positions.find(of_track)?;
        Some((time, child(entry, id::CUE_CLUSTER_POSITION).and_then(read_uint)?))
    });
    positions_of_track.max().map(|(_, position)| position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::webm::ebml::{master, uint};
    use crate::media::{Codec, Track};

    #[test]
    fn the_header_of_a_file_tells_its_tracks_and_where_its_index_is() {
        let tracks = [Track::video(Codec::Mjpeg)];
        let head =
            crate::container::Head { tracks: &tracks, sizes: &[None], uid: 7, unix_nanos: 0, title: "" };
        let (mut bytes, layout) = crate::container::webm::head(&head);
        let sealed =
            crate::container::webm::seal(&layout, &crate::container::webm::Index::new(&tracks), layout.len);
        for patch in sealed.patches {
            bytes[patch.at as usize..patch.at as usize + patch.bytes.len()].copy_from_slice(&patch.bytes);
        }
        let header = FileHeader::find(&bytes).unwrap();
        assert_eq!(header.end, Some(layout.len));
        assert_eq!((header.segment_at, header.tracks[0].codec_id.as_str()), (layout.segment_at, "V_MJPEG"));
        assert!(
            (1..bytes.len()).all(|end| FileHeader::find(&bytes[..end]).is_none() || end as u64 >= header.len)
        );
    }

    #[test]
    fn the_last_cluster_that_is_not_after_a_time_is_found() {
        let mut cues = Vec::new();
        master(&mut cues, id::CUES, |out| {
            for (time, track, position) in [(0, 1, 100), (250, 1, 300), (260, 2, 301), (500, 1, 500)] {
                master(out, id::CUE_POINT, |out| {
                    uint(out, id::CUE_TIME, time);
                    master(out, id::CUE_TRACK_POSITIONS, |out| {
                        uint(out, id::CUE_TRACK, track);
                        uint(out, id::CUE_CLUSTER_POSITION, position);
                    });
                });
            }
        });
        assert_eq!(cues_len(&cues[..8]), Some(cues.len() as u64));
        assert_eq!(cues_len(&children(&cues).next().unwrap().payload[..8]), None);
        for (ticks, position) in [(0, 100), (249, 100), (250, 300), (499, 300), (9999, 500)] {
            assert_eq!(cluster_before(&cues, 1, ticks), Some(position), "{ticks}");
        }
        assert_eq!(cluster_before(&cues, 3, 9999), None);
    }
}
