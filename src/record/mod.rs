//! Frames → files → catalogue. Emits events, knows no hook.
//!
//! ```text
//!  live::Tap ─▶ recorder ─▶ interleave ─▶ writer ─▶ file (.part ─▶ sealed)
//!                                          └────▶ manifest ─▶ catalog ─▶ Event::Sealed
//! ```
//!
//! Rules: a file under a final name is whole and durable; its manifest is durable before it is
//! announced; all work on files runs on [`Disk`], never on a thread that serves the network; what
//! must be written at the end has its space from the beginning ([`Space`]).

mod backoff;
mod close;
mod condition;
mod config;
mod file;
mod fill_silence;
mod interleave;
mod lock;
mod mjpeg_playback;
mod passthrough;
mod recorder;
mod recording;
mod recover;
mod repair;
mod retention;
mod rotation;
mod silence;
#[cfg(test)]
mod tests;
mod writer;

pub use condition::Condition;
pub use config::Config;
pub use fill_silence::Filled;
pub use lock::{FolderInUse, FolderLock, LockError, holder};
pub use mjpeg_playback::{Picture, Pictures};
pub use passthrough::ByteSink;
pub use recording::{Progress, Recording};
pub use repair::{Done, OnProgress, RepairError, Repaired, repair, repair_and_fill};
pub use retention::{Removal, Retention, Rule, doubt, would_remove};
pub use rotation::Begun;

use crate::base::id::{RecordingId, RecordingIds, StreamName};
use crate::base::metrics::Scrape;
use crate::base::tasks::Tasks;
use crate::catalog::files::FileCatalog;
use crate::catalog::{Catalog, Change, Folder, HookState, Manifest, RecordingError, RecordingState};
use crate::disk::space::Space;
use crate::disk::worker::Disk;
use crate::live::Stream;
use condition::Probe;
use parking_lot::Mutex;
use recorder::Recorder;
use recover::Leftover;
use rotation::{Control, Files};
use std::fmt::Display;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use writer::Note;

/// What happens to recordings, for running hooks.
#[derive(Clone, Debug)]
pub enum Event {
    /// A file is sealed and its manifest, with the hook's job in it, is durable. Files of one stream
    /// come in their order.
    Sealed(Box<Manifest>),
}

impl From<Event> for Manifest {
    fn from(Event::Sealed(manifest): Event) -> Self {
        *manifest
    }
}

/// Events that may wait for their receiver. When it is full, the tasks that sealed a file wait; what
/// they have to tell is in the manifests already.
const EVENTS: usize = 256;

/// The recordings of one folder: starts them, lists them, removes them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Recordings {
    shared: Arc<Shared>,
}

/// What all recorders of a folder share.
#[derive(Debug)]
struct Shared {
    config: Config,
    mode: u32,
    hook_configured: bool,
    catalog: Arc<dyn Catalog>,
    /// The manifests beside the recordings of this server.
    files: FileCatalog,
    folder: Folder,
    ids: Arc<RecordingIds>,
    disk: Disk,
    space: Arc<Space>,
    events: mpsc::Sender<Event>,
    tasks: Tasks,
    /// What the steps are counted from at which recordings write.
    began: Instant,
    /// Recorders and sealings under way.
    active: watch::Sender<usize>,
    probe: Arc<Probe>,
    /// The server stops: what can't be sealed now is left to the next start.
    leaving: CancellationToken,
    /// What the last run left, until [`Recordings::recover`] takes it.
    leftovers: Mutex<Vec<Leftover>>,
}

impl Shared {
    /// Counts as under way until it is dropped.
    fn active(self: &Arc<Self>) -> Active {
        self.active.send_modify(|active| *active += 1);
        Active(self.clone())
    }

    /// Writes what a recording under way has lost so far, for recovery to know: it costs the recording nothing if
    /// that fails.
    async fn note(&self, note: Note) {
        let apply = |manifest: &mut Manifest| {
            note.apply(manifest);
            Ok(())
        };
        if let Err(error) = self.catalog.update(&note.id, apply).await {
            tracing::warn!(%error, "a crash would lose what the recording has lost so far");
        }
    }

    /// A recording that is over can't be sealed for now: it is shown with this error until it is.
    async fn show_fault(&self, id: &RecordingId, error: &impl Display) {
        let error = error.to_string();
        let show = |manifest: &mut Manifest| {
            if manifest.is_under_way() {
                manifest.state = RecordingState::Sealing;
                manifest.error = Some(error.clone());
            }
            Ok(())
        };
        if let Ok(Manifest { file, .. }) = self.catalog.update(id, show).await {
            tracing::error!(%id, file, error, "it can't be sealed: that is tried again");
        }
    }

    /// Recordings that are over and could not be sealed so far.
    fn unsealed(&self) -> usize {
        let sealing = |manifest: &Manifest| manifest.state == RecordingState::Sealing;
        self.catalog.page(None, usize::MAX, &sealing).len()
    }

    /// What a sealed recording's manifest says of its hook.
    fn hook_state(&self) -> HookState {
        if self.hook_configured { HookState::Queued } else { HookState::None }
    }
}

/// One recorder or sealing under way.
struct Active(Arc<Shared>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.send_modify(|active| *active -= 1);
    }
}

impl Recordings {
    /// Opens a folder (creating it if it is missing) and reads its manifests. Blocking: for the start
    /// of the server. With a hook configured, sealed recordings say that it is queued.
    pub fn open(
        config: Config,
        hook_configured: bool,
        tasks: Tasks,
    ) -> Result<(Self, mpsc::Receiver<Event>), RecordingError> {
        let bad = |message: String| RecordingError::Io(io::Error::new(io::ErrorKind::InvalidInput, message));
        let mode =
            u32::from_str_radix(&config.mode, 8).ok().filter(|mode| *mode <= 0o777).ok_or_else(|| {
                bad(format!(
                    "record.mode: expected octal permissions such as \"0640\", found {:?}",
                    config.mode
                ))
            })?;
        let dir = std::path::absolute(&config.dir)?;
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", dir.display()));
        std::fs::create_dir_all(&dir).map_err(named)?;
        let disk = Disk::default();
        let space = Arc::new(Space::open(&dir, config.min_free));
        let folder = Folder::new(&dir, mode, space.clone());
        let files = FileCatalog::load(folder.clone(), disk.clone()).map_err(named)?;
        let newest = files.page(None, 1, &|_| true).into_iter().next();
        let ids = Arc::new(RecordingIds::after(newest.map(|manifest| manifest.id)));
        let leftovers = Mutex::new(recover::find(&dir, &files).map_err(named)?);
        let config = Config { dir, ..config };
        let (events, receiver) = mpsc::channel(EVENTS);
        let active = watch::Sender::new(0);
        let probe = Arc::new(Probe::new(&config.dir, space.clone()));
        let leaving = tasks.stop_token().child_token();
        let shared = Shared {
            config,
            mode,
            hook_configured,
            catalog: Arc::new(files.clone()),
            files,
            folder,
            ids,
            disk,
            space,
            events,
            tasks,
            began: Instant::now(),
            active,
            probe,
            leaving,
            leftovers,
        };
        Ok((Self { shared: Arc::new(shared) }, receiver))
    }

    /// Whether there is space to record. Blocking; what starts afterwards goes by the answer.
    pub fn has_space(&self) -> Result<(), RecordingError> {
        if self.shared.space.has_space()? { Ok(()) } else { Err(RecordingError::DiskFull) }
    }

    /// Repairs what the last run left unfinished (S3), beside everything else, and announces each file
    /// once it is whole. Until then it is listed as `recording`. Told to stop, it leaves the rest to
    /// the next start. Call it once, when the receiver of events has read which hooks are due: what is repaired
    /// is both announced and due.
    pub fn recover(&self) {
        let mut leftovers = self.shared.leftovers.lock();
        let leftovers = std::mem::take(&mut *leftovers);
        if !leftovers.is_empty() {
            let span = tracing::info_span!("recover");
            self.shared.tasks.spawn("recover", recover::run(self.shared.clone(), leftovers).instrument(span));
        }
    }

    /// The answer that [`Recordings::has_space`] gave last: starting a recording holds up media, and must not
    /// wait for a disk.
    fn begins(&self) -> Result<(), RecordingError> {
        if self.shared.space.was_full() { Err(RecordingError::DiskFull) } else { Ok(()) }
    }

    /// Starts recording `stream` into a new file. The answer's `id` is the first file's; should the
    /// recording go on in further files, its progress ends with the last one.
    pub fn start(&self, stream: &Stream) -> Result<Recording, RecordingError> {
        self.start_at(stream, None)
    }

    /// The same for a stream that is under way: the file begins with the next picture that can begin
    /// one, or with sound where no pictures come.
    pub fn join(&self, stream: &Stream) -> Result<Recording, RecordingError> {
        self.start_at(stream, Some(Instant::now()))
    }

    fn start_at(&self, stream: &Stream, joined: Option<Instant>) -> Result<Recording, RecordingError> {
        self.begins()?;
        let id = self.shared.ids.next(jiff::Timestamp::now());
        let (sender, progress) = watch::channel(Progress::Waiting);
        let files = Files::new(id.clone());
        let recorder = Recorder::new(self.shared.clone(), stream, files.clone(), id.clone(), joined, sender);
        let control = Some(Control { files, stopper: recorder.stopper(), ids: self.shared.ids.clone() });
        let active = self.shared.active();
        let span = tracing::info_span!("recording", stream = %stream.name(), %id);
        let task = async move {
            recorder.run().await;
            drop(active);
        };
        self.shared.tasks.spawn("recorder", task.instrument(span));
        Ok(Recording { id, progress, control })
    }

    /// Starts a recording of bytes that are kept as they come: an `.mp4`. They are put into the sink.
    pub fn start_bytes(&self, stream: &StreamName) -> Result<(Recording, ByteSink), RecordingError> {
        self.begins()?;
        let id = self.shared.ids.next(jiff::Timestamp::now());
        let (sender, progress) = watch::channel(Progress::Waiting);
        let (writer, sink) =
            passthrough::Writer::new(self.shared.clone(), stream.clone(), id.clone(), sender);
        let active = self.shared.active();
        let span = tracing::info_span!("recording", stream = %stream, %id);
        let task = async move {
            writer.run().await;
            drop(active);
        };
        self.shared.tasks.spawn("recorder", task.instrument(span));
        Ok((Recording { id, progress, control: None }, sink))
    }

    /// The catalogue that the recordings are in.
    pub fn catalog(&self) -> Arc<dyn Catalog> {
        self.shared.catalog.clone()
    }

    /// The folder that their files are in.
    pub fn folder(&self) -> Folder {
        self.shared.folder.clone()
    }

    /// All recordings but the deleted ones, newest first. Blocking.
    pub fn list(&self) -> Vec<Manifest> {
        self.page(None, usize::MAX, |_| true)
    }

    /// So many of those that are `wanted`, newest first, and older than `before`. Blocking: it looks whether
    /// their files are there.
    pub fn page(
        &self,
        before: Option<&RecordingId>,
        limit: usize,
        wanted: impl Fn(&Manifest) -> bool,
    ) -> Vec<Manifest> {
        let wanted = |manifest: &Manifest| manifest.state != RecordingState::Deleted && wanted(manifest);
        let found = self.shared.catalog.page(before, limit, &wanted);
        found.into_iter().map(|manifest| self.shared.folder.look(manifest)).collect()
    }

    /// One recording; of a deleted one the manifest is left.
    pub fn get(&self, id: &RecordingId) -> Option<Manifest> {
        let record = self.shared.catalog.get(id)?;
        Some(self.shared.folder.look(record.manifest))
    }

    /// The recording whose file had this name once it was sealed, and the file's path. A file that
    /// was moved away still has its manifest here, with `file_present: false`.
    pub fn by_file(&self, file: &str) -> Option<(Manifest, PathBuf)> {
        let manifest = self.shared.folder.look(self.shared.catalog.by_file(file)?);
        let path = self.path(&manifest);
        Some((manifest, path))
    }

    /// The absolute path of a recording's file.
    pub fn path(&self, manifest: &Manifest) -> PathBuf {
        self.shared.folder.path(manifest)
    }

    /// What happens to recordings from now on.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.shared.catalog.changes()
    }

    /// Removes a recording's file; the manifest stays, saying `deleted`.
    pub async fn delete(&self, id: &RecordingId) -> Result<Manifest, RecordingError> {
        let deleted = self.shared.catalog.delete(id, |_| true).await?;
        // What begins goes by what was seen last, and there may be space again.
        let space = self.shared.space.clone();
        let _ = self.shared.disk.write(move || space.has_space()).await;
        Ok(deleted)
    }

    /// The state of the folder, as of some seconds ago at most.
    pub async fn condition(&self) -> Condition {
        self.shared.probe.look().await
    }

    /// What there is at present.
    pub fn gauges(&self, scrape: &mut Scrape) {
        let help = "Recordings under way, those being sealed too";
        scrape.gauge("recordings_open", help, *self.shared.active.borrow() as u64);
        let help = "Recordings that are over, and that the disk refuses to finish: that is tried again";
        scrape.gauge("recordings_sealing", help, self.shared.unsealed() as u64);
        self.shared.disk.gauges(scrape);
    }

    /// Waits until no recording is under way: all are sealed and told, but for those that the disk
    /// refuses, which are left to the next start. Streams must have ended, and the receiver of events must
    /// go on.
    pub async fn drained(&self) {
        self.shared.leaving.cancel();
        let mut active = self.shared.active.subscribe();
        // An error would mean that the sender is gone, which `self` holds.
        let _ = active.wait_for(|active| *active == 0).await;
    }
}
