//! A file kept byte for byte as it comes: MP4, until it is demuxed like the rest.
//!
//! It has all that other recordings have: `.part` while it grows, a manifest, a seal, a hook, repair. It
//! is cut to its last whole fragment (S1), and it isn't rotated: bytes can't be told apart for that.

use crate::base::clock::Anchor;
use crate::base::end_reason::EndReason;
use crate::base::error_code::ErrorCode;
use crate::base::id::{RecordingId, StreamName};
use crate::catalog::manifest::{Manifest, ManifestTrack, RecordingState};
use crate::catalog::names;
use crate::container::Seal;
use crate::container::mp4::{FragmentReader, Mp4Track};
use crate::record::close::{Closing, End, end_of, failed};
use crate::record::file::{PartFile, RunningSync};
use crate::record::writer::Opening;
use crate::record::{Progress, Shared};
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// Chunks that may wait for the disk. A sink waits for each, so more than one never does.
const CHUNKS: usize = 1;

/// Where the bytes of one recording go.
#[derive(Clone, Debug)]
pub struct ByteSink {
    chunks: mpsc::Sender<Chunk>,
    end: watch::Sender<Option<EndReason>>,
}

#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    written: oneshot::Sender<()>,
}

impl ByteSink {
    /// Appends bytes; true once the operating system has them, false if the recording has ended.
    pub async fn write(&self, bytes: Bytes) -> bool {
        let (written, done) = oneshot::channel();
        self.chunks.send(Chunk { bytes, written }).await.is_ok() && done.await.is_ok()
    }

    /// Ends the recording, behind what is being written. Only the first end counts.
    pub fn end(&self, reason: EndReason) {
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert(reason);
            first
        });
    }
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    stream: StreamName,
    id: RecordingId,
    anchor: Anchor,
    chunks: mpsc::Receiver<Chunk>,
    ended: watch::Receiver<Option<EndReason>>,
    progress: watch::Sender<Progress>,
    open: Option<Open>,
}

/// The file, once a byte of it has come.
struct Open {
    manifest: Manifest,
    part: PartFile,
    reader: FragmentReader,
    synced: Instant,
    sync: Option<RunningSync>,
}

impl Writer {
    pub fn new(
        shared: Arc<Shared>,
        stream: StreamName,
        id: RecordingId,
        progress: watch::Sender<Progress>,
    ) -> (Self, ByteSink) {
        let (sender, chunks) = mpsc::channel(CHUNKS);
        let (end, ended) = watch::channel(None);
        let anchor = Anchor::now();
        let recorder = Self { shared, stream, id, anchor, chunks, ended, progress, open: None };
        (recorder, ByteSink { chunks: sender, end })
    }

    /// Records until the sink is told to end or is gone, or until writing fails.
    pub async fn run(mut self) {
        let end = self.record().await;
        let Self { shared, progress, open, .. } = self;
        let closing = Closing { shared, lost: Vec::new(), previous: None, progress: Some(progress) };
        closing.begin(&end);
        let reason = end.reason;
        let outcome = match open {
            Some(open) => close(&closing, open, end).await,
            None if end.error.is_some() => failed(&end),
            None => Progress::Empty(reason),
        };
        closing.end(reason, outcome).await;
    }

    async fn record(&mut self) -> End {
        let stop = self.shared.tasks.stop_token();
        loop {
            let next = tokio::select! {
                // What waits to be written comes before the end.
                biased;
                chunk = self.chunks.recv() => chunk.ok_or(None),
                ended = self.ended.wait_for(Option::is_some) => {
                    Err(ended.ok().and_then(|reason| *reason))
                }
                () = stop.cancelled() => Err(Some(EndReason::ServerStopped)),
            };
            let (reason, error) = match next {
                Ok(chunk) => match self.write(chunk).await {
                    Ok(()) => continue,
                    Err(error) => (end_of(&error), Some(error)),
                },
                // The sinks may be gone right behind the end.
                Err(reason) => (reason.or(*self.ended.borrow()).unwrap_or(EndReason::PublisherLost), None),
            };
            return End { reason, error };
        }
    }

    async fn write(&mut self, chunk: Chunk) -> io::Result<()> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.create().await?,
        };
        let bytes = chunk.bytes;
        let work = move || {
            let appended = open.append(&bytes);
            (open, appended)
        };
        let (mut open, appended) = self.shared.disk.write(work).await?;
        let synced = match appended {
            Ok(()) => open.sync(&self.shared).await,
            error => error,
        };
        self.open = Some(open);
        synced?;
        // A publisher that has gone meanwhile needs no answer.
        let _ = chunk.written.send(());
        self.progress.send_if_modified(|progress| {
            let first = matches!(progress, Progress::Waiting);
            if first {
                *progress = Progress::Writing;
            }
            first
        });
        Ok(())
    }

    /// The manifest first, durably, then the file.
    async fn create(&self) -> io::Result<Open> {
        let started_at = self.anchor.wall_at(Instant::now());
        let opening = Opening {
            id: self.id.clone(),
            stream: self.stream.clone(),
            tracks: Vec::new(),
            started_at,
            continues: None,
        };
        let file = format!("{}.mp4", names::stem(&self.stream, started_at, &self.id));
        let manifest = Manifest { file, mime: "video/mp4".to_owned(), ..opening.manifest() };
        self.shared.catalog.insert(manifest.clone()).await?;
        tracing::info!(id = %self.id, file = manifest.file, "recording");
        let (shared, name) = (self.shared.clone(), manifest.file.clone());
        let create = move || PartFile::create(&shared.config.dir, &name, shared.mode, shared.space.clone());
        let part = self.shared.disk.write(create).await??;
        Ok(Open { manifest, part, reader: FragmentReader::default(), synced: Instant::now(), sync: None })
    }
}

impl Open {
    /// Blocking.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.part.append(bytes)?;
        self.reader.push(bytes);
        self.part.check()
    }

    /// Has the file synced beside the writing.
    async fn sync(&mut self, shared: &Shared) -> io::Result<()> {
        self.part.reap_sync(&mut self.sync).await?;
        let interval = shared.config.sync_interval;
        if !interval.is_zero() && self.synced.elapsed() >= interval && self.sync.is_none() {
            let file = self.part.handle();
            self.sync = shared.disk.try_sync(move || file.sync_data());
            // With all slots taken the file stays due, and is asked for again at the next chunk.
            if self.sync.is_some() {
                self.synced = Instant::now();
            }
        }
        Ok(())
    }
}

async fn close(closing: &Closing, mut open: Open, mut end: End) -> Progress {
    let (id, shared) = (open.manifest.id.clone(), &closing.shared);
    if let Err(error) = open.part.await_sync(&mut open.sync).await {
        end.reason = end_of(&error);
    }
    if open.reader.whole() == 0 && !open.reader.has_media() {
        let _ = shared.disk.write(move || open.part.discard()).await;
        closing.forget(&id).await;
        return if end.error.is_some() { failed(&end) } else { Progress::Empty(end.reason) };
    }
    if open.reader.whole() == 0 {
        tracing::error!(%id, "no whole fragment came; the next start puts what there is into quarantine");
        let message = "what came of it does not make a file that plays: record in fragments";
        return Progress::Failed { code: ErrorCode::BadBlob, message: message.to_owned() };
    }
    let reason = end.reason;
    let work = move || {
        let Open { manifest, part, reader, .. } = &mut open;
        part.cut_back(reader.whole());
        part.seal(&Seal { append: Vec::new(), patches: Vec::new(), duration: Duration::ZERO })?;
        let mut manifest = manifest.clone();
        manifest.tracks = reader.tracks().iter().filter_map(listed).collect();
        if !manifest.tracks.iter().any(|track| track.kind == crate::media::Kind::Video) {
            manifest.mime = "audio/mp4".to_owned();
        }
        manifest.state = RecordingState::Sealed;
        manifest.bytes = reader.whole();
        manifest.lasted(reader.duration());
        manifest.end_reason = Some(reason);
        Ok(manifest)
    };
    closing.finish(&id, end, None, work).await
}

fn listed(track: &Mp4Track) -> Option<ManifestTrack> {
    let codec = track.codec?;
    Some(ManifestTrack {
        kind: codec.kind(),
        codec,
        frames: track.frames,
        width: track.size.map(|size| size.0),
        height: track.size.map(|size| size.1),
        lost: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::tasks::Tasks;
    use crate::record::{Config, Recordings};

    #[tokio::test]
    async fn a_file_that_found_no_slot_for_its_sync_stays_due() {
        let dir = tempfile::tempdir().unwrap();
        let sync_interval = Duration::from_nanos(1);
        let config = Config { dir: dir.path().to_owned(), sync_interval, ..Config::default() };
        let (recordings, _events) = Recordings::open(config, false, Tasks::new()).unwrap();
        let shared = &recordings.shared;
        let (progress, _) = watch::channel(Progress::Waiting);
        let id = shared.ids.next(jiff::Timestamp::now());
        let (writer, _sink) = Writer::new(shared.clone(), "due".parse().unwrap(), id, progress);
        let mut open = writer.create().await.unwrap();
        let due = open.synced;
        let slot = |_| {
            let (go, wait) = std::sync::mpsc::channel::<()>();
            Some((go, shared.disk.try_sync(move || wait.recv().is_err())?))
        };
        let taken: Vec<_> = (0..).map_while(slot).collect();
        open.sync(shared).await.unwrap();
        assert!(open.sync.is_none() && open.synced == due, "a whole interval is skipped");
        for (go, slot) in taken {
            drop(go);
            slot.await.unwrap();
        }
        open.sync(shared).await.unwrap();
        assert!(open.sync.is_some() && open.synced > due);
    }
}
