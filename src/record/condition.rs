//! Whether the folder can be recorded into: for health checks, which record nothing.
//!
//! The answer is tried, not guessed: a file system that went read-only, or that answers no more, shows
//! that only when written to. At most one look is under way however many requests ask, since one that hangs keeps its
//! thread, and an answer is good for some seconds, since any client may ask.

use crate::disk::space::Space;
use crate::disk::space::space_of;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// Written and removed. Should a crash leave it, the next start removes it as it does half-written
/// manifests.
const TRIED: &str = ".probe.json.tmp";
/// How long an answer is good.
const GOOD: Duration = Duration::from_secs(3);
/// A disk that takes longer to answer does not.
const PATIENCE: Duration = Duration::from_secs(3);

/// The state of the folder that recordings go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// A small file could be written just now.
    pub writable: bool,
    /// There is space for one more recording: at least `record.min_free`.
    pub has_space: bool,
    /// Bytes that are free, and all of the file system; `None` if it does not say.
    pub space: Option<(u64, u64)>,
}

impl Condition {
    /// Of a folder that nothing is wrong with.
    pub const FINE: Self = Self { writable: true, has_space: true, space: None };
    /// Of one that does not answer.
    const SILENT: Self = Self { writable: false, has_space: false, space: None };
}

#[derive(Debug)]
pub(super) struct Probe {
    dir: PathBuf,
    space: Arc<Space>,
    /// Locked during a look, by the thread that looks.
    last: Arc<Mutex<Option<(Instant, Condition)>>>,
}

impl Probe {
    pub fn new(dir: &Path, space: Arc<Space>) -> Self {
        Self { dir: dir.to_owned(), space, last: Arc::default() }
    }

    /// How it is. Waits for a look that is under way, and takes its answer.
    pub async fn look(&self) -> Condition {
        self.look_within(PATIENCE).await
    }

    async fn look_within(&self, patience: Duration) -> Condition {
        let looked = async {
            let mut last = self.last.clone().lock_owned().await;
            if let Some((at, condition)) = *last
                && at.elapsed() < GOOD
            {
                return condition;
            }
            let (dir, space) = (self.dir.clone(), self.space.clone());
            let look = move || {
                let told = last.is_some_and(|(_, condition)| !condition.writable);
                let condition = look(&dir, &space, told);
                *last = Some((Instant::now(), condition));
                condition
            };
            tokio::task::spawn_blocking(look).await.unwrap_or(Condition::SILENT)
        };
        timeout(patience, looked).await.unwrap_or(Condition::SILENT)
    }
}

/// Blocking.
fn look(dir: &Path, space: &Space, told: bool) -> Condition {
    let tried = write(&dir.join(TRIED));
    if let Err(error) = &tried
        && !told
    {
        tracing::warn!(%error, "the folder of recordings can't be written (record.dir)");
    }
    Condition {
        writable: tried.is_ok(),
        has_space: space.has_space().unwrap_or(false),
        space: space_of(dir).ok().flatten(),
    }
}

/// An empty file takes no space: a full disk is another matter.
fn write(path: &Path) -> io::Result<()> {
    fs::write(path, [])?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_that_is_gone_is_not_writable_and_an_answer_is_good_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("records");
        fs::create_dir(&folder).unwrap();
        let probe = || Probe::new(&folder, Arc::new(Space::open(&folder, 0)));
        let first = probe();
        let condition = first.look().await;
        let (free, all) = condition.space.unwrap();
        assert!(condition.writable && condition.has_space && free <= all && all > 0, "{condition:?}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "only the space kept back is left");
        let second = probe();
        fs::remove_dir_all(&folder).unwrap();
        assert!(first.look().await.writable, "asked again within seconds");
        let gone = second.look().await;
        assert!(!gone.writable && !gone.has_space, "{gone:?}");
    }

    #[tokio::test]
    async fn a_folder_that_answers_nobody_keeps_one_thread_and_no_request_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let probe = Probe::new(dir.path(), Arc::new(Space::open(dir.path(), 0)));
        let hung = probe.last.clone().lock_owned().await;
        assert_eq!(probe.look_within(Duration::from_millis(20)).await, Condition::SILENT);
        drop(hung);
        assert!(probe.look().await.writable);
    }
}
