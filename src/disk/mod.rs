//! What all modules that keep files need: replacing them at once and durably, space and what is kept back of it, and
//! threads that may wait for a disk.

pub mod space;
pub mod worker;

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Replaces `dir/name` atomically and durably: a reader, after a power cut too, finds the old bytes or
/// the new ones.
pub fn replace(dir: &Path, name: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
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

/// What changes when a file is replaced or written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    len: u64,
    inode: u64,
}

impl Stamp {
    /// Of a file as it is now.
    pub fn of(meta: &Metadata) -> Self {
        Self { modified: (meta.mtime(), meta.mtime_nsec()), len: meta.len(), inode: meta.ino() }
    }
}

/// Makes a folder's entries durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Moves a file into a folder, which may have to be made, and never over another one.
pub fn move_away(path: &Path, folder: &Path, name: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut free = folder.join(name);
    for number in 1.. {
        if !free.try_exists()? {
            break;
        }
        free = folder.join(format!("{name}.{number}"));
    }
    fs::rename(path, free)?;
    sync_dir(folder)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Takes an open file for this process; another one gets an error of kind `WouldBlock`.
pub fn lock(file: &File) -> io::Result<()> {
    Ok(rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?)
}
