//! What a publication tells of itself while it runs, in totals: two looks give the rates.

use crate::base::clock::as_millis;
use crate::base::id::{RecordingId, StreamName};
use crate::media::{Codec, Event, Kind, Size, Track};
use crate::publish::Transport;
use crate::publish::publication::{Publication, State};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// A live stream, for the list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StreamInfo {
    /// Its name.
    pub stream: StreamName,
    /// The contract's status.
    #[schema(value_type = String, example = "PUBLISHING")]
    pub status: &'static str,
    /// When its publisher was first accepted.
    #[serde(serialize_with = "as_millis")]
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// The file that is being written; of a stream that has ended, the last one.
    #[schema(required)]
    pub recording: Option<RecordingId>,
    /// How it comes in; `null` before it has.
    #[schema(required)]
    pub via: Option<Transport>,
    /// What it carries.
    pub tracks: Vec<Codec>,
    /// Its pictures; `null` if it has none, or is kept byte for byte.
    #[schema(required)]
    pub video: Option<Picture>,
    /// Bytes of media so far.
    pub bytes: u64,
    /// Frames so far, of all tracks.
    pub frames: u64,
    /// Packets so far that never came.
    pub lost: u64,
    /// How many watch now.
    pub viewers: usize,
    /// What is wrong with it, in sentences: a track brings nothing, or nothing that can be decoded; its file
    /// can't be finished for now. Pages are told by their socket too; WHIP publishers see it here.
    pub warnings: Vec<String>,
}

/// The pictures of a live stream.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Picture {
    /// Their codec.
    pub codec: Codec,
    /// Pixels in a row, as of the newest keyframe; `null` if it doesn't say.
    #[schema(required)]
    pub width: Option<u32>,
    /// Rows of pixels, as of the newest keyframe.
    #[schema(required)]
    pub height: Option<u32>,
    /// Pictures so far.
    pub frames: u64,
}

/// What has happened to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = StreamChange)]
pub enum What {
    /// Its media flows.
    Live,
    /// It is over.
    Ended,
}

/// A stream that began or ended.
#[derive(Clone, Debug)]
pub struct Change {
    /// What has happened.
    pub what: What,
    /// The stream, as it is now.
    pub info: StreamInfo,
}

/// What has come. Counted under the lock that media takes anyway.
#[derive(Debug, Default)]
pub(super) struct StreamCounters {
    pub bytes: u64,
    frames: u64,
    pictures: u64,
    lost: u64,
    size: Option<Size>,
}

impl StreamCounters {
    /// Counts an event of a stream with these tracks; whether it is a picture to begin with.
    pub fn count(&mut self, event: &Event, tracks: &[Track]) -> bool {
        match event {
            Event::Frame(frame) => {
                self.bytes += frame.data.len() as u64;
                self.frames += 1;
                let Some(codec) = tracks.get(frame.track).map(|track| track.codec) else { return false };
                if codec.kind() == Kind::Audio {
                    return false;
                }
                self.pictures += 1;
                if frame.keyframe {
                    self.size = frame.size.or_else(|| codec.size_of(&frame.data)).or(self.size);
                }
                frame.keyframe
            }
            Event::Lost { packets, .. } => {
                self.lost += u64::from(*packets);
                false
            }
            Event::Gap(_) => false,
        }
    }
}

impl Publication {
    pub(super) fn info_of(&self, state: &State) -> StreamInfo {
        let open = state.recording.as_ref().map(|recording| recording.current());
        let kept = state.newest_file.as_ref().filter(|_| self.is_over()).map(|kept| kept.id.clone());
        let counters = &state.counters;
        let tracks: Vec<Codec> =
            state.stream.iter().flat_map(|stream| stream.tracks()).map(|track| track.codec).collect();
        let picture = |codec: &Codec| Picture {
            codec: *codec,
            width: counters.size.map(|size| size.width),
            height: counters.size.map(|size| size.height),
            frames: counters.pictures,
        };
        StreamInfo {
            stream: self.name.clone(),
            status: self.status.borrow().as_str(),
            started_at: self.began.wall,
            recording: open.or(kept),
            via: state.transport,
            video: tracks.iter().find(|codec| codec.kind() == Kind::Video).map(picture),
            tracks,
            bytes: counters.bytes,
            frames: counters.frames,
            lost: counters.lost,
            viewers: state.stream.as_ref().map_or(0, |stream| stream.viewers()),
            warnings: self.status.borrow().warnings(),
        }
    }
}
