//! Space on the disk (S6): what may take it, and what is kept back for when there is none.
//!
//! Two things are kept back. Each open file has space for its index beyond its end, so
//! that it can be sealed. And one hidden file holds blocks for manifests: it shrinks when one doesn't
//! fit, and grows again when there is space. While it is broken into, nothing of ours may grow, or a
//! recording would take what was given up for the manifest of another.

use parking_lot::{Mutex, RwLock};
use rustix::fs::FallocateFlags;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The hidden file that is given up when a manifest doesn't fit.
const RESERVE: &str = ".reserve";
/// Its size. A manifest on a full disk takes what it grew by: the old one's blocks come back. So this
/// is enough for the last manifests, and the notes of all hooks, of some hundred recordings.
const RESERVED: u64 = 1 << 20;
/// What a replacement takes beside its bytes: the rest of its last block, its inode, its name.
const OVERHEAD: u64 = 16 << 10;
/// With less than this free no recording begins: it would end before it is worth a file.
const TO_BEGIN: u64 = 1 << 20;
/// The same for inodes: a recording takes one for its file, one for its manifest, and for a moment one for each
/// manifest that is replaced.
const INODES_TO_BEGIN: u64 = 8;
/// After a recording ended for want of space, none begins before so much more is free: what its end
/// gave back would only make another one end.
const MORE: u64 = 1 << 20;
/// Far above `record.min_free` there is space whatever a recording met (a quota, say).
const PLENTY: u64 = 64 << 20;
/// How long a full disk is believed to be full without a look. A recording that begins on one all the same ends
/// with its first write.
const KNOWN: Duration = Duration::from_secs(30);
/// How often the reserve is tried to be made whole again.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// The space of one folder.
#[derive(Debug)]
pub struct Space {
    dir: PathBuf,
    min_free: u64,
    /// Whether the reserve is broken into. Held for reading while something of ours grows.
    spent: RwLock<bool>,
    /// When the reserve was last changed, or tried to be made whole. Held while it is.
    touched: Mutex<Instant>,
    /// Below this much free space nothing begins; 0 if nothing ended for want of space.
    full_below: AtomicU64,
    /// When it was last seen that there is none for one more recording; `None` once there was.
    full: Mutex<Option<Instant>>,
}

impl Space {
    /// The space of `dir`, with a reserve if one fits. Blocking.
    pub fn open(dir: &Path, min_free: u64) -> Self {
        let space = Self {
            dir: dir.to_owned(),
            min_free,
            spent: RwLock::new(false),
            touched: Mutex::new(Instant::now()),
            full_below: AtomicU64::new(0),
            full: Mutex::new(None),
        };
        match space.build() {
            Err(error) if is_full(&error) => {
                tracing::warn!(%error, "no space is kept back for manifests: nothing is recorded until there is");
                *space.spent.write() = true;
            }
            // A file system that can't is no reason not to record.
            Err(error) => tracing::warn!(%error, "no space is kept back for manifests"),
            Ok(()) => {}
        }
        space
    }

    /// Whether there is space for one more recording. Blocking: a local file system answers from memory, one
    /// that stalls answers not at all.
    pub fn has_space(&self) -> io::Result<bool> {
        let has_space = self.look()?;
        *self.full.lock() = (!has_space).then(Instant::now);
        Ok(has_space)
    }

    /// Whether there was none a moment ago: for callers that must not wait for a disk. It is seen anew before each
    /// publisher is taken, and whenever a recording ends for want of space.
    pub fn was_full(&self) -> bool {
        self.full.lock().is_some_and(|seen| seen.elapsed() < KNOWN)
    }

    fn look(&self) -> io::Result<bool> {
        let free = free_space(&self.dir)?;
        let wanted = self.min_free.max(TO_BEGIN).max(self.full_below.load(Ordering::Relaxed));
        if free < wanted || free_inodes(&self.dir)? < INODES_TO_BEGIN || !self.is_whole() {
            return Ok(false);
        }
        self.full_below.store(0, Ordering::Relaxed);
        Ok(true)
    }

    /// A recording ended for want of space. Where it was inodes that it lacked, bytes will not come back with
    /// them: a small disk may never have so many.
    pub fn ended_full(&self) {
        if free_inodes(&self.dir).is_ok_and(|free| free >= INODES_TO_BEGIN) {
            let more = free_space(&self.dir).unwrap_or(0) + MORE;
            self.full_below.fetch_max(more.min(self.min_free + PLENTY), Ordering::Relaxed);
        }
        *self.full.lock() = Some(Instant::now());
    }

    /// Fails if less than `record.min_free` is free.
    pub fn guard(&self) -> io::Result<()> {
        if self.min_free == 0 {
            return Ok(());
        }
        let (free, min_free) = (free_space(&self.dir)?, self.min_free);
        if free >= min_free {
            return Ok(());
        }
        let message = format!("{free} bytes are free, record.min_free is {min_free}");
        Err(io::Error::new(io::ErrorKind::StorageFull, message))
    }

    /// Does what takes space, unless all there is is kept for manifests. Blocking.
    pub fn grow<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let mut spent = self.spent.read();
        if *spent {
            drop(spent);
            self.is_whole();
            spent = self.spent.read();
        }
        if *spent {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "what is free is kept for manifests"));
        }
        work()
    }

    /// Does what must not fail for want of space: if it does, so many bytes of the reserve are given up
    /// for it, then all of it. Blocking.
    pub fn relieved<T>(&self, bytes: u64, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        for give_up in [Self::shrink, Self::remove] {
            match work() {
                Err(error) if is_full(&error) => {
                    let mut touched = self.touched.lock();
                    // What was growing has finished then, and nothing begins.
                    if !std::mem::replace(&mut *self.spent.write(), true) {
                        tracing::warn!("the disk is full: what must be written takes of the space kept back");
                    }
                    *touched = Instant::now();
                    if let Err(error) = give_up(self, bytes + OVERHEAD) {
                        tracing::warn!(%error, "the space kept back can't be given up");
                    }
                }
                done => return done,
            }
        }
        work()
    }

    fn shrink(&self, bytes: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.reserve())?;
        file.set_len(file.metadata()?.len().saturating_sub(bytes))?;
        // Blocks are free for others once their journal says so.
        file.sync_all()
    }

    /// Of a disk without inodes, too, this gives one back.
    fn remove(&self, _: u64) -> io::Result<()> {
        fs::remove_file(self.reserve())?;
        super::sync_dir(&self.dir)
    }

    /// Whether the reserve is whole, after trying to make it so. Does not wait for another that works on it:
    /// that one does so for want of space.
    fn is_whole(&self) -> bool {
        if self.spent.try_read().is_some_and(|spent| !*spent) {
            return true;
        }
        let Some(mut touched) = self.touched.try_lock() else { return false };
        if touched.elapsed() < TRY_EVERY {
            return false;
        }
        *touched = Instant::now();
        let built = self.build();
        if built.is_ok() {
            *self.spent.write() = false;
            tracing::info!("there is space again: some is kept back for manifests");
        }
        built.is_ok()
    }

    /// Makes the reserve as large as it should be, if that leaves something.
    fn build(&self) -> io::Result<()> {
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(self.reserve())?;
        let meta = file.metadata()?;
        if meta.len() == RESERVED && meta.blocks() * 512 >= RESERVED {
            return Ok(());
        }
        if free_space(&self.dir)? < RESERVED + TO_BEGIN {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "too little is free to keep some back"));
        }
        match allocate(&file, FallocateFlags::empty(), 0, RESERVED) {
            Err(error) if !is_full(&error) => fill(&file),
            done => done,
        }
    }

    fn reserve(&self) -> PathBuf {
        self.dir.join(RESERVE)
    }
}

/// Where blocks can't be taken beforehand, bytes take them; zeros might be kept as a hole.
fn fill(file: &File) -> io::Result<()> {
    let noise: Vec<u8> = (0..RESERVED / 8).flat_map(|_| rand::random::<u64>().to_ne_bytes()).collect();
    file.write_all_at(&noise, 0)
}

/// Bytes that may still be written where `path` is, as far as its file system counts them.
pub fn free_space(path: &Path) -> io::Result<u64> {
    Ok(space_of(path)?.map_or(u64::MAX, |(free, _)| free))
}

/// The same with the size of all; `None` where the file system does not say.
pub fn space_of(path: &Path) -> io::Result<Option<(u64, u64)>> {
    let stat = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok((stat.f_blocks > 0).then(|| (bytes(stat.f_bavail), bytes(stat.f_blocks))))
}

/// Names that may still be given in the file system of `path`; as many as can be counted where it has no bound
/// for them.
pub fn free_inodes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(if stat.f_files > 0 { stat.f_favail } else { u64::MAX })
}

/// Whether an error means that there is no space.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Takes blocks for `len` bytes of a file from `at` on, without changing its length.
pub fn allocate_ahead(file: &File, at: u64, len: u64) -> io::Result<()> {
    allocate(file, FallocateFlags::KEEP_SIZE, at, len)
}

fn allocate(file: &File, flags: FallocateFlags, at: u64, len: u64) -> io::Result<()> {
    rustix::io::retry_on_intr(|| rustix::fs::fallocate(file, flags, at, len))?;
    Ok(())
}
