//! A file that is to be made whole, and what there is to do about it.

use super::{CHUNK, RepairError, Watch};
use crate::container::webm::{
    InPlaceRepair, Item, MAX_HEAD, Mended, OwnHead, Plan, Reader, Remux, RemuxError,
};
use crate::container::{Patch, Seal};
use crate::disk::lock;
use crate::record::fill::{Filled, Holes};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// An open file, with what its first bytes tell.
#[derive(Debug)]
pub(super) struct Source {
    pub file: File,
    pub len: u64,
    pub own: Option<OwnHead>,
}

impl Source {
    pub fn open(path: &Path, write: bool) -> Result<Self, RepairError> {
        let file = OpenOptions::new().read(true).write(write).open(path)?;
        if write && lock(&file).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            return Err(RepairError::Busy);
        }
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(RepairError::Beyond("it is not a regular file".to_owned()));
        }
        let mut head = Vec::new();
        (&file).take(MAX_HEAD as u64).read_to_end(&mut head)?;
        Ok(Self { own: OwnHead::find(&head), len: meta.len(), file })
    }

    /// Reads it from front to back.
    fn items(
        &self,
        watch: &mut Watch<'_>,
        mut take: impl FnMut(&Item<'_>) -> Result<(), RepairError>,
    ) -> Result<(), RepairError> {
        let (mut reader, mut at, mut chunk) = (Reader::new(Some(self.len)), 0, vec![0; CHUNK]);
        loop {
            let read = match self.file.read_at(&mut chunk, at) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            at += read as u64;
            if read == 0 {
                reader.finish();
            }
            reader.push(&chunk[..read]);
            while let Some(item) = reader.read()? {
                take(&item)?;
            }
            if read == 0 {
                return Ok(());
            }
            if !watch(at, self.len) {
                return Err(RepairError::Stopped);
            }
        }
    }

    /// What there is to do about a file of ours.
    pub fn mend(&self, own: &OwnHead, watch: &mut Watch<'_>) -> Result<Mended, RepairError> {
        let mut mend = InPlaceRepair::new(own.clone());
        self.items(watch, |item| {
            mend.take(item);
            Ok(())
        })?;
        let mended = mend
            .finish()
            .ok_or_else(|| RepairError::Beyond("it is damaged in too many places".to_owned()))?;
        if mended.index.tracks.iter().all(|track| track.frames == 0) {
            return Err(RemuxError::NoMedia.into());
        }
        Ok(mended)
    }

    pub fn plan(&self, watch: &mut Watch<'_>) -> Result<Plan, RepairError> {
        let mut remux = Remux::default();
        self.items(watch, |item| Ok(remux.take(item)?))?;
        Ok(remux.finish(self.len)?)
    }

    /// A plan with silence in the holes of sound. Where a hole ends is known behind it: the file is read
    /// once more if there are any.
    pub fn filled(&self, watch: &mut Watch<'_>) -> Result<(Plan, Filled), RepairError> {
        let (mut remux, mut holes) = (Remux::default(), Holes::new());
        self.items(watch, |item| {
            holes.take(item);
            Ok(remux.take(item)?)
        })?;
        let plan = remux.finish(self.len)?;
        let (rows, filled) = holes.finish(plan.duration).map_err(RepairError::Beyond)?;
        if rows.is_empty() {
            return Ok((plan, filled));
        }
        let mut remux = Remux::with(rows);
        self.items(watch, |item| Ok(remux.take(item)?))?;
        Ok((remux.finish(self.len)?, filled))
    }

    /// Whether the bytes are there that sealing would write.
    pub fn is_sealed(&self, mended: &Mended, seal: &Seal) -> io::Result<bool> {
        if !mended.patches.is_empty() || mended.end + seal.append.len() as u64 != self.len {
            return Ok(false);
        }
        let index = Patch { at: mended.end, bytes: seal.append.clone() };
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
