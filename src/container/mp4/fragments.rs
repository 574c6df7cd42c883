//! MP4 as browsers record it (ISO/IEC 14496-12, fragmented): what of it is whole, how long it lasts.
//!
//! Only boxes are looked at, never samples. Nothing here trusts a length, and what is kept in memory is
//! one box of description at a time, up to [`MAX_DESCRIPTION`].

use crate::media::Codec;
use std::time::Duration;

/// The largest `moov` or `moof` that is read; a larger one makes the rest not whole. One that describes
/// ten seconds has a few KiB.
const MAX_DESCRIPTION: u64 = 16 << 20;

/// Whether bytes begin an MP4 file.
pub fn begins(bytes: &[u8]) -> bool {
    bytes.get(4..8) == Some(b"ftyp") && bytes.starts_with(&[0, 0])
}

/// A track, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mp4Track {
    /// Its codec, if it is one we name.
    pub codec: Option<Codec>,
    /// Samples in whole fragments.
    pub frames: u64,
    /// Picture size; video only.
    pub size: Option<(u32, u32)>,
    id: u32,
    scale: u32,
    default_duration: u32,
    /// End of the newest sample, in ticks.
    end: u64,
}

/// Reads an MP4 front to back, in pieces of any size.
#[derive(Debug, Default)]
pub struct FragmentReader {
    /// Bytes seen.
    at: u64,
    whole: u64,
    /// Bytes of a box's head, or of a description that is read.
    pending: Vec<u8>,
    /// Kind and end of the box that is being passed, and whether it is kept to be read.
    open: Option<(Kind, u64, bool)>,
    has_moov: bool,
    has_mdat: bool,
    in_fragment: bool,
    broken: bool,
    tracks: Vec<Mp4Track>,
    /// As they will be once the fragment is whole.
    ahead: Vec<Mp4Track>,
    /// Duration that `moov` tells, which it does where there are no fragments.
    declared: Duration,
}

type Kind = [u8; 4];

impl FragmentReader {
    /// Adds bytes.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.broken {
            let taken = match self.open {
                Some((_, end, read)) => self.go_on(end, read, bytes),
                None => self.head(bytes),
            };
            self.at += taken as u64;
            bytes = &bytes[taken..];
            if let Some((kind, end, _)) = self.open.filter(|open| open.1 == self.at && !self.broken) {
                self.open = None;
                self.ended(kind, end);
                self.pending.clear();
            }
        }
        if self.broken {
            self.at += bytes.len() as u64;
        }
    }

    /// Bytes at the start that make a file which plays: up to the last whole fragment; 0 if there is none.
    pub fn whole(&self) -> u64 {
        self.whole
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.at
    }

    /// Whether nothing came.
    pub fn is_empty(&self) -> bool {
        self.at == 0
    }

    /// Whether what came last is no box.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether sound or pictures came, in a whole fragment or not.
    pub fn has_media(&self) -> bool {
        self.has_mdat
    }

    /// The tracks, with what is whole of them.
    pub fn tracks(&self) -> &[Mp4Track] {
        &self.tracks
    }

    /// How long what is whole lasts.
    pub fn duration(&self) -> Duration {
        let lasts = |track: &Mp4Track| seconds(track.end, track.scale);
        self.tracks.iter().map(lasts).max().unwrap_or_default().max(self.declared)
    }

    fn head(&mut self, bytes: &[u8]) -> usize {
        let had = self.pending.len();
        let need = if had >= 4 && self.pending.starts_with(&[0, 0, 0, 1]) { 16 } else { 8 };
        let taken = bytes.len().min(need - had);
        self.pending.extend_from_slice(&bytes[..taken]);
        let begun = self.at - had as u64;
        let Some(kind) = self.pending.get(4..8).and_then(|kind| Kind::try_from(kind).ok()) else {
            return taken;
        };
        let size = match be32(&self.pending, 0) {
            // To the end of the file, wherever that is.
            Some(0) => u64::MAX - begun,
            Some(1) if self.pending.len() < 16 => return taken,
            Some(1) => be64(&self.pending, 8).unwrap_or(0),
            size => u64::from(size.unwrap_or(0)),
        };
        let named = kind.iter().all(|byte| (0x20..0x7f).contains(byte) || *byte == 0xa9);
        let read = matches!(&kind, b"moov" | b"moof");
        self.broken = size < self.pending.len() as u64
            || !named
            || (read && size > MAX_DESCRIPTION)
            || begun.checked_add(size).is_none()
            || (begun == 0 && &kind != b"ftyp");
        self.has_mdat |= !self.broken && &kind == b"mdat";
        self.open = Some((kind, begun.saturating_add(size), read));
        self.pending.clear();
        taken
    }

    fn go_on(&mut self, end: u64, read: bool, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(usize::try_from(end - self.at).unwrap_or(usize::MAX));
        if read {
            self.pending.extend_from_slice(&bytes[..taken]);
        }
        taken
    }

    fn ended(&mut self, kind: Kind, end: u64) {
        match &kind {
            b"moov" => {
                self.has_moov = true;
                (self.tracks, self.declared) = movie(&self.pending);
                self.ahead = self.tracks.clone();
            }
            b"moof" => {
                self.in_fragment = true;
                self.ahead = self.tracks.clone();
                fragment(&self.pending, &mut self.ahead);
            }
            b"mdat" if self.in_fragment => {
                self.in_fragment = false;
                self.tracks.clone_from(&self.ahead);
            }
            _ => {}
        }
        if self.has_moov && self.has_mdat && !self.in_fragment {
            self.whole = end;
        }
    }
}

fn seconds(ticks: u64, scale: u32) -> Duration {
    let scale = u64::from(scale.max(1));
    Duration::from_secs(ticks / scale) + Duration::from_nanos(ticks % scale * 1_000_000_000 / scale)
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// The boxes in a payload, up to the first that leaves it.
fn boxes(payload: &[u8]) -> impl Iterator<Item = (Kind, &[u8])> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        let size = usize::try_from(be32(rest, 0)?).ok()?;
        let kind = rest.get(4..8)?.try_into().ok()?;
        let payload = rest.get(8..size)?;
        rest = &rest[size..];
        Some((kind, payload))
    })
}

fn find<'a>(payload: &'a [u8], path: &[&Kind]) -> Option<&'a [u8]> {
    path.iter().try_fold(payload, |inside, kind| {
        boxes(inside).find(|(found, _)| found == *kind).map(|(_, payload)| payload)
    })
}

/// The tracks of a `moov`, and the longest duration it tells.
fn movie(moov: &[u8]) -> (Vec<Mp4Track>, Duration) {
    let mut tracks: Vec<_> =
        boxes(moov).filter(|(kind, _)| kind == b"trak").filter_map(|(_, trak)| track(trak)).collect();
    let declared = tracks.iter().map(|track| seconds(track.end, track.scale)).max().unwrap_or_default();
    for (_, trex) in boxes(find(moov, &[b"mvex"]).unwrap_or_default()).filter(|(kind, _)| kind == b"trex") {
        let Some(track) = tracks.iter_mut().find(|track| be32(trex, 4) == Some(track.id)) else { continue };
        track.default_duration = be32(trex, 12).unwrap_or(0);
    }
    (tracks, declared)
}

fn track(trak: &[u8]) -> Option<Mp4Track> {
    let (tkhd, mdhd) = (find(trak, &[b"tkhd"])?, find(trak, &[b"mdia", b"mdhd"])?);
    let long = |header: &[u8]| header.first() == Some(&1);
    let id = be32(tkhd, if long(tkhd) { 20 } else { 12 })?;
    let scale = be32(mdhd, if long(mdhd) { 20 } else { 12 })?;
    let end = if long(mdhd) { be64(mdhd, 24)? } else { u64::from(be32(mdhd, 16)?) };
    let table = find(trak, &[b"mdia", b"minf", b"stbl"])?;
    let (kind, entry) = boxes(find(table, &[b"stsd"])?.get(8..)?).next()?;
    let codec = match &kind {
        b"avc1" | b"avc3" => Some(Codec::H264),
        b"vp08" => Some(Codec::Vp8),
        b"vp09" => Some(Codec::Vp9),
        b"av01" => Some(Codec::Av1),
        b"Opus" => Some(Codec::Opus),
        b"mp4a" => Some(Codec::Aac),
        _ => None,
    };
    let pictures = find(trak, &[b"mdia", b"hdlr"])?.get(8..12) == Some(b"vide");
    let size = pictures.then(|| be32(entry, 24)).flatten().map(|sides| (sides >> 16, sides & 0xffff));
    let frames = find(table, &[b"stsz"]).and_then(|stsz| be32(stsz, 8)).unwrap_or(0);
    let end = if end == u64::from(u32::MAX) || end == u64::MAX { 0 } else { end };
    Some(Mp4Track { codec, frames: frames.into(), size, id, scale, default_duration: 0, end })
}

/// Counts the samples of a `moof`.
fn fragment(moof: &[u8], tracks: &mut [Mp4Track]) {
    for (_, traf) in boxes(moof).filter(|(kind, _)| kind == b"traf") {
        let Some(tfhd) = find(traf, &[b"tfhd"]) else { continue };
        let (Some(flags), Some(id)) = (be32(tfhd, 0), be32(tfhd, 4)) else { continue };
        let Some(track) = tracks.iter_mut().find(|track| track.id == id) else { continue };
        let at = 8 + if flags & 1 != 0 { 8 } else { 0 } + if flags & 2 != 0 { 4 } else { 0 };
        let default = if flags & 8 != 0 { be32(tfhd, at) } else { None }.unwrap_or(track.default_duration);
        let tfdt = find(traf, &[b"tfdt"]).unwrap_or_default();
        let start = if tfdt.first() == Some(&1) { be64(tfdt, 4) } else { be32(tfdt, 4).map(u64::from) };
        let mut end = start.unwrap_or(track.end);
        for (_, trun) in boxes(traf).filter(|(kind, _)| kind == b"trun") {
            let (frames, ticks) = run(trun, default);
            track.frames = track.frames.saturating_add(frames);
            end = end.saturating_add(ticks);
        }
        track.end = track.end.max(end);
    }
}

/// Samples of a `trun`, and how long they last in ticks.
fn run(trun: &[u8], default: u32) -> (u64, u64) {
    let (Some(flags), Some(count)) = (be32(trun, 0), be32(trun, 4)) else { return (0, 0) };
    let start = 8 + if flags & 1 != 0 { 4 } else { 0 } + if flags & 4 != 0 { 4 } else { 0 };
    let width = (flags >> 8 & 0xf).count_ones() as usize * 4;
    if flags & 0x100 == 0 {
        return (count.into(), u64::from(count) * u64::from(default));
    }
    // A count that lies ends with the box.
    let durations = (0..count as usize).map_while(|sample| be32(trun, start + sample * width));
    durations.fold((0, 0), |(frames, ticks), duration| (frames + 1, ticks + u64::from(duration)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(kind: &Kind, payload: &[u8]) -> Vec<u8> {
        let mut out = (payload.len() as u32 + 8).to_be_bytes().to_vec();
        out.extend(kind);
        out.extend(payload);
        out
    }

    fn file() -> Vec<u8> {
        let mut out = boxed(b"ftyp", b"iso5\0\0\0\0");
        out.extend(boxed(b"moov", &[]));
        for _ in 0..2 {
            out.extend(boxed(b"moof", &[]));
            out.extend(boxed(b"mdat", &[7; 100]));
        }
        out
    }

    #[test]
    fn a_file_is_whole_up_to_its_last_whole_fragment_however_it_comes() {
        let file = file();
        let fragment = 8 + 108;
        for piece in [1, 3, 7, 50, 1000] {
            for cut in 0..=file.len() {
                let mut reader = FragmentReader::default();
                file[..cut].chunks(piece).for_each(|bytes| reader.push(bytes));
                let expected = match cut {
                    _ if cut == file.len() => cut,
                    _ if cut >= file.len() - fragment => file.len() - fragment,
                    _ => 0,
                };
                assert_eq!((reader.whole(), reader.len()), (expected as u64, cut as u64), "cut at {cut}");
                assert!(!reader.is_broken());
            }
        }
    }

    #[test]
    fn what_is_no_box_is_told_and_takes_nothing_away() {
        let mut reader = FragmentReader::default();
        reader.push(&file());
        reader.push(&[0, 0, 0, 3, b'm', b'o', b'o', b'f', 9, 9, 9]);
        assert!(reader.is_broken() && reader.whole() == file().len() as u64);
        let mut empty = FragmentReader::default();
        empty.push(&file());
        empty.push(&[0, 0, 0, 8, 0, 0, 0, 0]);
        assert!(empty.is_broken() && empty.whole() == file().len() as u64, "an empty box of no kind");
        let mut rubbish = FragmentReader::default();
        rubbish.push(&boxed(b"mdat", &[0; 10]));
        assert!(rubbish.is_broken() && rubbish.whole() == 0, "it has to begin with ftyp");
    }
}
