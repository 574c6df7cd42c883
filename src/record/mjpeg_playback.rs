//! The pictures of a Motion-JPEG recording, one after the other from any time on: no browser plays such a file.

use crate::container::webm::{FileHeader, Item, MAX_HEAD, MAX_PENDING, Reader, cluster_before, cues_len};
use crate::media::{Codec, Kind};
use bytes::Bytes;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// What every JPEG begins with (ITU-T T.81 annex B.1.1.3).
const SOI: [u8; 2] = [0xff, 0xd8];
/// Read at once: a picture or some.
const CHUNK: usize = 64 << 10;

/// An open file, at some picture. It keeps what it read last, and no more.
#[derive(Debug)]
pub struct Pictures {
    file: File,
    reader: Reader,
    /// Where the next bytes are.
    at: u64,
    /// Where its last byte should be, if it tells.
    end: Option<u64>,
    /// Something before the next picture made no sense.
    damaged: bool,
    /// The track with the pictures.
    track: u64,
    tick: Duration,
    /// Those before are passed over.
    from: Duration,
    /// Read, and not taken yet.
    read: VecDeque<Picture>,
    buffer: Vec<u8>,
}

/// A picture of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// When it is in the recording.
    pub time: Duration,
    /// JPEG.
    pub image: Bytes,
    /// The file is damaged before it: pictures may be missing there.
    pub behind_damage: bool,
}

impl Pictures {
    /// The pictures of a file, beginning with the first at `from` or later; `None` if it has none that are JPEG.
    /// Blocking.
    pub fn open(path: &Path, from: Duration) -> io::Result<Option<Self>> {
        let file = File::open(path)?;
        let mut buffer = vec![0; MAX_HEAD];
        let read = read_at(&file, &mut buffer, 0)?;
        let Some(header) = FileHeader::find(&buffer[..read]) else { return Ok(None) };
        let jpeg = |track: &&crate::container::webm::ForeignTrack| {
            track.kind == Some(Kind::Video) && track.plain && track.codec_id == Codec::Mjpeg.matroska_id()
        };
        let Some(track) = header.tracks.iter().find(jpeg).map(|track| track.number) else { return Ok(None) };
        let at = start(&file, &header, track, from)?.unwrap_or(header.len);
        let mut reader = Reader::new(None);
        reader.push(&buffer[..header.len as usize]);
        buffer.resize(CHUNK, 0);
        let (end, tick, read) = (header.end, header.tick, VecDeque::new());
        let damaged = false;
        let mut pictures = Self { file, reader, at, end, damaged, track, tick, from, read, buffer };
        pictures.take()?;
        Ok(Some(pictures))
    }

    /// The next one; `None` behind the last. Blocking.
    ///
    /// # Errors
    ///
    /// The file is cut, its end makes no sense, or it can't be read.
    pub fn next_picture(&mut self) -> io::Result<Option<Picture>> {
        loop {
            if let Some(picture) = self.read.pop_front() {
                return Ok(Some(picture));
            }
            let read = read_at(&self.file, &mut self.buffer, self.at)?;
            if read == 0 {
                return self.is_whole().map(|()| None);
            }
            self.at += read as u64;
            self.reader.push(&self.buffer[..read]);
            self.take()?;
        }
    }

    /// Whether it ends as it should.
    fn is_whole(&mut self) -> io::Result<()> {
        self.reader.finish();
        self.take()?;
        if self.end.is_some_and(|end| end > self.at) {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, format!("it is cut at byte {}", self.at)));
        }
        let astray = || io::Error::new(ErrorKind::InvalidData, "its end makes no sense");
        if self.damaged { Err(astray()) } else { Ok(()) }
    }

    /// Takes what has been read so far.
    fn take(&mut self) -> io::Result<()> {
        let broken = |error| io::Error::new(ErrorKind::InvalidData, error);
        while let Some(item) = self.reader.read().map_err(broken)? {
            self.damaged |= matches!(item, Item::Damaged { .. });
            let Item::Block(block) = item else { continue };
            let ticks = u32::try_from(block.time).ok().filter(|_| block.track == self.track);
            let Some(time) = ticks.map(|ticks| self.tick * ticks).filter(|time| *time >= self.from) else {
                continue;
            };
            for frame in block.frames() {
                // What a disk lost reads as zeros.
                if !frame.starts_with(&SOI) {
                    self.damaged = true;
                    continue;
                }
                let (image, behind_damage) =
                    (Bytes::copy_from_slice(frame), std::mem::take(&mut self.damaged));
                self.read.push_back(Picture { time, image, behind_damage });
            }
        }
        Ok(())
    }
}

/// Where the cluster is with the last entry of the index before `from`.
fn start(file: &File, header: &FileHeader, track: u64, from: Duration) -> io::Result<Option<u64>> {
    let Some(cues_at) = header.cues_at.filter(|_| !from.is_zero()) else { return Ok(None) };
    let at = header.segment_at.saturating_add(cues_at);
    let mut cues = vec![0; 12];
    let read = read_at(file, &mut cues, at)?;
    let len = cues_len(&cues[..read]).and_then(|len| usize::try_from(len).ok());
    let Some(len) = len.filter(|len| *len <= MAX_PENDING) else { return Ok(None) };
    cues.resize(len, 0);
    let read = read_at(file, &mut cues, at)?;
    let ticks = from.as_nanos() / header.tick.as_nanos().max(1);
    let ticks = u64::try_from(ticks).unwrap_or(u64::MAX);
    let position = cluster_before(&cues[..read], track, ticks);
    Ok(position.map(|position| header.segment_at.saturating_add(position)))
}

/// Fills the buffer, or reads to the end or to what can't be read; how much that was.
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], at + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if read == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(read)
}
