//! WebM in pieces → frames on one clock.
//!
//! A MediaRecorder that starts again begins with another header: its frames go on behind the newest
//! one, as the [`Clock`] places them. Pure: arrival is an argument.

use crate::container::webm::{self, ForeignTrack, Item, MAX_PENDING, ReadError, Reader, StoredBlock};
use crate::ingest::chunks::UploadError;
use crate::ingest::chunks::clock::{Clock, Stamp};
use crate::media::{Codec, Frame, Gap, GapReason, Kind, Size, Track, h264, opus};
use bytes::Bytes;
use std::time::Duration;

/// Bytes of memory of frames that wait for H.264's parameter sets; an encoder that has none by then is
/// told.
const MAX_HELD: usize = MAX_PENDING;
/// Bytes of memory of what comes out at a time: the largest element and a Blob's slice of real frames stay
/// far below. Frames of a byte each, which take a hundred times what they brought, don't.
const MAX_OUT: usize = 2 * MAX_PENDING;
/// Unknown elements in a row. A recorder may write some between those of the specification; rubbish
/// often reads like a long row of small ones.
const MAX_UNKNOWN: usize = 64;

#[derive(Debug, PartialEq)]
pub(crate) enum Out {
    /// Frames from here on are of these tracks.
    Tracks(Vec<Track>),
    /// One of them.
    Frame(Frame),
    /// The recorder's clock was set before the next frame of a track.
    Gap(Gap),
}

/// A track of the input, and where it goes.
#[derive(Debug)]
struct InputTrack {
    declared: ForeignTrack,
    codec: Codec,
    /// Index in the tracks given out.
    track: usize,
    /// What a keyframe needs before it that the track's own description doesn't say.
    before_keyframes: Bytes,
    /// Pictures may be shown in another order than that of sending.
    reorders: bool,
}

/// A frame at its recorder's own time, in nanoseconds.
#[derive(Debug)]
struct LocalFrame {
    input: usize,
    time: i128,
    keyframe: bool,
    data: Bytes,
    side_data: Bytes,
}

/// Bytes in, [`Out`]s out.
#[derive(Debug)]
pub(crate) struct Demuxer {
    reader: Reader,
    tick: Duration,
    inputs: Vec<InputTrack>,
    /// H.264 without a description: its tracks are told with the first keyframe.
    undescribed: bool,
    tracks: Vec<Track>,
    local: Vec<LocalFrame>,
    held: usize,
    clock: Clock,
    /// Unknown elements in a row.
    unknown: usize,
}

impl Demuxer {
    pub fn new() -> Self {
        Self {
            reader: Reader::new(None),
            tick: Duration::from_millis(1),
            inputs: Vec::new(),
            undescribed: false,
            tracks: Vec::new(),
            local: Vec::new(),
            held: 0,
            clock: Clock::default(),
            unknown: 0,
        }
    }

    /// Takes bytes that arrived at `at` (stream time). What comes out before an error counts.
    pub fn push(&mut self, bytes: &[u8], at: Duration, out: &mut Vec<Out>) -> Result<(), UploadError> {
        self.reader.push(bytes);
        let read = self.read(at, out);
        let emitted = self.emit(at, out);
        self.clock.is_done(at);
        read.and(emitted)?;
        if self.reader.is_lost() {
            return Err(UploadError::BadBlob(
                "these bytes are no WebM that goes on from what came before".into(),
            ));
        }
        Ok(())
    }

    fn read(&mut self, at: Duration, out: &mut Vec<Out>) -> Result<(), UploadError> {
        let mut reader = std::mem::replace(&mut self.reader, Reader::new(None));
        let read = loop {
            match reader.read() {
                Ok(Some(item)) => {
                    if let Err(fault) = self.item(item, at, out) {
                        break Err(fault);
                    }
                }
                Ok(None) => break Ok(()),
                Err(ReadError::NotWebm) => break Err(UploadError::BadBlob("these bytes are no WebM".into())),
                Err(error) => break Err(UploadError::BadBlob(error.to_string())),
            }
        };
        self.reader = reader;
        read
    }

    fn item(&mut self, item: Item<'_>, at: Duration, out: &mut Vec<Out>) -> Result<(), UploadError> {
        match item {
            Item::ClusterElement { id, .. } | Item::Skipped { id, .. } if !webm::is_expected(id) => {
                self.unknown += 1
            }
            Item::ClusterElement { .. } | Item::Skipped { .. } => {}
            _ => self.unknown = 0,
        }
        match item {
            Item::Header { .. } => {
                self.emit(at, out)?;
                self.inputs.clear();
                self.local.clear();
                self.clock.restart();
                (self.held, self.undescribed) = (0, false);
                self.tick = Duration::from_millis(1);
            }
            Item::Element { id: webm::INFO, payload, .. } => {
                self.tick = webm::tick_of(payload).ok_or_else(|| broken("its Info makes no sense"))?;
            }
            Item::Element { id: webm::TRACKS, payload, .. } if self.inputs.is_empty() => {
                let tracks = webm::tracks_of(payload).ok_or_else(|| broken("its Tracks make no sense"))?;
                self.declare(tracks)?;
                if !self.undescribed {
                    self.settle(None, out);
                }
            }
            Item::Block(block) => self.block(&block, out)?,
            Item::ClusterElement { .. } | Item::Skipped { .. } if self.unknown > MAX_UNKNOWN => {
                return Err(broken("what stands in it is nothing that a recorder writes"));
            }
            Item::Damaged { .. } => return Err(broken("bytes in its middle make no sense")),
            _ => {}
        }
        Ok(())
    }

    fn declare(&mut self, tracks: Vec<ForeignTrack>) -> Result<(), UploadError> {
        let mut unknown = Vec::new();
        for declared in tracks.into_iter().filter(|track| track.kind.is_some()) {
            match Codec::of_matroska_id(&declared.codec_id)
                .filter(|codec| *codec != Codec::Aac && declared.plain)
            {
                Some(codec) => {
                    self.undescribed |= codec == Codec::H264 && !is_avcc(&declared.private);
                    let (track, before_keyframes) = (self.inputs.len(), Bytes::new());
                    self.inputs.push(InputTrack {
                        track,
                        declared,
                        codec,
                        before_keyframes,
                        reorders: false,
                    });
                }
                None => unknown.push(declared.codec_id),
            }
        }
        if !unknown.is_empty() {
            return Err(UploadError::UnsupportedCodec(unknown.join(", ")));
        }
        if self.inputs.is_empty() {
            return Err(broken("it has neither sound nor pictures"));
        }
        Ok(())
    }

    /// Knows all tracks: goes on in those there are, or gives out new ones.
    fn settle(&mut self, config: Option<&Bytes>, out: &mut Vec<Out>) {
        self.undescribed = false;
        let wanted: Vec<Track> = self.inputs.iter().map(|input| input.describe(config)).collect();
        let mut free: Vec<_> = (0..self.tracks.len()).collect();
        let slots: Option<Vec<usize>> = wanted
            .iter()
            .map(|track| {
                let at = free.iter().position(|slot| can_follow(&self.tracks[*slot], track))?;
                Some(free.remove(at))
            })
            .collect();
        let slots = slots.unwrap_or_else(|| {
            self.tracks.clone_from(&wanted);
            out.push(Out::Tracks(wanted.clone()));
            (0..wanted.len()).collect()
        });
        for ((input, track), slot) in self.inputs.iter_mut().zip(&wanted).zip(slots) {
            input.track = slot;
            input.before_keyframes = needed(&self.tracks[slot], track);
            input.reorders = track.codec == Codec::H264 && h264::reorders(&track.private);
        }
    }

    fn block(&mut self, block: &StoredBlock<'_>, out: &mut Vec<Out>) -> Result<(), UploadError> {
        let Some(index) = self.inputs.iter().position(|input| input.declared.number == block.track) else {
            return Ok(());
        };
        let codec = self.inputs[index].codec;
        let mut time = block.time * self.tick.as_nanos() as i128;
        let count = block.frames().len();
        let each = block
            .duration
            .map(|ticks| self.tick.as_nanos() as i128 * i128::from(ticks / count.max(1) as u64));
        for (index_in_block, frame) in block.frames().enumerate() {
            let keyframe = block.keyframe || codec.kind() == Kind::Audio || codec.is_intra_only();
            if self.undescribed && codec == Codec::H264 && keyframe {
                let config = h264::config(frame);
                if config.is_some() {
                    self.settle(config.as_ref(), out);
                }
            }
            let data = match codec {
                Codec::H264 if h264::is_annex_b(frame) => h264::to_length_prefixed(frame).into(),
                _ => Bytes::copy_from_slice(frame),
            };
            // Start codes without anything behind them are no picture either.
            if data.is_empty() {
                continue;
            }
            // What is cut off a block is cut off its end.
            let side_data = if index_in_block + 1 == count { &block.side_data[..] } else { &[] };
            let side_data = Bytes::copy_from_slice(side_data);
            self.held += data.len() + side_data.len() + Frame::OVERHEAD;
            self.local.push(LocalFrame { input: index, time, keyframe, data, side_data });
            let lasts = opus::duration(frame).filter(|_| codec == Codec::Opus);
            time += lasts.map_or(each.unwrap_or(0), |lasts| lasts.as_nanos() as i128);
        }
        if self.undescribed && self.held > MAX_HELD {
            return Err(broken("its H.264 has no parameter sets"));
        }
        if self.held > MAX_OUT {
            return Err(broken("it is made of more frames than sound or pictures are"));
        }
        Ok(())
    }

    /// Gives out what was read, on the stream's clock.
    fn emit(&mut self, at: Duration, out: &mut Vec<Out>) -> Result<(), UploadError> {
        if self.undescribed {
            return Ok(());
        }
        self.held = 0;
        let inputs = &self.inputs;
        let stamp = |local: &LocalFrame| Stamp {
            track: local.input,
            time: local.time,
            may_be_early: !local.keyframe && inputs[local.input].reorders,
        };
        self.clock.expect(self.local.iter().map(stamp));
        for local in self.local.drain(..) {
            let placed = self.clock.stream_time(stamp(&local), at);
            let placed = placed.ok_or_else(|| broken("a frame's time makes no sense"))?;
            let input = &inputs[local.input];
            if let Some(from) = placed.set_after {
                let (track, to) = (input.track, placed.time);
                out.push(Out::Gap(Gap { track, from, to, reason: GapReason::Clock }));
            }
            let frame = input.frame(local.keyframe, local.data);
            let (time, early, side_data) = (placed.time, placed.early, local.side_data);
            out.push(Out::Frame(Frame { time, early, side_data, ..frame }));
        }
        Ok(())
    }
}

impl InputTrack {
    /// The track that its entry describes.
    fn describe(&self, config: Option<&Bytes>) -> Track {
        let private = match self.codec {
            Codec::H264 if is_avcc(&self.declared.private) => Bytes::copy_from_slice(&self.declared.private),
            Codec::H264 => config.cloned().unwrap_or_default(),
            Codec::Av1 => Bytes::copy_from_slice(&self.declared.private),
            Codec::Opus => Bytes::copy_from_slice(&self.declared.private),
            _ => Bytes::new(),
        };
        let channels = match self.codec.kind() {
            Kind::Video => 0,
            // Without a header of its own it has the simplest one, which knows mono and stereo.
            Kind::Audio if private.is_empty() => self.declared.channels.clamp(1, 2),
            Kind::Audio => self.declared.channels,
        };
        Track { codec: self.codec, channels, private, entry: self.declared.carried.clone() }
    }

    fn frame(&self, keyframe: bool, data: Bytes) -> Frame {
        let (width, height) = self.declared.size;
        let known = self.codec.size_of(&data).or((width > 0).then_some(Size { width, height }));
        let size = known.filter(|_| keyframe && self.codec.kind() == Kind::Video);
        let data = if keyframe && !self.before_keyframes.is_empty() {
            [&self.before_keyframes[..], &data].concat().into()
        } else {
            data
        };
        Frame { keyframe, size, ..Frame::of(self.track, data) }
    }
}

fn is_avcc(private: &[u8]) -> bool {
    private.len() >= 7 && private[0] == 1
}

/// Whether frames of `next` can follow in `track`: of the same codec, and framed alike.
fn can_follow(track: &Track, next: &Track) -> bool {
    let alike = match track.codec {
        Codec::H264 => h264::goes_with(&track.private, &next.private),
        // Version and profile.
        Codec::Av1 => match (track.private.get(..2), next.private.get(..2)) {
            (Some(held), Some(next)) => held[1] >> 5 == next[1] >> 5,
            (None, None) => true,
            _ => false,
        },
        Codec::Opus => track.channels == next.channels && opus::sounds_alike(&track.private, &next.private),
        _ => true,
    };
    track.codec == next.codec && alike && webm::is_shown_alike(track, next)
}

/// What frames of `next` bring in `track` before each keyframe, since the file's head describes
/// another encoder's: parameter sets, or the sequence header.
fn needed(track: &Track, next: &Track) -> Bytes {
    match track.codec {
        _ if track.private == next.private => Bytes::new(),
        Codec::H264 => h264::parameter_sets(&next.private).into(),
        Codec::Av1 if next.private.len() > 4 => next.private.slice(4..),
        _ => Bytes::new(),
    }
}

fn broken(why: &str) -> UploadError {
    UploadError::BadBlob(format!("the WebM is broken: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Head;
    use crate::container::webm::{Block, Clusters};

    const SECOND: Duration = Duration::from_secs(1);

    /// A recorder's output: these frames of track 0, 100 ms apart, the first a keyframe.
    fn recorded(track: Track, frames: &[&[u8]]) -> Vec<u8> {
        let tracks = [track];
        let size = Some(Size { width: 320, height: 180 });
        let (mut bytes, _) =
            webm::head(&Head { tracks: &tracks, sizes: &[size], uid: 7, unix_nanos: 0, title: "" });
        let mut clusters = Clusters::new(&tracks, SECOND);
        for (index, data) in frames.iter().enumerate() {
            let time = Duration::from_millis(100) * index as u32;
            clusters.push(&Block { time, keyframe: index == 0, size, ..Block::of(0, data) });
        }
        clusters.finish();
        bytes.extend_from_slice(clusters.bytes());
        bytes
    }

    fn push(demuxer: &mut Demuxer, bytes: &[u8], at: Duration) -> (Vec<Vec<Track>>, Vec<Frame>) {
        let mut out = Vec::new();
        for piece in bytes.chunks(bytes.len() / 3 + 1) {
            demuxer.push(piece, at, &mut out).unwrap();
        }
        let (mut tracks, mut frames) = (Vec::new(), Vec::new());
        for out in out {
            match out {
                Out::Tracks(new) => tracks.push(new),
                Out::Frame(frame) => frames.push(frame),
                Out::Gap(gap) => panic!("{gap:?}"),
            }
        }
        (tracks, frames)
    }

    const SPS: [u8; 5] = [0x67, 0x42, 0xc0, 0x1e, 0xd9];
    const PPS: [u8; 3] = [0x68, 0xce, 0x38];

    fn keyframe(sps: [u8; 5]) -> Vec<u8> {
        [&[0, 0, 0, 1][..], &sps, &[0, 0, 0, 1], &PPS, &[0, 0, 0, 1, 0x65, 0x88]].concat()
    }

    #[test]
    fn h264_without_a_description_is_described_by_its_first_keyframe() {
        let mut demuxer = Demuxer::new();
        let sent = recorded(Track::video(Codec::H264), &[&keyframe(SPS), &[0, 0, 0, 1, 0x41, 0x9a]]);
        let (tracks, frames) = push(&mut demuxer, &sent, SECOND);
        assert_eq!(tracks.len(), 1);
        let private = &tracks[0][0].private;
        assert_eq!(private, &h264::config(&keyframe(SPS)).unwrap());
        assert_eq!(frames[1].data, [0, 0, 0, 2, 0x41, 0x9a][..]);
        assert_eq!(frames[0].size, Some(Size { width: 320, height: 180 }));
        // Another camera, another size: its keyframes bring what the file's head doesn't say.
        let other = [0x67, 0x42, 0xc0, 0x1f, 0xda];
        let (tracks, frames) =
            push(&mut demuxer, &recorded(Track::video(Codec::H264), &[&keyframe(other)]), SECOND);
        assert!(tracks.is_empty() && frames[0].data.windows(5).any(|window| window == other));
        let (tracks, _) = push(&mut demuxer, &recorded(Track::video(Codec::Vp8), &[&[0x10]]), SECOND);
        assert_eq!(tracks, [[Track::video(Codec::Vp8)]]);
    }

    #[test]
    fn start_codes_without_a_unit_are_no_picture() {
        let sent: [&[u8]; 3] = [&keyframe(SPS), &[0, 0, 0, 1, 0, 0, 1], &[0, 0, 0, 1, 0x41, 0x9a]];
        let (_, frames) = push(&mut Demuxer::new(), &recorded(Track::video(Codec::H264), &sent), SECOND);
        assert_eq!(frames.len(), 2);
        assert!(frames.iter().all(|frame| !frame.data.is_empty()));
    }

    #[test]
    fn a_million_tiny_frames_are_refused_before_they_fill_the_memory() {
        for (codec, most) in [(Codec::H264, MAX_HELD), (Codec::Vp8, MAX_OUT)] {
            let track = Track::video(codec);
            let mut demuxer = Demuxer::new();
            let sent = recorded(track, &vec![&[0x41][..]; 1_000_000]);
            let mut out = Vec::new();
            // Without parameter sets frames wait from one piece to the next.
            let piece = if codec == Codec::H264 { 256 << 10 } else { sent.len() };
            let refused = sent.chunks(piece).find_map(|piece| demuxer.push(piece, SECOND, &mut out).err());
            let held = demuxer.local.len().max(out.len());
            println!("{codec:?}: {held} frames of {} bytes, {refused:?}", sent.len());
            assert!(matches!(refused, Some(UploadError::BadBlob(_))), "{codec:?}: {refused:?}");
            assert!(held <= most / Frame::OVERHEAD, "{codec:?}: {held} frames in memory");
            let list = demuxer.local.capacity() * size_of::<LocalFrame>();
            assert!(list <= most, "{codec:?}: {list} bytes beside their own");
        }
    }

    #[test]
    fn a_recorder_that_starts_again_goes_on_after_the_pause_that_was() {
        let mut demuxer = Demuxer::new();
        let sent = recorded(Track::video(Codec::Vp8), &[&[0x10], &[0x11], &[0x11]]);
        let mut at = |seconds: f64| {
            let mut out = Vec::new();
            demuxer.push(&sent, Duration::from_secs_f64(seconds), &mut out).unwrap();
            let frames = out.iter().filter_map(|out| match out {
                Out::Frame(frame) => Some(frame.time.as_millis()),
                _ => None,
            });
            frames.collect::<Vec<_>>()
        };
        assert_eq!(at(10.0), [9_800, 9_900, 10_000], "it began before its first bytes came");
        assert_eq!(at(10.0), [10_100, 10_200, 10_300], "faster than real time");
        assert_eq!(at(15.0)[0], 15_100, "a silence of 5 s, 200 ms of which the bytes tell");
    }
}
