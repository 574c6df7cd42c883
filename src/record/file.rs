//! A recording's file: `.part` while it grows, then sealed. Blocking; runs on [`crate::disk::worker`].

use crate::base::metrics::metrics;
use crate::catalog::names::{PART, QUARANTINE};
use crate::container::{Patch, Seal};
use crate::disk::space::is_full;
use crate::disk::space::{Space, allocate_ahead};
use crate::disk::{lock, move_away, sync_dir};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How often the path and the free space are looked at.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Blocks are taken this much ahead: one call every few seconds, and files in few pieces.
const ALLOCATE_STEP: u64 = 1 << 20;
/// What is kept for the index grows in steps of this: half an hour of keyframes each second, or so.
const INDEX_STEP: u64 = 64 << 10;
const COPY_CHUNK: usize = 1 << 20;
/// What the cluster that is written next may add to the index.
const ONE_CLUSTER: u64 = 4 << 10;

/// A file that is being written. Its end is always the end of a whole cluster, and beyond it blocks are
/// kept for the index, so that it can be sealed on a full disk: no cluster is begun that would take them.
#[derive(Debug)]
pub(super) struct PartFile {
    file: Arc<File>,
    dir: PathBuf,
    name: String,
    len: u64,
    space: Arc<Space>,
    /// What is kept for the index.
    kept: u64,
    /// How far the file has blocks; none where they can't be taken beforehand (NFS, FUSE).
    allocated: Option<u64>,
    /// A sync has failed: the system may have given up what was to be written, and takes it for clean.
    doubted: bool,
    sealing: Sealing,
    /// When the path and the free space were looked at last.
    checked: Instant,
}

pub(super) type RunningSync = JoinHandle<io::Result<()>>;

/// How far the sealing of a file has come: what fails is tried again from there on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sealing {
    NotBegun,
    Begun,
    Renamed,
}

/// A file under its final name: whole, and on the disk.
#[derive(Debug)]
pub(super) struct SealedFile {
    /// Its size.
    pub bytes: u64,
}

impl PartFile {
    /// Creates `<name>.part`, which must not exist.
    pub fn create(dir: &Path, name: &str, mode: u32, space: Arc<Space>) -> io::Result<Self> {
        let path = dir.join(format!("{name}{PART}"));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(&path)?;
        // The mode is the operator's word, whatever the process's umask.
        file.set_permissions(Permissions::from_mode(mode))?;
        // Tells a repair by another process that it is being written. A file system without locks is no
        // reason not to record.
        let _ = lock(&file);
        Ok(Self::new(file, dir, name, 0, space))
    }

    /// Goes on with an open `<name>.part`, cut behind its first `len` bytes.
    pub fn resume(file: File, dir: &Path, name: &str, len: u64, space: Arc<Space>) -> io::Result<Self> {
        file.set_len(len)?;
        Ok(Self::new(file, dir, name, len, space))
    }

    fn new(file: File, dir: &Path, name: &str, len: u64, space: Arc<Space>) -> Self {
        let (dir, name) = (dir.to_owned(), name.to_owned());
        Self {
            file: Arc::new(file),
            dir,
            name,
            len,
            space,
            kept: INDEX_STEP,
            allocated: Some(len),
            doubted: false,
            sealing: Sealing::NotBegun,
            checked: Instant::now(),
        }
    }

    /// Bytes written.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The open file, for a sync beside the writing.
    pub fn handle(&self) -> Arc<File> {
        self.file.clone()
    }

    /// Says how large the index would be now.
    pub fn keep_for_index(&mut self, index: u64) {
        self.kept = (index + ONE_CLUSTER).next_multiple_of(INDEX_STEP);
    }

    /// Leaves out what is behind the first `len` bytes.
    pub fn cut_back(&mut self, len: u64) {
        self.len = self.len.min(len);
    }

    /// Takes the outcome of a sync beside the writing, if it has come to its end.
    pub async fn reap_sync(&mut self, sync: &mut Option<RunningSync>) -> io::Result<()> {
        match sync.take_if(|sync| sync.is_finished()) {
            Some(sync) => self.outcome(sync).await,
            None => Ok(()),
        }
    }

    /// Waits for a sync beside the writing.
    pub async fn await_sync(&mut self, sync: &mut Option<RunningSync>) -> io::Result<()> {
        match sync.take() {
            Some(sync) => self.outcome(sync).await,
            None => Ok(()),
        }
    }

    async fn outcome(&mut self, sync: RunningSync) -> io::Result<()> {
        sync.await.map_err(io::Error::other).flatten().inspect_err(|_| self.doubted = true)
    }

    /// Appends bytes whole or not at all, and only if there is still space for the index behind them.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.check_length()?;
        self.allocate(bytes.len() as u64)?;
        self.write(bytes)
    }

    /// Has blocks for so many more bytes and the index.
    fn allocate(&mut self, bytes: u64) -> io::Result<()> {
        let Some(allocated) = self.allocated else { return self.space.grow(|| Ok(())) };
        let needed = self.len + bytes + self.kept;
        if allocated >= needed {
            return Ok(());
        }
        let take = |end: u64| allocate_ahead(&self.file, allocated, end - allocated).map(|()| end);
        let taken = self.space.grow(|| match take(needed + ALLOCATE_STEP) {
            // As much as there must be.
            Err(error) if is_full(&error) => take(needed),
            taken => taken,
        });
        self.allocated = match taken {
            Err(error) if is_full(&error) => return Err(error),
            // Whether the disk takes bytes is told by writing some.
            taken => taken.ok(),
        };
        Ok(())
    }

    /// After a failed write the file is cut back to where it was.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.file.write_all_at(bytes, self.len);
        if let Err(error) = written {
            if let Err(cut) = self.file.set_len(self.len) {
                tracing::warn!(file = %self.name, %cut, "a half-written cluster could not be cut off");
            }
            // With it went the blocks ahead: those for the index are taken anew, if that is possible.
            self.allocated = self.allocated.map(|_| self.len);
            let _ = self.allocate(0);
            return Err(error);
        }
        self.len += bytes.len() as u64;
        metrics().recordings.bytes.inc_by(bytes.len() as u64);
        Ok(())
    }

    /// Makes the file whole and durable, then gives it its final name. What fails can be tried again;
    /// until then it is a `.part` that can be repaired. An error of [`is_changed`] stays: the file is not
    /// what was written.
    pub fn seal(&mut self, seal: &Seal) -> io::Result<SealedFile> {
        let bytes = self.len + seal.append.len() as u64;
        if self.sealing != Sealing::Renamed {
            self.restore_path()?;
            self.make_whole(seal, bytes)?;
            fs::rename(self.part(), self.dir.join(&self.name))?;
            self.sealing = Sealing::Renamed;
            metrics().recordings.bytes.inc_by(seal.append.len() as u64);
        }
        sync_dir(&self.dir)?;
        Ok(SealedFile { bytes })
    }

    fn make_whole(&mut self, seal: &Seal, bytes: u64) -> io::Result<()> {
        if self.sealing == Sealing::NotBegun {
            self.check_length()?;
            self.sealing = Sealing::Begun;
        }
        let append = || self.file.write_all_at(&seal.append, self.len);
        self.space.relieved(seal.append.len() as u64, append)?;
        // The blocks behind it are given back.
        self.file.set_len(bytes)?;
        if self.doubted {
            write_again(&self.file, bytes)?;
        }
        make_whole(&self.file, &seal.patches).inspect_err(|_| self.doubted = true)
    }

    /// Whether all that was written is still there. What others append is overwritten, or cut off.
    fn check_length(&self) -> io::Result<()> {
        let there = self.file.metadata()?.len();
        if there >= self.len {
            return Ok(());
        }
        Err(changed(format!("somebody cut it to {there} bytes of {}", self.len)))
    }

    /// Looks, now and then, whether its name still leads to this file and there is still `record.min_free` space.
    pub fn check(&mut self) -> io::Result<()> {
        if self.checked.elapsed() < CHECK_EVERY {
            return Ok(());
        }
        self.checked = Instant::now();
        self.check_path()?;
        self.space.guard()
    }

    fn check_path(&self) -> io::Result<()> {
        if self.is_at_path()? {
            return Ok(());
        }
        Err(changed("somebody removed, moved or replaced it".to_owned()))
    }

    fn is_at_path(&self) -> io::Result<bool> {
        let own = self.file.metadata()?;
        match fs::symlink_metadata(self.part()) {
            Ok(there) => Ok((there.dev(), there.ino()) == (own.dev(), own.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The file may have been removed, moved or replaced: its bytes, which this process still has, are
    /// copied to where they belong, and what is there goes to quarantine.
    fn restore_path(&mut self) -> io::Result<()> {
        if self.is_at_path()? {
            return Ok(());
        }
        let path = self.part();
        tracing::error!(file = %path.display(), "somebody removed, moved or replaced it: it is written again");
        if path.symlink_metadata().is_ok() {
            move_away(&path, &self.dir.join(QUARANTINE), &format!("{}{PART}", self.name))?;
        }
        let new = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let _ = lock(&new);
        let copied = copy_file(&self.file, &new);
        if copied.is_err() {
            let _ = fs::remove_file(&path);
        }
        copied?;
        self.file = Arc::new(new);
        Ok(())
    }

    /// Removes a file that holds no cluster, if it is still this one.
    pub fn discard(self) -> io::Result<()> {
        if self.is_at_path()? { fs::remove_file(self.part()) } else { Ok(()) }
    }

    fn part(&self) -> PathBuf {
        self.dir.join(format!("{}{PART}", self.name))
    }
}

/// Has bytes written to the disk that the system takes for written: the next sync tells the truth.
fn write_again(file: &File, len: u64) -> io::Result<()> {
    let mut chunk = vec![0; COPY_CHUNK];
    for at in (0..len).step_by(COPY_CHUNK) {
        let chunk = &mut chunk[..COPY_CHUNK.min((len - at) as usize)];
        file.read_exact_at(chunk, at)?;
        file.write_all_at(chunk, at)?;
    }
    Ok(())
}

fn copy_file(from: &File, to: &File) -> io::Result<()> {
    let meta = from.metadata()?;
    to.set_permissions(meta.permissions())?;
    let mut chunk = vec![0; COPY_CHUNK];
    for at in (0..meta.len()).step_by(COPY_CHUNK) {
        let chunk = &mut chunk[..COPY_CHUNK.min((meta.len() - at) as usize)];
        from.read_exact_at(chunk, at)?;
        to.write_all_at(chunk, at)?;
    }
    Ok(())
}

/// The file is not what was written to it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Changed(String);

fn changed(how: String) -> io::Error {
    io::Error::other(Changed(how))
}

/// Whether an error means that another process has changed the file.
pub(super) fn is_changed(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|error| error.is::<Changed>())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Its length, and what it takes on the disk.
    fn taken(path: &Path) -> (u64, u64) {
        let meta = fs::metadata(path).unwrap();
        (meta.len(), meta.blocks() * 512)
    }

    #[test]
    fn space_for_the_index_is_always_there_and_given_back_when_the_file_is_sealed() {
        // Beside the build: on a disk, where the folder of temporary files may be memory.
        let near = std::env::current_exe().unwrap();
        for parent in [near.parent().unwrap(), Path::new("/dev/shm")] {
            let dir = tempfile::tempdir_in(parent).unwrap();
            let space = Arc::new(Space::open(dir.path(), 0));
            let mut part = PartFile::create(dir.path(), "a.webm", 0o640, space).unwrap();
            let (path, cluster) = (dir.path().join("a.webm.part"), vec![7; 300_000]);
            for step in 1..=20 {
                part.append(&cluster).unwrap();
                part.keep_for_index(step * 10_000);
                let (len, blocks) = taken(&path);
                assert_eq!(len, step * 300_000, "blocks ahead are not part of the file");
                assert!(blocks >= len + (step - 1) * 10_000, "{blocks} bytes taken for {len} and the index");
            }
            let ahead = taken(&path);
            let index = vec![9; 200_000];
            part.seal(&Seal { append: index, patches: Vec::new(), duration: Default::default() }).unwrap();
            let (len, blocks) = taken(&dir.path().join("a.webm"));
            println!("{}: {ahead:?} before sealing, {:?} after", parent.display(), (len, blocks));
            assert!(ahead.1 >= ahead.0 + 200_000, "{ahead:?}");
            assert_eq!(len, 6_200_000);
            assert!(blocks < len + 8192, "{blocks} bytes are taken for {len}");
        }
    }

    #[test]
    fn what_a_crash_left_ahead_is_given_back_when_a_repair_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let space = Arc::new(Space::open(dir.path(), 0));
        let mut part = PartFile::create(dir.path(), "a.webm", 0o640, space.clone()).unwrap();
        part.append(&[7; 5_000]).unwrap();
        drop(part);
        let path = dir.path().join("a.webm.part");
        assert!(taken(&path).1 > ALLOCATE_STEP, "{:?}", taken(&path));
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        drop(PartFile::resume(file, dir.path(), "a.webm", 5_000, space).unwrap());
        assert!(taken(&path).1 <= 8192, "{:?}", taken(&path));
    }
}
