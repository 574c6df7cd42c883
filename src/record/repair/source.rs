//! An open file that is to be made whole, and what there is to do about it.

use super::{CHUNK, OnProgress, RepairError};
use crate::catalog::names::PART;
use crate::container::webm::{self, MAX_HEAD, OwnHead, ReadError, Reader, Remux};
use crate::container::{Found, Patch, Remedy, Repair, mp4};
use crate::disk::lock;
use crate::record::fill_silence::{Filled, HoleFiller};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a file may be somebody else's that is to be made whole.
const PATIENCE: Duration = Duration::from_millis(500);

/// An open file, with what its first bytes tell.
#[derive(Debug)]
pub(super) struct Source {
    pub file: File,
    pub len: u64,
    pub own: Option<OwnHead>,
}

/// Whether another process keeps a file for itself. A program that a server is just starting has all of its files for
/// a moment, those too that the server has let go of since.
fn is_busy(file: &File) -> bool {
    let began = Instant::now();
    while lock(file).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
        if began.elapsed() > PATIENCE {
            return true;
        }
        std::thread::sleep(PATIENCE / 50);
    }
    false
}

impl Source {
    pub fn open(path: &Path, write: bool) -> Result<Self, RepairError> {
        let file = OpenOptions::new().read(true).write(write).open(path)?;
        if write && is_busy(&file) {
            return Err(RepairError::Busy);
        }
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(RepairError::Unrepairable("it is not a regular file".to_owned()));
        }
        let mut head = Vec::new();
        (&file).take(MAX_HEAD as u64).read_to_end(&mut head)?;
        Ok(Self { own: OwnHead::find(&head), len: meta.len(), file })
    }

    /// Hands out its bytes from front to back.
    fn read(
        &self,
        on_progress: &mut OnProgress<'_>,
        mut take: impl FnMut(&[u8]) -> Result<(), RepairError>,
    ) -> Result<(), RepairError> {
        let (mut at, mut chunk) = (0, vec![0; CHUNK]);
        loop {
            let read = match self.file.read_at(&mut chunk, at) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if read == 0 {
                return Ok(());
            }
            at += read as u64;
            take(&chunk[..read])?;
            if !on_progress(at, self.len) {
                return Err(RepairError::Stopped);
            }
        }
    }

    fn examine(
        &self,
        mut repair: Box<dyn Repair>,
        on_progress: &mut OnProgress<'_>,
    ) -> Result<Found, RepairError> {
        self.read(on_progress, |bytes| Ok(repair.push(bytes)?))?;
        Ok(repair.finish()?)
    }

    /// What makes a recording whole that is kept under this name.
    pub fn recording(&self, path: &Path, on_progress: &mut OnProgress<'_>) -> Result<Found, RepairError> {
        if is_mp4(path) {
            return self.examine(Box::<mp4::Repair>::default(), on_progress);
        }
        self.any(on_progress)
    }

    /// What makes any file of WebM or Matroska whole.
    pub fn any(&self, on_progress: &mut OnProgress<'_>) -> Result<Found, RepairError> {
        match &self.own {
            Some(own) => self.examine(Box::new(webm::Repair::in_place(own.clone(), self.len)), on_progress),
            None => self.copy(on_progress),
        }
    }

    /// What makes a whole copy of it.
    pub fn copy(&self, on_progress: &mut OnProgress<'_>) -> Result<Found, RepairError> {
        self.examine(Box::new(webm::Repair::by_copy(Remux::default(), self.len)), on_progress)
    }

    /// A copy with silence in the holes of sound. Where a hole ends is known behind it: the file is read
    /// once more if there are any.
    pub fn filled(&self, on_progress: &mut OnProgress<'_>) -> Result<(Found, Filled), RepairError> {
        let (mut copy, mut reader, mut filler) = (
            webm::Repair::by_copy(Remux::default(), self.len),
            Reader::new(Some(self.len)),
            HoleFiller::new(),
        );
        let unreadable = |error: ReadError| RepairError::Unrepairable(error.to_string());
        self.read(on_progress, |bytes| {
            copy.push(bytes)?;
            reader.push(bytes);
            while let Some(item) = reader.read().map_err(unreadable)? {
                filler.take(&item);
            }
            Ok(())
        })?;
        let found = Box::new(copy).finish()?;
        reader.finish();
        while let Some(item) = reader.read().map_err(unreadable)? {
            filler.take(&item);
        }
        let (runs, filled) = filler.finish(found.duration).map_err(RepairError::Unrepairable)?;
        if runs.is_empty() {
            return Ok((found, filled));
        }
        let with_silence = webm::Repair::by_copy(Remux::with(runs), self.len);
        Ok((self.examine(Box::new(with_silence), on_progress)?, filled))
    }

    /// Whether nothing is to be done: the remedy is in the file already.
    pub fn is_whole(&self, found: &Found) -> io::Result<bool> {
        let (patches, end, seal) = match &found.remedy {
            Remedy::InPlace { patches, end, seal } => (patches, *end, seal),
            Remedy::Copy(plan) => return Ok(plan.is_whole()),
        };
        if !patches.is_empty() || end + seal.append.len() as u64 != self.len {
            return Ok(false);
        }
        let index = Patch { at: end, bytes: seal.append.clone() };
        for patch in seal.patches.iter().chain([&index]) {
            let mut bytes = vec![0; patch.bytes.len()];
            self.file.read_exact_at(&mut bytes, patch.at)?;
            if bytes != patch.bytes {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether a recording is kept as MP4, by its name.
pub(super) fn is_mp4(path: &Path) -> bool {
    path.to_string_lossy().trim_end_matches(PART).ends_with(".mp4")
}
