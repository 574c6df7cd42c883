//! One process at a time works in a folder of recordings.

use crate::disk;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The file that is locked. It stays when no process works there: removing it would let two lock two files
/// of the same name.
const NAME: &str = ".lock";
/// How often it is tried again, and for how long: a process that was killed a moment ago, or a child it
/// was just about to start, may still hold it.
const AGAIN: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(3);

/// Another process works in the folder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} (record.dir) is in use by {}: stop that first, or set record.dir to another folder",
    dir.display(),
    pid.map_or("another onrecord".to_owned(), |pid| format!("another onrecord, process {pid}"))
)]
pub struct FolderInUse {
    /// The folder.
    pub dir: PathBuf,
    /// The process that holds it, as it says itself.
    pub pid: Option<u32>,
    /// Where that one serves HTTP, if it is a server that does already.
    pub http: Option<SocketAddr>,
    /// Whether it does so by TLS.
    pub tls: bool,
    /// What its paths begin with: nothing, or `/onrecord`.
    pub base: String,
}

/// Why a folder can't be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(transparent)]
    InUse(#[from] FolderInUse),
    /// Input or output failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A folder that no other process works in until this is dropped, or the process ends in whatever way.
///
/// A script is started with the lock open for as long as it still is a copy of this process, and no
/// longer: the process that gets the lock can tell all scripts of the process before from that process.
#[derive(Debug)]
pub struct FolderLock {
    file: File,
}

impl FolderLock {
    /// Locks a folder, which is made if it is missing; waits a moment for a process that is just ending. A file
    /// system without locks is no reason not to record.
    pub async fn take(dir: &Path) -> Result<Self, LockError> {
        std::fs::create_dir_all(dir)?;
        let file = open(&dir.join(NAME))?;
        let until = Instant::now() + PATIENCE;
        loop {
            match disk::lock(&file) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    tracing::warn!(%error, dir = %dir.display(), "record.dir can't be locked: see that one server uses it");
                    break;
                }
                Ok(()) => break,
            }
            if Instant::now() >= until {
                return Err(in_use(dir, &file).into());
            }
            sleep(AGAIN).await;
        }
        let mut lock = Self { file };
        lock.tell("");
        Ok(lock)
    }

    /// Tells processes that find the folder locked where this process serves HTTP, by TLS or not, and what
    /// paths begin with there.
    pub fn serves(&mut self, http: SocketAddr, tls: bool, base: &str) {
        let scheme = if tls { "https" } else { "http" };
        self.tell(&format!("{scheme}://{http}{base}"));
    }

    fn tell(&mut self, address: &str) {
        let text = format!("{}\n{address}\n", std::process::id());
        let write = |file: &mut File| {
            file.rewind()?;
            file.set_len(0)?;
            file.write_all(text.as_bytes())
        };
        if let Err(error) = write(&mut self.file) {
            // The lock holds; a process that waits for it is told less.
            tracing::debug!(%error, "the folder's lock can't name its holder");
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    match OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path) {
        // Made by another user, as by a command run as root: it can still be locked.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(path),
        opened => opened,
    }
}

/// The process that works in a folder now; leaves no trace.
pub fn holder(dir: &Path) -> Option<FolderInUse> {
    let file = File::open(dir.join(NAME)).ok()?;
    let taken = disk::lock(&file).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
    taken.then(|| in_use(dir, &file))
}

fn in_use(dir: &Path, mut file: &File) -> FolderInUse {
    let mut text = String::new();
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
    let mut lines = text.lines();
    let pid = lines.next().and_then(|pid| pid.parse().ok());
    let url = lines.next().unwrap_or_default();
    // A bare address is plain HTTP.
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (http, base) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (tls, base) = (scheme == "https", base.to_owned());
    FolderInUse { dir: dir.to_owned(), pid, http: http.parse().ok(), tls, base }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_has_one_holder_which_is_named_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("records");
        assert_eq!(holder(&dir), None);
        let mut lock = FolderLock::take(&dir).await.unwrap();
        let at = "127.0.0.1:8080".parse().unwrap();
        lock.serves(at, true, "/base");
        let Err(LockError::InUse(held)) = FolderLock::take(&dir).await else { panic!("two at a time") };
        assert_eq!((held.pid, held.http), (Some(std::process::id()), Some(at)));
        assert_eq!((held.tls, held.base.as_str()), (true, "/base"));
        assert!(held.to_string().contains("record.dir"), "{held}");
        assert_eq!(holder(&dir), Some(held));
        drop(lock);
        assert_eq!(holder(&dir), None);
        drop(FolderLock::take(&dir).await.unwrap());
    }

    #[test]
    fn an_address_without_a_scheme_is_plain_http() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"12\n[::1]:8080\n").unwrap();
        let held = in_use(Path::new("x"), &file);
        assert_eq!((held.pid, held.http), (Some(12), "[::1]:8080".parse().ok()));
        assert_eq!((held.tls, held.base.as_str()), (false, ""));
    }
}
