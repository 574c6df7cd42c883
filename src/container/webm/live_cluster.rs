//! WebM for viewers: clusters that are whole the moment they are made, and can begin at any time.

use crate::container::Container;
use crate::container::webm::ebml::{element, id, uint};
use crate::media::{Codec, Track};
use ebml_iterable::tools::Vint;

/// Where in a cluster of [`live_cluster`] its timestamp stands: 8 bytes, big-endian. Each viewer's time
/// begins at 0, and only these bytes differ between them.
pub const TIMESTAMP_AT: usize = 4 + 4 + 2;

/// A frame in a cluster for viewers; times in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct LiveBlock<'a> {
    /// TrackNumber.
    pub number: u64,
    /// Time, by which it is ordered; not before the cluster's.
    pub tick: u64,
    /// How long before that it is shown: see [`crate::media::Frame::early`].
    pub early: u64,
    /// Can be decoded without any other frame.
    pub keyframe: bool,
    /// How long it is shown. Players of Media Source Extensions guess where there is none, and take a
    /// picture that comes later than twice the guess for a cut, after which only a keyframe will do.
    pub duration: Option<u64>,
    /// The codec's bitstream.
    pub data: &'a [u8],
    /// BlockAdditions and DiscardPadding: see [`crate::media::Frame::side_data`].
    pub side_data: &'a [u8],
}

/// A whole cluster of blocks in the order of their times, which Media Source Extensions demand.
pub fn live_cluster(start: u64, blocks: &[LiveBlock<'_>]) -> Vec<u8> {
    let payload: usize = blocks.iter().map(|block| block.data.len() + block.side_data.len() + 32).sum();
    let mut out = Vec::with_capacity(TIMESTAMP_AT + 8 + payload);
    out.extend_from_slice(&(id::CLUSTER as u32).to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[id::TIMESTAMP as u8, 0x88]);
    out.extend_from_slice(&start.to_be_bytes());
    for block in blocks {
        write_block(&mut out, start, block);
    }
    let size = (out.len() - 8) as u32;
    out[4..8].copy_from_slice(&(size | 0x1000_0000).to_be_bytes());
    out
}

fn write_block(out: &mut Vec<u8>, start: u64, block: &LiveBlock<'_>) {
    let offset = (block.tick - start) as i64 - block.early as i64;
    let offset = offset.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
    let mut frame = block.number.as_vint().expect("a track number fits");
    frame.extend_from_slice(&offset.to_be_bytes());
    if block.duration.is_none() && block.side_data.is_empty() {
        frame.push(if block.keyframe { 0x80 } else { 0 });
        header(out, id::SIMPLE_BLOCK, frame.len() + block.data.len());
        out.extend_from_slice(&frame);
        out.extend_from_slice(block.data);
        return;
    }
    frame.push(0);
    let mut fields = Vec::with_capacity(12 + block.side_data.len());
    if let Some(duration) = block.duration {
        uint(&mut fields, id::BLOCK_DURATION, duration);
    }
    fields.extend_from_slice(block.side_data);
    if !block.keyframe {
        // What it refers to does not matter, but that it does makes it no keyframe.
        element(&mut fields, id::REFERENCE_BLOCK, &[0xff]);
    }
    let mut open = Vec::with_capacity(8);
    header(&mut open, id::BLOCK, frame.len() + block.data.len());
    header(out, id::BLOCK_GROUP, open.len() + frame.len() + block.data.len() + fields.len());
    for part in [&open[..], &frame, block.data, &fields] {
        out.extend_from_slice(part);
    }
}

/// An id of one byte, and a size.
fn header(out: &mut Vec<u8>, id: u64, size: usize) {
    out.push(id as u8);
    out.extend((size as u64).as_vint().expect("a block's size fits"));
}

/// The MIME type with the codecs of the tracks (RFC 6381), as `MediaSource.isTypeSupported` takes it.
pub fn mime_with_codecs(tracks: &[Track]) -> String {
    let mut in_order: Vec<&Track> = tracks.iter().collect();
    // Pictures first, as is the custom.
    in_order.sort_by_key(|track| track.codec.kind() as u8);
    let codecs: Vec<String> = in_order.into_iter().map(codec_string).collect();
    format!("{};codecs=\"{}\"", Container::of(tracks).mime(tracks), codecs.join(","))
}

fn codec_string(track: &Track) -> String {
    match (track.codec, &track.private[..]) {
        (Codec::Vp8, _) => "vp8".to_owned(),
        (Codec::Vp9, _) => "vp9".to_owned(),
        // AV1 in ISO BMFF, section 2.3: profile and level, tier and depth.
        (Codec::Av1, [_, profile_level, flags, ..]) => {
            let (profile, level) = (profile_level >> 5, profile_level & 0x1f);
            let tier = if flags & 0x80 == 0 { 'M' } else { 'H' };
            let depth = match flags & 0x60 {
                0 => 8,
                0x40 => 10,
                _ => 12,
            };
            format!("av01.{profile}.{level:02}{tier}.{depth:02}")
        }
        (Codec::Av1, _) => "av01.0.08M.08".to_owned(),
        (Codec::H264, [_, profile, constraints, level, ..]) => {
            format!("avc1.{profile:02x}{constraints:02x}{level:02x}")
        }
        (Codec::H264, _) => "avc1.42e01f".to_owned(),
        (Codec::Mjpeg, _) => "mjpeg".to_owned(),
        (Codec::Opus, _) => "opus".to_owned(),
        (Codec::Aac, _) => "mp4a.40.2".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Head;
    use crate::container::webm::{Item, Reader, head};
    use bytes::Bytes;

    #[test]
    fn a_cluster_for_viewers_is_read_back_with_its_keyframes_and_durations() {
        let tracks = [Track::opus(2), Track::video(Codec::Vp8)];
        let (mut bytes, _) =
            head(&Head { tracks: &tracks, sizes: &[None, None], uid: 1, unix_nanos: 0, title: "" });
        let block = |number, tick, keyframe, duration, data| {
            let (early, side_data) = (0, &[][..]);
            LiveBlock { number, tick, early, keyframe, duration, data, side_data }
        };
        let long = vec![7; 20_000];
        let blocks = [
            block(2, 1000, true, Some(33), &long[..]),
            block(1, 1005, true, None, b"sound"),
            block(2, 1033, false, Some(2000), b"picture"),
        ];
        bytes.extend(live_cluster(1000, &blocks));
        let mut reader = Reader::new(None);
        reader.push(&bytes);
        reader.finish();
        let mut found = Vec::new();
        while let Some(item) = reader.read().unwrap() {
            if let Item::Block(block) = item {
                let len = block.frames().next().unwrap().len();
                found.push((block.track, block.time, block.keyframe, block.duration, len));
            }
        }
        let expected =
            [(2, 1000, true, Some(33), 20_000), (1, 1005, true, None, 5), (2, 1033, false, Some(2000), 7)];
        assert_eq!(found, expected);
    }

    #[test]
    fn browsers_are_told_the_codecs_in_their_words() {
        let with = |codec, private: &'static [u8]| Track {
            private: Bytes::from_static(private),
            ..Track::video(codec)
        };
        let table = [
            (vec![Track::opus(2), Track::video(Codec::Vp8)], "video/webm;codecs=\"vp8,opus\""),
            (vec![Track::opus(1)], "audio/webm;codecs=\"opus\""),
            (vec![with(Codec::Av1, &[0x81, 0x08, 0x0c, 0])], "video/webm;codecs=\"av01.0.08M.08\""),
            (vec![with(Codec::H264, &[1, 0x42, 0xc0, 0x1f])], "video/x-matroska;codecs=\"avc1.42c01f\""),
        ];
        for (tracks, mime) in table {
            assert_eq!(mime_with_codecs(&tracks), mime);
        }
    }
}
