//! A recording's file: `.part` while it grows, then sealed. Blocking; runs on [`super::disk`].

use crate::webm::{Patch, Seal};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a file's name ends with until it is sealed.
pub(super) const PART: &str = ".part";

/// A file that is being written. Its end is always the end of a whole cluster.
#[derive(Debug)]
pub(super) struct PartFile {
    file: Arc<File>,
    dir: PathBuf,
    name: String,
    len: u64,
}

/// A file under its final name: whole, and on the disk.
#[derive(Debug)]
pub(super) struct SealedFile {
    /// Its size.
    pub bytes: u64,
}

impl PartFile {
    /// Creates `<name>.part`, which must not exist.
    pub fn create(dir: &Path, name: &str, mode: u32) -> io::Result<Self> {
        let path = dir.join(format!("{name}{PART}"));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(&path)?;
        // The mode is the operator's word, whatever the process's umask.
        file.set_permissions(Permissions::from_mode(mode))?;
        // Tells whoever would repair it that it is being written. A file system without locks is no
        // reason not to record.
        let _ = lock(&file);
        Ok(Self { file: Arc::new(file), dir: dir.to_owned(), name: name.to_owned(), len: 0 })
    }

    /// Goes on with an open `<name>.part`, cut behind its first `len` bytes.
    pub fn resume(file: File, dir: &Path, name: &str, len: u64) -> io::Result<Self> {
        file.set_len(len)?;
        Ok(Self { file: Arc::new(file), dir: dir.to_owned(), name: name.to_owned(), len })
    }

    /// Bytes written.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The open file, for a sync beside the writing.
    pub fn handle(&self) -> Arc<File> {
        self.file.clone()
    }

    /// Appends bytes whole or not at all: after a failed write the file is cut back to where it was.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.file.write_all_at(bytes, self.len);
        if let Err(error) = written {
            if let Err(cut) = self.file.set_len(self.len) {
                tracing::warn!(file = %self.name, %cut, "a half-written cluster could not be cut off");
            }
            return Err(error);
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Makes the file whole and durable, then gives it its final name. If that fails, it stays a
    /// `.part` that can be repaired.
    pub fn seal(mut self, seal: &Seal) -> io::Result<SealedFile> {
        self.append(&seal.append)?;
        make_whole(&self.file, &seal.patches)?;
        fs::rename(self.part(), self.dir.join(&self.name))?;
        sync_dir(&self.dir)?;
        Ok(SealedFile { bytes: self.len })
    }

    /// Removes a file that holds no cluster.
    pub fn discard(self) -> io::Result<()> {
        fs::remove_file(self.part())
    }

    fn part(&self) -> PathBuf {
        self.dir.join(format!("{}{PART}", self.name))
    }
}

/// The last step of sealing, once the index is appended.
pub(super) fn make_whole(file: &File, patches: &[Patch]) -> io::Result<()> {
    // Patches tell readers that the index is there: it must be on the disk before them.
    file.sync_data()?;
    for patch in patches {
        file.write_all_at(&patch.bytes, patch.at)?;
    }
    file.sync_all()
}

/// Takes an open file for this process; another one gets an error of kind `WouldBlock`.
pub(super) fn lock(file: &File) -> io::Result<()> {
    Ok(rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?)
}

/// Bytes that may still be written where `path` is.
pub(super) fn free_space(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Whether an error means that there is no space.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Replaces `dir/name` atomically and durably: whoever reads it, after a power cut too, finds the old
/// bytes or the new ones.
pub(super) fn replace(dir: &Path, name: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(temporary_name(name));
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, dir.join(name))
    };
    if let Err(error) = write() {
        // Its space is needed most when there is none.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_dir(dir)
}

/// The name of `name`'s replacement while it is being written: hidden, and not a manifest's.
fn temporary_name(name: &str) -> String {
    format!(".{name}.tmp")
}

/// What the name of a copy ends with while a repair writes it beside the original.
pub(super) const COPY: &str = ".repair.tmp";

/// Whether a file is what a crash left of [`replace`], or of a repair: the original is still there.
pub(super) fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && (name.ends_with(".json.tmp") || name.ends_with(COPY))
}

/// Makes a folder's entries durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
