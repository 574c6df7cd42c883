//! The recorder: one task a recording, a lossless reader of a stream.
//!
//! It sleeps until a flush is due, then drains, interleaves and writes in one go: a wake-up and a
//! write a second, however many frames there are.

mod failover;
mod intake;

use crate::base::clock::Anchor;
use crate::base::end_reason::EndReason;
use crate::base::id::{RecordingId, StreamName};
use crate::catalog::manifest::Manifest;
use crate::live::{Stopper, Stream, Tap};
use crate::media::{Kind, Track};
use crate::record::close::{Closing, End, Stage};
use crate::record::interleave::{Interleaver, QueuedFrame};
use crate::record::rotation::Files;
use crate::record::writer::{FileWriter, Opening};
use crate::record::{Progress, Shared};
use failover::Failures;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use tracing::Instrument;

/// The tracks are declared this long after the first frame, whichever of them have shown up.
const HEAD_AFTER: Duration = Duration::from_millis(500);
/// A picture track that is silent for this long can't be waited for with a change of files.
const NO_PICTURES: Duration = Duration::from_secs(10);
/// How soon to look again while frames come but none can begin a file.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Bytes of clusters that are written at a time: silence of hours is made in a moment.
const MAX_PENDING: u64 = 4 << 20;
/// How often the manifest may be written while the file is never synced.
const NOTE_EVERY: Duration = Duration::from_secs(5);
/// How soon to notice that a stream went away without a frame and without an end.
const LOOK_FOR_ORPHANS: Duration = Duration::from_secs(10);

pub(super) struct Recorder {
    shared: Arc<Shared>,
    stream: StreamName,
    tracks: Vec<Track>,
    tap: Tap,
    anchor: Anchor,
    progress: watch::Sender<Progress>,
    queue: Interleaver,
    /// Packets of each track that never came, since the current file began.
    lost: Vec<u64>,
    stage: Stage,
    files: Arc<Files>,
    /// When it joined a stream under way, until the picture comes that it begins with.
    joined: Option<Instant>,
    /// The file before this one, while it is being sealed.
    previous: Option<oneshot::Receiver<Option<Box<Manifest>>>>,
    /// The file that the next one goes on from.
    continues: Option<RecordingId>,
    failures: Failures,
}

impl Recorder {
    pub fn new(
        shared: Arc<Shared>,
        stream: &Stream,
        files: Arc<Files>,
        id: RecordingId,
        joined: Option<Instant>,
        progress: watch::Sender<Progress>,
    ) -> Self {
        let window = shared.config.fill_silence.then_some(shared.config.reorder_window);
        let pictures = stream.tracks().iter().any(|track| track.codec.kind() == Kind::Video);
        Self {
            shared,
            stream: stream.name().clone(),
            tracks: stream.tracks().to_vec(),
            tap: stream.tap(),
            anchor: Anchor::now(),
            progress,
            queue: Interleaver::new(stream.tracks(), window),
            lost: vec![0; stream.tracks().len()],
            stage: Stage::Waiting(id),
            files,
            joined: joined.filter(|_| pictures),
            previous: None,
            continues: None,
            failures: Failures::default(),
        }
    }

    /// What ends this recording alone.
    pub fn stopper(&self) -> Stopper {
        self.tap.stopper()
    }

    /// Records until the stream ends, or writing does.
    pub async fn run(mut self) {
        let end = self.record().await;
        let Self { shared, progress, lost, stage, previous, tap, .. } = self;
        // Nothing drains it from here on: it would fill up while the file is sealed.
        drop(tap);
        let closing = Closing { shared, lost, previous, progress: Some(progress) };
        closing.begin(&end);
        let reason = end.reason;
        let outcome = closing.close(stage, end).await;
        closing.end(reason, outcome).await;
    }

    async fn record(&mut self) -> End {
        let stop = self.shared.tasks.stop_token();
        let mut due = self.next_due(Instant::now());
        loop {
            let stopped = tokio::select! {
                () = self.tap.woken() => false,
                () = tokio::time::sleep_until(due.into()) => false,
                () = stop.cancelled() => true,
            };
            let orphaned = self.tap.orphaned();
            let now = Instant::now();
            let ended = self.take_in(self.tap.drain(), now);
            let reason = match ended {
                Some(reason) => Some(reason),
                None if stopped => Some(EndReason::ServerStopped),
                None if orphaned => Some(EndReason::PublisherLost),
                None => None,
            };
            while self.flush_is_due(now, reason.is_some())
                && let Err(error) = self.flush(now, reason.is_some()).await
            {
                if let Err(end) = self.fail_over(error, now) {
                    return end;
                }
            }
            if let Some(reason) = reason {
                self.note_rest();
                return End { reason, error: None };
            }
            self.tap.holds(self.queue.bytes());
            due = self.next_due(now);
        }
    }

    /// The first frame is there: says so, and starts the manifest on its way while more frames come.
    fn begin(&mut self, at: Instant) {
        let Stage::Waiting(id) = std::mem::replace(&mut self.stage, Stage::Nothing) else { return };
        let continues = self.continues.take();
        let opening = self.opening(id, at, continues);
        tracing::info!(id = %opening.id, continues = ?opening.continues, "recording");
        let (shared, manifest) = (self.shared.clone(), opening.manifest());
        let (done, written) = oneshot::channel();
        self.shared.tasks.spawn("manifest", async move {
            let _ = done.send(shared.catalog.insert(manifest).await.map_err(io::Error::from));
        });
        self.files.begin(opening.id.clone());
        self.stage = Stage::Opening(opening, Some(written));
        self.progress.send_replace(Progress::Writing);
    }

    fn opening(&self, id: RecordingId, at: Instant, continues: Option<RecordingId>) -> Opening {
        Opening {
            id,
            stream: self.stream.clone(),
            tracks: self.tracks.clone(),
            started_at: self.anchor.wall_at(at),
            continues,
        }
    }

    /// How long a frame may wait in memory: a little less than the flush interval, for the write
    /// itself takes time too.
    fn hold(&self) -> Duration {
        let interval = self.shared.config.flush_interval;
        (interval - (interval / 10).min(Duration::from_millis(50))).max(Duration::from_millis(10))
    }

    /// When to look at the tap if it does not wake the recorder before.
    fn next_due(&self, now: Instant) -> Instant {
        let oldest = self.queue.oldest().unwrap_or(now);
        match &self.stage {
            Stage::Waiting(_) if self.joined.is_some() || self.queue.is_waiting_for_keyframe() => {
                now + LOOK_AGAIN
            }
            Stage::Waiting(_) => now + LOOK_FOR_ORPHANS,
            Stage::Opening(..) => oldest + HEAD_AFTER.min(self.hold()),
            _ => {
                let last = oldest + self.hold();
                // Until then what waits for another track may have to go on waiting.
                Some(self.in_step(last)).filter(|step| *step > now).unwrap_or(last)
            }
        }
    }

    /// The last step up to an instant. All recordings write at the same steps, so that many of them take one
    /// wake-up together. There are some of them in the time that frames may wait, so that not all write at once;
    /// what is left of it is for frames that had to wait for those of another track.
    fn in_step(&self, at: Instant) -> Instant {
        let step = self.hold().as_micros() * 2 / 9;
        let since = at.saturating_duration_since(self.shared.began).as_micros();
        at - Duration::from_micros((since % step) as u64)
    }

    /// Whether it is time to write. Once a file is open every wake-up has a reason to.
    fn flush_is_due(&self, now: Instant, ended: bool) -> bool {
        match &self.stage {
            Stage::Opening(..) => ended || self.next_due(now) <= now,
            Stage::Writing(_) => true,
            _ => false,
        }
    }

    /// Hands what is in memory to the operating system, in whole clusters.
    async fn flush(&mut self, now: Instant, all: bool) -> io::Result<()> {
        let limit = if all { Duration::MAX } else { self.queue.releasable(now, self.hold()) };
        self.queue.pass(now);
        if all {
            self.queue.end();
        }
        self.open_first(limit).await?;
        while let Some(rotate) = self.push_frames(limit, now) {
            self.write().await?;
            if rotate {
                self.rotate(limit, now).await?;
            }
        }
        self.sync(now).await
    }

    /// Moves frames up to `limit` into clusters; `None` when there are none, else whether it stopped
    /// before a frame that begins the next file.
    fn push_frames(&mut self, limit: Duration, now: Instant) -> Option<bool> {
        let Stage::Writing(writer) = &mut self.stage else { return None };
        let config = &self.shared.config;
        let cut = self.files.cut_since();
        let mut any = false;
        writer.reserve(self.queue.bytes().min(MAX_PENDING as usize));
        loop {
            self.queue.queue_silence(limit);
            let Some(next) = self.queue.peek(limit) else { break };
            let wished = cut.is_some_and(|since| next.at >= since);
            let long =
                !config.max_duration.is_zero() && writer.time_of(next.frame.time) >= config.max_duration;
            let large = config.max_bytes > 0 && writer.bytes() >= config.max_bytes;
            if (wished || long || large)
                && writer.has_frames()
                && can_begin(next, &self.tracks, &self.queue, now)
            {
                // Silence that belongs before it goes first.
                let time = next.frame.time;
                if self.queue.settle(time) {
                    continue;
                }
                return Some(true);
            }
            if writer.pending() >= MAX_PENDING {
                break;
            }
            if let Some(queued) = self.queue.pop(limit) {
                writer.push(queued);
            }
            any = true;
        }
        any.then_some(false)
    }

    async fn write(&mut self) -> io::Result<()> {
        let Stage::Writing(mut writer) = std::mem::replace(&mut self.stage, Stage::Nothing) else {
            return Ok(());
        };
        let work = move || {
            let written = writer.write();
            (writer, written)
        };
        let (writer, written) = self.shared.disk.write(work).await?;
        self.stage = Stage::Writing(writer);
        written
    }

    /// Creates the first file, once its manifest is durable.
    async fn open_first(&mut self, limit: Duration) -> io::Result<()> {
        let Stage::Opening(opening, manifest) = &mut self.stage else { return Ok(()) };
        let opening = opening.clone();
        if let Some(written) = manifest.take() {
            written.await.map_err(io::Error::other)??;
        }
        if let Some(writer) = self.create(opening.clone(), limit).await? {
            self.queue.begin(writer.base());
            self.stage = Stage::Writing(Box::new(writer));
        }
        Ok(())
    }

    async fn create(&mut self, opening: Opening, limit: Duration) -> io::Result<Option<FileWriter>> {
        let Some(first) = self.queue.peek(limit) else { return Ok(None) };
        let first = QueuedFrame { at: first.at, frame: first.frame.clone(), gap: None, silent: false };
        let shared = self.shared.clone();
        let work = move || {
            let config = &shared.config;
            let space = shared.space.clone();
            FileWriter::create(&config.dir, shared.mode, &opening, &first, config.flush_interval, space)
        };
        self.shared.disk.write(work).await?.map(Some)
    }

    /// Goes on in a new file and seals the old one beside it. `now` is the flush's: whether pictures come
    /// is asked of the same instant as in [`can_begin`].
    async fn rotate(&mut self, limit: Duration, now: Instant) -> io::Result<()> {
        let Stage::Writing(old) = &self.stage else { return Ok(()) };
        let old_id = old.manifest.id.clone();
        let Some(at) = self.queue.peek(limit).map(|queued| queued.at) else { return Ok(()) };
        let id = self.files.next(|| self.shared.ids.next(self.anchor.wall_at(at)));
        let opening = self.opening(id, at, Some(old_id));
        self.shared.catalog.insert(opening.manifest()).await?;
        let id = opening.id.clone();
        let created = self.create(opening, limit).await;
        let Ok(Some(writer)) = created else {
            self.shared.catalog.remove(&id).await?;
            return created.map(|_| ());
        };
        self.queue.begin(writer.base());
        self.files.set_current(writer.manifest.id.clone());
        tracing::info!(id = %writer.manifest.id, continues = ?writer.manifest.continues, "recording");
        let old = std::mem::replace(&mut self.stage, Stage::Writing(Box::new(writer)));
        if !self.queue.has_pictures(now, NO_PICTURES) {
            self.queue.want_keyframe();
        }
        self.seal_beside(old, End { reason: EndReason::Rotated, error: None });
        Ok(())
    }

    fn seal_beside(&mut self, old: Stage, end: End) {
        let (done, sealed) = oneshot::channel();
        let lost = std::mem::replace(&mut self.lost, vec![0; self.tracks.len()]);
        let previous = self.previous.replace(sealed);
        let closing = Closing { shared: self.shared.clone(), lost, previous, progress: None };
        let active = self.shared.active();
        let seal = async move {
            let outcome = closing.close(old, end).await;
            let _ = done.send(closing.tell(outcome).await);
            drop(active);
        };
        self.shared.tasks.spawn("seal", seal.in_current_span());
    }

    /// Has the file synced beside the writing, and losses noted in the manifest, for a crash would take
    /// them along. A sync that failed is an end: what it was to save may be gone, and no later one will
    /// say so again.
    async fn sync(&mut self, now: Instant) -> io::Result<()> {
        let Stage::Writing(writer) = &mut self.stage else { return Ok(()) };
        writer.reap_sync().await?;
        let interval = self.shared.config.sync_interval;
        let rhythm = if interval.is_zero() { NOTE_EVERY } else { interval };
        if writer.sync.is_some() || now.saturating_duration_since(writer.synced) < rhythm {
            return Ok(());
        }
        let sync = !interval.is_zero() && writer.take_unsynced();
        let note = writer.note(&self.lost);
        if !sync && note.is_none() {
            return Ok(());
        }
        let file = writer.file();
        let work = move || if sync { file.sync_data() } else { Ok(()) };
        let Some(synced) = self.shared.disk.try_sync(work) else {
            // With all slots taken the file stays due, and is asked for again at the next flush.
            writer.set_unsynced(sync);
            writer.set_unnoted(note.is_some());
            return Ok(());
        };
        let shared = self.shared.clone();
        let sync = async move {
            synced.await.map_err(io::Error::other).flatten()?;
            if let Some(note) = note {
                shared.note(note).await;
            }
            Ok(())
        };
        writer.sync = Some(self.shared.tasks.spawn("sync", sync.in_current_span()));
        writer.synced = now;
        Ok(())
    }
}

/// Whether a file can begin with this frame: with a keyframe, or with sound where no pictures come.
fn can_begin(next: &QueuedFrame, tracks: &[Track], queue: &Interleaver, now: Instant) -> bool {
    match tracks[next.frame.track].codec.kind() {
        _ if next.silent => false,
        Kind::Video => next.frame.keyframe,
        Kind::Audio => !queue.has_pictures(now, NO_PICTURES),
    }
}
