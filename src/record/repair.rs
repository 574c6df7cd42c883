//! Making one file whole: in the room it has if it is ours, else as a copy that takes its place.
//!
//! Blocking. The file is read front to back, in pieces, once, and twice to fill holes; memory doesn't grow
//! with it. Nothing is touched before all of it is read, and a copy is read again before it takes the
//! original's place.

mod copy;
mod source;

use crate::catalog::names::PART;
use crate::container::webm::{self, Hole, Lack, Mended, OwnHead, Plan, ReadError, RemuxError};
use crate::container::{Patch, Seal};
use crate::disk::space::Space;
use crate::disk::sync_dir;
use crate::media::{Codec, Kind};
use crate::record::bytes;
use crate::record::file::{PartFile, make_whole};
use crate::record::fill::Filled;
use copy::write_copy;
use source::Source;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// Why a file is not repaired. In each case it is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// There is nothing in it that could be made whole.
    #[error("{0}")]
    Beyond(String),
    /// Somebody writes it.
    #[error("it is being written by another process: stop that first")]
    Busy,
    /// Told to stop.
    #[error("stopped before the end")]
    Stopped,
    /// Input or output failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<ReadError> for RepairError {
    fn from(error: ReadError) -> Self {
        Self::Beyond(error.to_string())
    }
}

impl From<RemuxError> for RepairError {
    fn from(error: RemuxError) -> Self {
        Self::Beyond(error.to_string())
    }
}

/// Hears how far it is, as bytes done and in all; answers whether to go on.
pub type Watch<'a> = dyn FnMut(u64, u64) -> bool + 'a;

/// A track as it is in the whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairedTrack {
    /// TrackNumber.
    pub number: u64,
    /// Video, audio, or something that is only copied.
    pub kind: Option<Kind>,
    /// CodecID.
    pub codec_id: String,
    /// Frames.
    pub frames: u64,
    /// Picture size; video only.
    pub size: Option<(u32, u32)>,
}

impl RepairedTrack {
    /// Its codec, if it is one that we record.
    pub fn codec(&self) -> Option<Codec> {
        Codec::of_matroska_id(&self.codec_id)
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Nothing: it was whole.
    Nothing,
    /// Sealed in the room it has.
    Sealed,
    /// Written anew.
    Copied,
}

/// What was found, and what was done.
#[derive(Clone, Debug)]
pub struct Repaired {
    /// What was done.
    pub done: Done,
    /// Size of the whole file.
    pub bytes: u64,
    /// Its duration.
    pub duration: Duration,
    /// Its tracks.
    pub tracks: Vec<RepairedTrack>,
    /// What it lacked.
    pub lacked: Vec<Lack>,
    /// Bytes in its middle that made no sense.
    pub damaged: u64,
    /// Bytes at its end that belonged to nothing whole.
    pub cut: u64,
    /// Holes that the damage made; `track` counts from 0 in `tracks`.
    pub holes: Vec<Hole>,
}

/// Seals `<dir>/<name>.part`: afterwards it is whole and has its final name, which must be free.
pub(super) fn seal_part(
    dir: &Path,
    name: &str,
    space: Arc<Space>,
    watch: &mut Watch<'_>,
) -> Result<Repaired, RepairError> {
    let part = dir.join(format!("{name}{PART}"));
    if bytes::is_kept_as_it_comes(name) {
        return bytes::seal_part(dir, name, watch);
    }
    let source = Source::open(&part, true)?;
    let Some(own) = &source.own else {
        let repaired = repair_foreign_part(&source, &part, watch)?;
        fs::rename(&part, dir.join(name))?;
        sync_dir(dir)?;
        return Ok(repaired);
    };
    let mended = source.mend(own, watch)?;
    let seal = webm::seal(&own.layout, &mended.index, mended.end);
    let repaired = sealed(own, &mended, &seal, Done::Sealed, source.len);
    if source.is_sealed(&mended, &seal)? {
        // Blocks that were kept behind its end are given back.
        source.file.set_len(source.len)?;
        source.file.sync_all()?;
        fs::rename(&part, dir.join(name))?;
        sync_dir(dir)?;
        return Ok(repaired);
    }
    cover(&source.file, &mended.patches)?;
    PartFile::resume(source.file, dir, name, mended.end, space)?.seal(&seal)?;
    Ok(repaired)
}

/// A `.part` whose head is not one we write. If it says that it is, it is damaged: a new one may be made
/// of it only if what it says of the media is what we would have said.
fn repair_foreign_part(source: &Source, part: &Path, watch: &mut Watch<'_>) -> Result<Repaired, RepairError> {
    let plan = source.plan(watch)?;
    let repaired = copied(&plan, Done::Nothing, source.len);
    let strange =
        plan.tick != Duration::from_millis(1) || repaired.tracks.iter().any(|track| track.codec().is_none());
    if plan.ours && strange {
        return Err(RemuxError::Tracks.into());
    }
    if plan.is_whole() {
        source.file.sync_all()?;
        return Ok(repaired);
    }
    write_copy(source, &plan, part, part, watch)
}

/// Looks at a file under its final name; `None` if it has to be sealed again.
pub(super) fn look(path: &Path, watch: &mut Watch<'_>) -> Result<Option<Repaired>, RepairError> {
    if bytes::is_kept_as_it_comes(&path.to_string_lossy()) {
        return bytes::look(path, watch);
    }
    let source = Source::open(path, true)?;
    let Some(own) = &source.own else {
        let plan = source.plan(watch)?;
        return Ok(plan.is_whole().then(|| copied(&plan, Done::Nothing, source.len)));
    };
    let mended = source.mend(own, watch)?;
    let seal = webm::seal(&own.layout, &mended.index, mended.end);
    let whole = source.is_sealed(&mended, &seal)?;
    Ok(whole.then(|| sealed(own, &mended, &seal, Done::Nothing, source.len)))
}

/// Opens a file to be made whole where it is or as `output`, which must not exist.
fn open(path: &Path, output: Option<&Path>) -> Result<(PathBuf, Source), RepairError> {
    // A link stays one: what it leads to is replaced.
    let path = fs::canonicalize(path)?;
    let source = Source::open(&path, output.is_none())?;
    if output.is_some_and(Path::exists) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the output exists already").into());
    }
    Ok((path, source))
}

/// Makes any file whole, where it is or as `output`, which must not exist, and puts silence into the holes
/// of its sound as a recording has it from the start: between packets, up to the first and from the last to
/// the end of the pictures. What is filled is written anew, since no room is in a file to insert anything.
pub fn repair_and_fill(
    path: &Path,
    output: Option<&Path>,
    watch: &mut Watch<'_>,
) -> Result<(Repaired, Filled), RepairError> {
    let (at, mut source) = open(path, output)?;
    let mut mended = None;
    if source.own.is_some() && output.is_none() {
        drop(source);
        // Pictures that damage has left undecodable are covered in the room they have.
        mended = Some(repair(path, None, watch)?);
        source = Source::open(&at, true)?;
    }
    let (plan, filled) = source.filled(watch)?;
    let repaired = match (output, mended) {
        (None, Some(mended)) if filled.silence.is_zero() => mended,
        (None, None) if filled.silence.is_zero() && plan.is_whole() => {
            copied(&plan, Done::Nothing, source.len)
        }
        (output, mended) => {
            let copied = write_copy(&source, &plan, &at, output.unwrap_or(&at), watch)?;
            match mended {
                Some(found) => {
                    Repaired { done: copied.done, bytes: copied.bytes, duration: copied.duration, ..found }
                }
                None => copied,
            }
        }
    };
    Ok((repaired, filled))
}

/// Makes any file whole, where it is or as `output`, which must not exist.
pub fn repair(path: &Path, output: Option<&Path>, watch: &mut Watch<'_>) -> Result<Repaired, RepairError> {
    let (path, source) = open(path, output)?;
    let path = &path;
    if let Some(output) = output {
        let plan = source.plan(watch)?;
        return write_copy(&source, &plan, path, output, watch);
    }
    let Some(own) = &source.own else {
        let plan = source.plan(watch)?;
        if plan.is_whole() {
            return Ok(copied(&plan, Done::Nothing, source.len));
        }
        return write_copy(&source, &plan, path, path, watch);
    };
    let mended = source.mend(own, watch)?;
    let seal = webm::seal(&own.layout, &mended.index, mended.end);
    if source.is_sealed(&mended, &seal)? {
        return Ok(sealed(own, &mended, &seal, Done::Nothing, source.len));
    }
    cover(&source.file, &mended.patches)?;
    source.file.set_len(mended.end)?;
    source.file.write_all_at(&seal.append, mended.end)?;
    make_whole(&source.file, &seal.patches)?;
    Ok(sealed(own, &mended, &seal, Done::Sealed, source.len))
}

/// Covers what is damaged; durable before the index says that all is well.
fn cover(file: &File, patches: &[Patch]) -> io::Result<()> {
    for patch in patches {
        file.write_all_at(&patch.bytes, patch.at)?;
    }
    if patches.is_empty() { Ok(()) } else { file.sync_data() }
}

fn sealed(own: &OwnHead, mended: &Mended, seal: &Seal, done: Done, before: u64) -> Repaired {
    let track = |(index, track): (usize, &webm::TrackIndex)| RepairedTrack {
        number: own.layout.tracks[index].number,
        kind: Some(track.kind),
        codec_id: own.tracks[index].codec.matroska_id().to_owned(),
        frames: track.frames - track.filled,
        size: (track.width > 0).then_some((track.width, track.height)),
    };
    let whole = done == Done::Nothing;
    Repaired {
        done,
        bytes: mended.end + seal.append.len() as u64,
        duration: seal.duration,
        tracks: mended.index.tracks.iter().enumerate().map(track).collect(),
        lacked: if whole { Vec::new() } else { vec![Lack::Duration, Lack::Cues, Lack::Sizes] },
        damaged: mended.damaged,
        cut: if whole { 0 } else { before.saturating_sub(mended.end) },
        holes: mended.holes.clone(),
    }
}

fn copied(plan: &Plan, done: Done, before: u64) -> Repaired {
    let track = |(track, frames): &(webm::ForeignTrack, u64)| RepairedTrack {
        number: track.number,
        kind: track.kind,
        codec_id: track.codec_id.clone(),
        frames: *frames,
        size: (track.kind == Some(Kind::Video)).then_some(track.size),
    };
    Repaired {
        done,
        bytes: if done == Done::Nothing { before } else { plan.len },
        duration: plan.duration,
        tracks: plan.tracks.iter().map(track).collect(),
        lacked: plan.lacks.clone(),
        damaged: plan.damaged.0,
        cut: plan.damaged.1,
        holes: Vec::new(),
    }
}
