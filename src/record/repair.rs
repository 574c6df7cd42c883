//! Making one file whole: in the space it has if it is ours, else as a copy that takes its place.
//!
//! Blocking. The file is read front to back, in pieces, once, and twice to fill holes; memory doesn't grow
//! with it. Nothing is touched before all of it is read, and a copy is read again before it takes the
//! original's place.

mod copy;
mod source;

use crate::catalog::names::PART;
use crate::container::webm::RemuxError;
use crate::container::{Defect, Found, Hole, Patch, Remedy, RepairedTrack, Unrepairable};
use crate::disk::space::Space;
use crate::disk::sync_dir;
use crate::record::file::{PartFile, make_whole};
use crate::record::fill_silence::Filled;
use copy::write_copy;
use source::{Source, is_mp4};
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
    Unrepairable(String),
    /// Another process writes it.
    #[error("it is being written by another process: stop that first")]
    Busy,
    /// Told to stop.
    #[error("stopped before the end")]
    Stopped,
    /// Input or output failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Unrepairable> for RepairError {
    fn from(error: Unrepairable) -> Self {
        Self::Unrepairable(error.to_string())
    }
}

/// Hears how far it is, as bytes done and in all; answers whether to go on.
pub type OnProgress<'a> = dyn FnMut(u64, u64) -> bool + 'a;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Nothing: it was whole.
    Nothing,
    /// Sealed in the space it has.
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
    /// What was missing in it or wrong.
    pub defects: Vec<Defect>,
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
    on_progress: &mut OnProgress<'_>,
) -> Result<Repaired, RepairError> {
    let part = dir.join(format!("{name}{PART}"));
    let source = Source::open(&part, true)?;
    let found = source.recording(&part, on_progress)?;
    refuse_strange(&found)?;
    let repaired = match &found.remedy {
        _ if source.is_whole(&found)? => {
            // Blocks that were kept behind its end are given back.
            source.file.set_len(source.len)?;
            source.file.sync_all()?;
            repaired(&found, Done::Nothing, source.len)
        }
        Remedy::InPlace { patches, end, seal } => {
            cover(&source.file, patches)?;
            PartFile::resume(source.file, dir, name, *end, space)?.seal(seal)?;
            return Ok(repaired(&found, Done::Sealed, source.len));
        }
        Remedy::Copy(plan) => write_copy(&source, &found, plan, &part, &part, on_progress)?,
    };
    fs::rename(&part, dir.join(name))?;
    sync_dir(dir)?;
    Ok(repaired)
}

/// A head that says it is one of ours and is not as we write it is damaged: a new one may be made of it only
/// if what it says of the media is what we would have said.
fn refuse_strange(found: &Found) -> Result<(), RepairError> {
    let Remedy::Copy(plan) = &found.remedy else { return Ok(()) };
    let unknown = |track: &RepairedTrack| track.codec().is_none();
    let strange = plan.tick != Duration::from_millis(1) || found.tracks.iter().any(unknown);
    if plan.ours && strange {
        return Err(RepairError::Unrepairable(RemuxError::Tracks.to_string()));
    }
    Ok(())
}

/// Looks at a file under its final name; `None` if it has to be sealed again.
pub(super) fn look(path: &Path, on_progress: &mut OnProgress<'_>) -> Result<Option<Repaired>, RepairError> {
    // Of MP4 nothing but its end is ever changed: a whole one need not be writable.
    let source = Source::open(path, !is_mp4(path))?;
    let found = source.recording(path, on_progress)?;
    Ok(source.is_whole(&found)?.then(|| repaired(&found, Done::Nothing, source.len)))
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
/// the end of the pictures. What is filled is written anew, since nothing can be inserted into a file.
pub fn repair_and_fill(
    path: &Path,
    output: Option<&Path>,
    on_progress: &mut OnProgress<'_>,
) -> Result<(Repaired, Filled), RepairError> {
    let (at, mut source) = open(path, output)?;
    let mut in_place = None;
    if source.own.is_some() && output.is_none() {
        drop(source);
        // Pictures that damage has left undecodable are covered in the space they have.
        in_place = Some(repair(path, None, on_progress)?);
        source = Source::open(&at, true)?;
    }
    let (found, filled) = source.filled(on_progress)?;
    let repaired = match (output, in_place) {
        (None, Some(in_place)) if filled.silence.is_zero() => in_place,
        (None, None) if filled.silence.is_zero() && source.is_whole(&found)? => {
            repaired(&found, Done::Nothing, source.len)
        }
        (output, in_place) => {
            let copied = match &found.remedy {
                Remedy::Copy(plan) => {
                    write_copy(&source, &found, plan, &at, output.unwrap_or(&at), on_progress)?
                }
                Remedy::InPlace { .. } => repaired(&found, Done::Nothing, source.len),
            };
            match in_place {
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
pub fn repair(
    path: &Path,
    output: Option<&Path>,
    on_progress: &mut OnProgress<'_>,
) -> Result<Repaired, RepairError> {
    let (path, source) = open(path, output)?;
    let found = if output.is_some() { source.copy(on_progress)? } else { source.any(on_progress)? };
    match &found.remedy {
        _ if output.is_none() && source.is_whole(&found)? => Ok(repaired(&found, Done::Nothing, source.len)),
        Remedy::InPlace { patches, end, seal } => {
            cover(&source.file, patches)?;
            source.file.set_len(*end)?;
            source.file.write_all_at(&seal.append, *end)?;
            make_whole(&source.file, &seal.patches)?;
            Ok(repaired(&found, Done::Sealed, source.len))
        }
        Remedy::Copy(plan) => write_copy(&source, &found, plan, &path, output.unwrap_or(&path), on_progress),
    }
}

/// Covers what is damaged; durable before the index says that all is well.
fn cover(file: &File, patches: &[Patch]) -> io::Result<()> {
    for patch in patches {
        file.write_all_at(&patch.bytes, patch.at)?;
    }
    if patches.is_empty() { Ok(()) } else { file.sync_data() }
}

fn repaired(found: &Found, done: Done, before: u64) -> Repaired {
    let whole = done == Done::Nothing;
    let bytes = match &found.remedy {
        _ if whole => before,
        Remedy::InPlace { end, seal, .. } => end + seal.append.len() as u64,
        Remedy::Copy(plan) => plan.len,
    };
    let in_place = matches!(found.remedy, Remedy::InPlace { .. });
    Repaired {
        done,
        bytes,
        duration: found.duration,
        tracks: found.tracks.clone(),
        defects: if whole && in_place { Vec::new() } else { found.defects.clone() },
        damaged: found.damaged,
        cut: if whole { 0 } else { found.cut },
        holes: found.holes.clone(),
    }
}
