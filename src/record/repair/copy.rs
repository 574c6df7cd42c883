//! Copies that take their original's place once they are read again.

use super::{CHUNK, Done, OnProgress, RepairError, Repaired, Source, repaired};
use crate::catalog::names::COPY;
use crate::container::webm::{CopyPlan, Extent};
use crate::container::{Found, Remedy};
use crate::disk::{lock, sync_dir};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Writes the copy beside `to`, reads it again, and gives it its name.
pub(super) fn write_copy(
    source: &Source,
    found: &Found,
    plan: &CopyPlan,
    from: &Path,
    to: &Path,
    on_progress: &mut OnProgress<'_>,
) -> Result<Repaired, RepairError> {
    let absolute = std::path::absolute(to)?;
    let (Some(dir), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the output is no file's name").into());
    };
    let copy = temporary(dir, &name.to_string_lossy());
    let written = write_extents(source, plan, &copy, on_progress)
        .and_then(|()| check(plan, &copy, on_progress))
        .and_then(|()| {
            fs::set_permissions(&copy, fs::metadata(from)?.permissions())?;
            fs::rename(&copy, &absolute)?;
            Ok(sync_dir(dir)?)
        });
    if let Err(error) = written {
        // What is left of it is of no use, and its space may be what was missing.
        let _ = fs::remove_file(&copy);
        return Err(error);
    }
    Ok(repaired(found, Done::Copied, source.len))
}

/// Where a copy is written: hidden, and short enough for any file system.
fn temporary(dir: &Path, name: &str) -> PathBuf {
    let end = (0..=200.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    dir.join(format!(".{}{COPY}", &name[..end]))
}

fn write_extents(
    source: &Source,
    plan: &CopyPlan,
    path: &Path,
    on_progress: &mut OnProgress<'_>,
) -> Result<(), RepairError> {
    let out = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    // Two repairs of one file at a time would write into one copy.
    if lock(&out).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
        return Err(RepairError::Busy);
    }
    let (mut out, mut done, mut told) = (BufWriter::with_capacity(CHUNK, out), 0, 0);
    for extent in plan.extents() {
        match extent {
            Extent::Bytes(bytes) => {
                out.write_all(&bytes)?;
                done += bytes.len() as u64;
            }
            Extent::Original(range) => {
                copy_range(&source.file, range.start, range.end, &mut out)?;
                done += range.end - range.start;
            }
        }
        if done - told >= CHUNK as u64 {
            told = done;
            if !on_progress(done, plan.len) {
                return Err(RepairError::Stopped);
            }
        }
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(())
}

fn copy_range(from: &File, mut at: u64, end: u64, to: &mut impl Write) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK.min((end - at) as usize)];
    while at < end {
        let len = chunk.len().min((end - at) as usize);
        from.read_exact_at(&mut chunk[..len], at)?;
        to.write_all(&chunk[..len])?;
        at += len as u64;
    }
    Ok(())
}

/// The copy must be whole and hold the same frames.
fn check(plan: &CopyPlan, path: &Path, on_progress: &mut OnProgress<'_>) -> Result<(), RepairError> {
    let copy = Source::open(path, false)?.copy(on_progress)?;
    let same = |copy: &CopyPlan| {
        copy.digest == plan.digest
            && copy.len == plan.len
            && copy.duration == plan.duration
            && copy.is_whole()
    };
    match &copy.remedy {
        Remedy::Copy(copy) if same(copy) => Ok(()),
        _ => Err(RepairError::Unrepairable(format!("its copy would not be whole ({:?})", copy.defects))),
    }
}
