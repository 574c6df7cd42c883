//! The manifest: the one truth about a recording.

use crate::base::clock::{as_millis, as_some_millis};
use crate::base::end_reason::EndReason;
use crate::base::id::{RecordingId, StreamName};
use crate::media::{Codec, GapReason, Kind};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;

/// Where a recording stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecordingState {
    /// Its file is a `.part`.
    Recording,
    /// It is over, and its file still a `.part`: what fails is tried again. No manifest on the disk says so.
    Sealing,
    /// Its file is whole and has its final name.
    Sealed,
    /// It could not be repaired.
    Quarantined,
    /// Its file was removed on request or by retention.
    Deleted,
}

/// One track, as recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ManifestTrack {
    /// Video or audio.
    pub kind: Kind,
    /// The codec.
    pub codec: Codec,
    /// Frames written.
    pub frames: u64,
    /// Largest width seen, in pixels; video only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Largest height seen, in pixels; video only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Packets that never came.
    pub lost: u64,
}

/// A hole in a track.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ManifestGap {
    /// The Matroska track number: the position in `tracks`, counted from 1.
    pub track: usize,
    /// Where it begins, in milliseconds of the file.
    pub from_ms: u64,
    /// Where it ends.
    pub to_ms: u64,
    /// Why.
    pub reason: GapReason,
}

/// Leaves only what lies in a file of this duration: frames after a hole may not have reached it.
pub(crate) fn cut_gaps(gaps: &mut Vec<ManifestGap>, duration_ms: u64) {
    gaps.retain(|gap| gap.from_ms < duration_ms);
    for gap in gaps {
        gap.to_ms = gap.to_ms.min(duration_ms);
    }
}

/// Where the hook stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HookState {
    /// No hook is configured.
    None,
    /// It will run.
    Queued,
    /// It runs.
    Running,
    /// It exited with 0.
    Done,
    /// All attempts failed; it can be replayed.
    Failed,
}

impl HookState {
    /// Whether an attempt is still to come, or runs.
    pub(crate) fn is_due(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookAttempt {
    /// Counted from 1, growing over restarts and replays.
    pub n: u32,
    /// When it began.
    #[serde(serialize_with = "as_millis")]
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Exit code; `null` if it could not start or was killed.
    #[schema(required)]
    pub exit: Option<i32>,
    /// Why there is no exit code, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether the server cut it off because it was told to stop: that was no failure of the hook, and doesn't
    /// count.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// The last 4 KiB of its output.
    pub tail: String,
}

/// The attempt that runs. A manifest that says so when the server starts tells of one that the last
/// server died in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookRunning {
    /// Its number.
    pub n: u32,
    /// When it began.
    #[serde(serialize_with = "as_millis")]
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The script's process group, once it is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_group: Option<i32>,
    /// What tells the group's leader from any later process with its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_born: Option<String>,
}

impl HookRunning {
    /// One whose script is not started yet.
    pub(crate) fn new(n: u32, at: Timestamp) -> Self {
        Self { n, at, process_group: None, process_born: None }
    }
}

/// What the manifest says of the hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookRecord {
    /// Where it stands.
    pub state: HookState,
    /// All attempts that are over.
    pub attempts: Vec<HookAttempt>,
    /// Those up to this number count no more: behind it the hook was run anew on request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anew_after: Option<u32>,
    /// The one that is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<HookRunning>,
}

impl HookRecord {
    /// Without an attempt so far.
    pub fn new(state: HookState) -> Self {
        Self { state, attempts: Vec::new(), anew_after: None, running: None }
    }

    /// Has it run again, with all of its attempts.
    pub fn begin_anew(&mut self) {
        self.state = HookState::Queued;
        self.anew_after = self.attempts.last().map(|attempt| attempt.n);
    }

    /// The number of the last attempt that is over; 0 without one.
    pub(crate) fn last_attempt(&self) -> u32 {
        self.attempts.last().map_or(0, |attempt| attempt.n)
    }

    /// Those that count: how many failed, or a server died in them, and how many were cut off by a stop.
    pub fn counts(&self) -> (u32, u32) {
        let counted = self.attempts.iter().filter(|attempt| Some(attempt.n) > self.anew_after);
        let (stopped, failed): (Vec<_>, Vec<_>) = counted.partition(|attempt| attempt.interrupted);
        let number = |list: Vec<_>| u32::try_from(list.len()).unwrap_or(u32::MAX);
        (number(failed), number(stopped))
    }
}

/// A recording's manifest, beside the file: its name with `.json` for a suffix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Manifest {
    /// Identifier.
    pub id: RecordingId,
    /// Stream name.
    pub stream: StreamName,
    /// File name in `record.dir`.
    pub file: String,
    /// MIME type of the file.
    pub mime: String,
    /// Where it stands.
    pub state: RecordingState,
    /// Wall time of the first frame.
    #[serde(serialize_with = "as_millis")]
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// Wall time of the end; `null` while recording.
    #[serde(serialize_with = "as_some_millis")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub ended_at: Option<Timestamp>,
    /// Size of the file.
    pub bytes: u64,
    /// Duration of the file.
    pub duration_ms: u64,
    /// Whether the file is (still) there.
    pub file_present: bool,
    /// The recording this one goes on from.
    #[schema(required)]
    pub continues: Option<RecordingId>,
    /// Tracks in the file's order.
    pub tracks: Vec<ManifestTrack>,
    /// Holes.
    pub gaps: Vec<ManifestGap>,
    /// Why it ended; `null` while recording.
    #[schema(required)]
    pub end_reason: Option<EndReason>,
    /// Why it is in quarantine, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What keeps it from being sealed, in words; with `sealing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The hook.
    pub hook: HookRecord,
}

impl Manifest {
    /// Whether it is not sealed yet, and may be.
    pub(crate) fn is_under_way(&self) -> bool {
        matches!(self.state, RecordingState::Recording | RecordingState::Sealing)
    }

    /// The largest picture, in pixels: width and height each over all of it.
    pub fn size(&self) -> Option<(u32, u32)> {
        let width = self.tracks.iter().filter_map(|track| track.width).max()?;
        Some((width, self.tracks.iter().filter_map(|track| track.height).max()?))
    }

    /// Notes that a track is missing as a whole, where nothing else tells of it.
    pub(crate) fn note_absent(&mut self) {
        for (index, track) in self.tracks.iter().enumerate().filter(|(_, track)| track.frames == 0) {
            let track_number = index + 1;
            if self.duration_ms > 0 && self.gaps.iter().all(|gap| gap.track != track_number) {
                let (from_ms, to_ms, reason) = (0, self.duration_ms, GapReason::Silence);
                tracing::warn!(codec = track.codec.as_str(), "a track was declared and nothing of it came");
                self.gaps.push(ManifestGap { track: track_number, from_ms, to_ms, reason });
            }
        }
    }

    /// Notes how long the media lasts. It ends where the media does, not when that was noticed.
    pub(crate) fn lasted(&mut self, duration: Duration) {
        self.duration_ms = (duration.as_micros() as u64 + 500) / 1000;
        let lasted = SignedDuration::from_millis(self.duration_ms.cast_signed());
        self.ended_at = self.started_at.checked_add(lasted).ok();
    }
}
