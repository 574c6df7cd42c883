//! One file being written, and what its manifest will say.

use crate::base::end_reason::EndReason;
use crate::base::id::{RecordingId, StreamName};
use crate::base::metrics::metrics;
use crate::catalog::manifest::{
    HookRecord, HookState, Manifest, ManifestGap, ManifestTrack, RecordingState, cut_gaps,
};
use crate::catalog::names;
use crate::container::{Container, Head, Muxer};
use crate::disk::space::Space;
use crate::media::{Gap, Track};
use crate::record::file::{PartFile, RunningSync, SealedFile};
use crate::record::interleave::QueuedFrame;
use jiff::{Timestamp, TimestampRound, Unit};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Holes a manifest lists. Later ones are merged into the last of their track, so that an hour on a
/// bad network says less, not more than an operator can read.
const MAX_GAPS: usize = 1_000;

#[derive(Debug)]
pub(super) struct FileWriter {
    /// What its manifest says so far.
    pub manifest: Manifest,
    /// A sync that runs beside the writing.
    pub sync: Option<RunningSync>,
    /// When the last sync began.
    pub synced: Instant,
    /// Time of the stream that is 0 in the file.
    base: Duration,
    part: PartFile,
    muxer: Box<dyn Muxer>,
    /// The frames in the fragments in memory, each with where it ends there: should they not be written,
    /// another file may have them.
    unwritten: Vec<(usize, QueuedFrame)>,
    gaps: Vec<ManifestGap>,
    /// Holes that reach beyond the last frame: one a track at most.
    trailing: Vec<ManifestGap>,
    /// Packets that never came, by track, as the manifest has it.
    noted: Vec<u64>,
    /// The manifest doesn't have all gaps.
    unnoted: bool,
    /// Bytes were written since the last sync.
    unsynced: bool,
}

/// What a recording under way has lost so far.
#[derive(Debug)]
pub(super) struct Note {
    pub id: RecordingId,
    /// Packets of each track that never came.
    lost: Vec<u64>,
    gaps: Vec<ManifestGap>,
}

impl Note {
    pub fn apply(&self, manifest: &mut Manifest) {
        for (track, lost) in manifest.tracks.iter_mut().zip(&self.lost) {
            track.lost = *lost;
        }
        manifest.gaps.clone_from(&self.gaps);
    }
}

/// Why and where a file begins.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    pub id: RecordingId,
    pub stream: StreamName,
    pub tracks: Vec<Track>,
    pub started_at: Timestamp,
    pub continues: Option<RecordingId>,
}

impl Opening {
    /// The manifest of a recording that has just begun.
    pub fn manifest(&self) -> Manifest {
        let track = |track: &Track| ManifestTrack {
            kind: track.codec.kind(),
            codec: track.codec,
            frames: 0,
            width: None,
            height: None,
            lost: 0,
        };
        let container = Container::of(&self.tracks);
        Manifest {
            id: self.id.clone(),
            stream: self.stream.clone(),
            file: format!("{}.{}", names::stem(&self.stream, self.started_at, &self.id), container.suffix()),
            mime: container.mime(&self.tracks).to_owned(),
            state: RecordingState::Recording,
            started_at: to_millis(self.started_at),
            ended_at: None,
            bytes: 0,
            duration_ms: 0,
            file_present: true,
            continues: self.continues.clone(),
            tracks: self.tracks.iter().map(track).collect(),
            gaps: Vec::new(),
            end_reason: None,
            reason: None,
            error: None,
            hook: HookRecord::new(HookState::None),
        }
    }
}

impl FileWriter {
    /// Creates the file; its time 0 is the stream's `first`. Blocking.
    pub fn create(
        dir: &Path,
        mode: u32,
        opening: &Opening,
        first: &QueuedFrame,
        max_span: Duration,
        space: Arc<Space>,
    ) -> io::Result<Self> {
        let frame = &first.frame;
        let (mut tracks, mut sizes) = (opening.tracks.clone(), vec![None; opening.tracks.len()]);
        sizes[frame.track] = frame.size;
        if !frame.private.is_empty() {
            tracks[frame.track].private = frame.private.clone();
        }
        let head = Head {
            tracks: &tracks,
            sizes: &sizes,
            uid: rand::random::<u64>() >> 1,
            unix_nanos: opening.started_at.as_nanosecond(),
            title: opening.stream.as_str(),
        };
        let manifest = opening.manifest();
        Ok(Self {
            part: PartFile::create(dir, &manifest.file, mode, space)?,
            manifest,
            sync: None,
            synced: Instant::now(),
            base: first.frame.time,
            muxer: Container::of(&tracks).muxer(&head, max_span),
            unwritten: Vec::new(),
            gaps: Vec::new(),
            trailing: Vec::new(),
            noted: vec![0; opening.tracks.len()],
            unnoted: false,
            unsynced: false,
        })
    }

    /// So many bytes of frames will be pushed.
    pub fn reserve(&mut self, bytes: usize) {
        self.muxer.reserve(bytes);
    }

    /// Adds a frame to the fragments in memory.
    pub fn push(&mut self, queued: QueuedFrame) {
        let frame = &queued.frame;
        if let Some(gap) = queued.gap {
            self.note_gap(gap);
        }
        // A track that turns out to have begun before the first frame written is squeezed in at the
        // start: a millisecond apart until it has caught up.
        let time = self.time_of(frame.time);
        if queued.silent {
            return self.muxer.push_filler(frame.track, time, &frame.data);
        }
        self.muxer.push(frame, time);
        self.unwritten.push((self.muxer.bytes().len(), queued));
    }

    /// The frames that a failed write has left in no file, in the order they were pushed. Silence is made
    /// anew for the file they go into.
    pub fn take_back(&mut self) -> Vec<QueuedFrame> {
        self.unwritten.drain(..).map(|(_, queued)| queued).collect()
    }

    /// Notes a hole that no frame ends: the recording does.
    pub fn note_trailing(&mut self, gap: Gap) {
        self.trailing.extend(self.in_file(gap));
    }

    /// A hole in the file's time; `None` if it lies before the file.
    fn in_file(&self, gap: Gap) -> Option<ManifestGap> {
        let millis = |time: Duration| time.saturating_sub(self.base).as_millis() as u64;
        let (from_ms, to_ms) = (millis(gap.from), millis(gap.to));
        if from_ms >= to_ms {
            return None;
        }
        metrics().recordings.gaps.inc([gap.reason.as_str()]);
        Some(ManifestGap { track: gap.track + 1, from_ms, to_ms, reason: gap.reason })
    }

    fn note_gap(&mut self, gap: Gap) {
        let Some(gap) = self.in_file(gap) else { return };
        let ManifestGap { track, from_ms, to_ms, .. } = gap;
        self.unnoted = true;
        let full = self.gaps.len() >= MAX_GAPS;
        let last = self.gaps.iter_mut().rev().find(|known| known.track == track);
        match last {
            Some(last) if full || (last.reason == gap.reason && from_ms <= last.to_ms) => {
                last.to_ms = to_ms.max(last.to_ms);
            }
            _ if full => {}
            _ => self.gaps.push(gap),
        }
    }

    /// Length of the file once what is in memory is written.
    pub fn bytes(&self) -> u64 {
        self.part.len() + self.pending()
    }

    /// Bytes that are in memory.
    pub fn pending(&self) -> u64 {
        self.muxer.bytes().len() as u64
    }

    /// Time of the stream that is 0 in the file.
    pub fn base(&self) -> Duration {
        self.base
    }

    /// Time in the file of a frame of the stream.
    pub fn time_of(&self, time: Duration) -> Duration {
        time.saturating_sub(self.base)
    }

    /// Whether a frame is in the file or on its way into it.
    pub fn has_frames(&self) -> bool {
        !self.muxer.bytes().is_empty() || self.recorded()
    }

    /// Whether a frame is in the file.
    pub fn recorded(&self) -> bool {
        self.manifest.tracks.iter().enumerate().any(|(track, _)| {
            let written = self.muxer.written(track);
            written.frames + written.filled > 0
        })
    }

    /// Writes what is in memory, each fragment with one write, and looks whether there is still
    /// `record.min_free` space. Blocking. What was written before an error is in the file and in the
    /// index.
    pub fn write(&mut self) -> io::Result<()> {
        self.muxer.finish();
        let written = self.write_fragments();
        self.muxer.clear();
        written?;
        self.part.check()
    }

    fn write_fragments(&mut self) -> io::Result<()> {
        for (fragment, range) in self.muxer.fragments().into_iter().enumerate() {
            if self.part.len() == 0 {
                self.part.append(self.muxer.head())?;
            }
            let at = self.part.len();
            self.part.append(&self.muxer.bytes()[range.clone()])?;
            self.muxer.commit(fragment, at);
            self.unwritten.retain(|(end, _)| *end > range.end);
            self.part.keep_for_index(self.muxer.tail_at_most());
            self.unsynced = true;
        }
        Ok(())
    }

    /// Takes the mark that bytes were written since the last sync.
    pub fn take_unsynced(&mut self) -> bool {
        std::mem::take(&mut self.unsynced)
    }

    /// Puts the mark back.
    pub fn set_unsynced(&mut self, unsynced: bool) {
        self.unsynced |= unsynced;
    }

    /// What the manifest should say of losses, if it doesn't yet.
    pub fn note(&mut self, lost: &[u64]) -> Option<Note> {
        if !std::mem::take(&mut self.unnoted) && self.noted == lost {
            return None;
        }
        self.noted = lost.to_vec();
        Some(Note { id: self.manifest.id.clone(), lost: lost.to_vec(), gaps: self.gaps.clone() })
    }

    /// The manifest does not say it after all.
    pub fn set_unnoted(&mut self, unnoted: bool) {
        self.unnoted |= unnoted;
    }

    /// The open file.
    pub fn file(&self) -> Arc<std::fs::File> {
        self.part.handle()
    }

    /// Takes the outcome of a sync that has come to its end.
    pub async fn reap_sync(&mut self) -> io::Result<()> {
        self.part.reap_sync(&mut self.sync).await
    }

    /// Waits for a sync that still runs.
    pub async fn await_sync(&mut self) -> io::Result<()> {
        self.part.await_sync(&mut self.sync).await
    }

    /// Makes the file whole and gives it its final name; returns what the manifest says then. What fails
    /// can be tried again. Blocking.
    pub fn seal(&mut self, reason: EndReason, lost: &[u64]) -> io::Result<Manifest> {
        let seal = self.muxer.seal(self.part.len());
        let SealedFile { bytes } = self.part.seal(&seal)?;
        let mut manifest = self.manifest.clone();
        for (index, track) in manifest.tracks.iter_mut().enumerate() {
            let written = self.muxer.written(index);
            track.frames = written.frames;
            track.width = written.size.map(|size| size.width);
            track.height = written.size.map(|size| size.height);
            track.lost = lost.get(index).copied().unwrap_or(0);
        }
        manifest.state = RecordingState::Sealed;
        manifest.bytes = bytes;
        manifest.lasted(seal.duration);
        manifest.gaps = self.gaps.clone();
        // Fragments that a full disk did not take are in no file.
        cut_gaps(&mut manifest.gaps, manifest.duration_ms);
        manifest.gaps.append(&mut self.trailing.clone());
        manifest.note_absent();
        manifest.end_reason = Some(reason);
        Ok(manifest)
    }

    /// Removes a file that holds nothing. Blocking.
    pub fn discard(self) -> io::Result<()> {
        self.part.discard()
    }
}

/// Manifests say times in milliseconds.
pub(super) fn to_millis(at: Timestamp) -> Timestamp {
    at.round(TimestampRound::new().smallest(Unit::Millisecond)).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{Codec, Frame, GapReason};
    use bytes::Bytes;

    fn space(dir: &tempfile::TempDir) -> Arc<Space> {
        Arc::new(Space::open(dir.path(), 0))
    }

    #[test]
    fn the_list_of_holes_is_bounded_and_adjacent_ones_are_merged() {
        let dir = tempfile::tempdir().unwrap();
        let started_at = Timestamp::now();
        let opening = Opening {
            id: RecordingId::new(started_at),
            stream: "s".parse().unwrap(),
            tracks: vec![Track::opus(2)],
            started_at,
            continues: None,
        };
        let ms = Duration::from_millis;
        let frame = Frame { time: ms(500), keyframe: true, ..Frame::of(0, Bytes::new()) };
        let first = QueuedFrame { at: Instant::now(), frame, gap: None, silent: false };
        let mut writer =
            FileWriter::create(dir.path(), 0o640, &opening, &first, ms(1000), space(&dir)).unwrap();
        let gap = |from, to| Gap { track: 0, from: ms(from), to: ms(to), reason: GapReason::Loss };
        writer.note_gap(gap(100, 400));
        assert!(writer.gaps.is_empty(), "a hole before the file");
        writer.note_gap(gap(600, 700));
        writer.note_gap(gap(700, 800));
        assert_eq!(writer.gaps.iter().map(|g| (g.from_ms, g.to_ms)).collect::<Vec<_>>(), [(100, 300)]);
        for step in 1..2_000 {
            writer.note_gap(gap(step * 1000, step * 1000 + 10));
        }
        assert_eq!(writer.gaps.len(), MAX_GAPS);
        assert_eq!(writer.gaps[MAX_GAPS - 1].to_ms, 1_999_000 + 10 - 500);
        writer.discard().unwrap();
        let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), [".reserve"]);
    }

    /// Bytes this thread handed to the kernel, and its CPU time.
    fn cost() -> (u64, Duration) {
        let io = std::fs::read_to_string("/proc/thread-self/io").unwrap();
        let written = io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap();
        let cpu = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        let nanos = cpu.split(' ').next().unwrap().parse().unwrap();
        (written, Duration::from_nanos(nanos))
    }

    #[test]
    fn sealing_an_hour_writes_the_index_and_little_more() {
        let dir = tempfile::tempdir().unwrap();
        let started_at = Timestamp::now();
        let tracks = vec![Track::video(Codec::Vp8), Track::opus(2)];
        let (id, stream) = (RecordingId::new(started_at), "hour".parse().unwrap());
        let opening = Opening { id, stream, tracks, started_at, continues: None };
        let data = Bytes::from(vec![0xfc; 400]);
        let queued = |track, millis: u64, keyframe| {
            let (at, time) = (Instant::now(), Duration::from_millis(millis));
            let frame = Frame { time, keyframe, ..Frame::of(track, data.clone()) };
            QueuedFrame { at, frame, gap: None, silent: false }
        };
        let second = Duration::from_secs(1);
        let mut writer =
            FileWriter::create(dir.path(), 0o640, &opening, &queued(0, 0, true), second, space(&dir))
                .unwrap();
        for second in 0..3600 {
            for step in 0..50 {
                writer.push(queued(1, second * 1000 + step * 20, true));
                if step % 2 == 0 {
                    writer.push(queued(0, second * 1000 + step * 20, second % 2 == 0 && step == 0));
                }
            }
            writer.write().unwrap();
        }
        let append = writer.muxer.seal(writer.part.len()).append;
        // A CuePoint begins with its CueTime.
        let cues = append.windows(3).filter(|bytes| (bytes[0], bytes[2]) == (0xbb, 0xb3)).count();
        let index = append.len() as u64;
        writer.file().sync_all().unwrap();
        let (before, started) = (cost(), Instant::now());
        let manifest = writer.seal(EndReason::Stopped, &[]).unwrap();
        let (wall, after) = (started.elapsed(), cost());
        let (bytes, cpu) = (after.0 - before.0, after.1 - before.1);
        println!(
            "sealing {} ms with {cues} cues: {bytes} bytes written, {index} of them the index; \
             CPU {cpu:?}, waiting for the disk {:?}",
            manifest.duration_ms,
            wall.saturating_sub(cpu),
        );
        assert_eq!((cues, manifest.duration_ms), (1800, 3_600_000));
        assert!(bytes <= index + (64 << 10), "{bytes} bytes for an index of {index}");
        assert!(cpu < Duration::from_millis(500), "{cpu:?} of CPU");
    }
}
