//! Holes in the sound of a whole file: which packets of silence a recording would have had in them.

use crate::container::webm::{self, ForeignTrack, Item, PacketRun, StoredBlock};
use crate::media::{Codec, Track};
use crate::record::silence::Silence;
use std::time::Duration;

/// The most silence that is put into a file: times that leap would make one that fills the disk.
const MAX_SILENCE: Duration = Duration::from_secs(24 * 3600);
/// Holes that a file may have, 100 bytes each: those of a speaker who pauses twice a second for a day.
const MAX_RUNS: usize = 1 << 18;
/// TrackNumbers are small, and what has a larger one is damage.
const MAX_NUMBER: u64 = 1 << 28;

/// What became of the holes in a file's sound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// Silence that was put in.
    pub silence: Duration,
    /// CodecIDs of tracks of sound whose holes stay.
    pub left: Vec<String>,
}

/// Takes the items of a file.
#[derive(Debug)]
pub(super) struct HoleFiller {
    tick: Duration,
    tracks: Vec<TrackState>,
    left: Vec<String>,
    count: usize,
    silence: Duration,
}

/// A track of sound that can be filled.
#[derive(Debug)]
struct TrackState {
    number: u64,
    silence: Silence,
    /// Blocks so far.
    blocks: u64,
    /// Start of the newest packet.
    newest: Duration,
    runs: Vec<PacketRun>,
}

impl HoleFiller {
    pub fn new() -> Self {
        let tick = Duration::from_millis(1);
        Self { tick, tracks: Vec::new(), left: Vec::new(), count: 0, silence: Duration::ZERO }
    }

    /// Takes the next item.
    pub fn take(&mut self, item: &Item<'_>) {
        match item {
            Item::Element { id: webm::INFO, payload, .. } => {
                self.tick = webm::tick_of(payload).unwrap_or(self.tick);
            }
            Item::Element { id: webm::TRACKS, payload, .. } if self.tracks.is_empty() => {
                for track in webm::tracks_of(payload).unwrap_or_default() {
                    self.add_track(&track);
                }
            }
            Item::Block(block) => self.block(block),
            _ => {}
        }
    }

    fn add_track(&mut self, track: &ForeignTrack) {
        if track.kind != Some(crate::media::Kind::Audio) {
            return;
        }
        // More channels than two are several streams in a packet (RFC 7845 section 5.1.1).
        let simple =
            track.plain && track.channels <= 2 && track.private.get(18).is_none_or(|family| *family == 0);
        let known = Codec::of_matroska_id(&track.codec_id).filter(|_| simple && track.number < MAX_NUMBER);
        let silence = known.and_then(|codec| Silence::of(&Track { codec, ..Track::opus(track.channels) }));
        let Some(mut silence) = silence else { return self.left.push(track.codec_id.clone()) };
        silence.begin(Duration::ZERO);
        let (number, newest) = (track.number, Duration::ZERO);
        self.tracks.push(TrackState { number, silence, blocks: 0, newest, runs: Vec::new() });
    }

    fn block(&mut self, block: &StoredBlock<'_>) {
        let Some(at) = self.tracks.iter().position(|track| track.number == block.track) else { return };
        let ticks = u64::try_from(block.time).unwrap_or(0);
        let mut time = Duration::from_nanos((self.tick.as_nanos() as u64).saturating_mul(ticks));
        let Some(first) = block.frames().next() else { return };
        self.fill(at, Some((time, first)), Duration::ZERO);
        let track = &mut self.tracks[at];
        track.blocks += 1;
        for packet in block.frames() {
            // What is out of order is in no hole.
            if time >= track.newest {
                track.newest = time;
                track.silence.add_sound(time, packet);
            }
            time += crate::media::opus::duration(packet).unwrap_or_default();
        }
    }

    /// Fills a track up to its next packet, or up to the end of the file.
    fn fill(&mut self, at: usize, next: Option<(Duration, &[u8])>, end: Duration) {
        let track = &mut self.tracks[at];
        let mut runs: Vec<PacketRun> = Vec::new();
        while let Some((time, packet)) = track.silence.due(next, end)
            && self.silence <= MAX_SILENCE
        {
            track.silence.add_silence(time, &packet, false);
            let length = crate::media::opus::duration(&packet).unwrap_or_default();
            self.silence += length;
            match runs.last_mut() {
                Some(run) if run.packet == packet && run.at + run.length * run.count == time => {
                    run.count += 1
                }
                _ => {
                    let (track, behind) = (track.number, track.blocks);
                    runs.push(PacketRun { track, behind, at: time, length, count: 1, packet });
                }
            }
        }
        self.count += runs.len();
        if self.count <= MAX_RUNS {
            track.runs.extend(runs);
        }
    }

    /// What fills the holes of a file that lasts so long, as runs for [`webm::Remux::with`]; why not, if
    /// they are too large.
    pub fn finish(mut self, duration: Duration) -> Result<(Vec<PacketRun>, Filled), String> {
        for track in 0..self.tracks.len() {
            self.tracks[track].silence.end();
            self.fill(track, None, duration);
        }
        if self.silence > MAX_SILENCE || self.count > MAX_RUNS {
            return Err(format!(
                "its sound has {} holes, or more than {} hours of them",
                self.count,
                MAX_SILENCE.as_secs() / 3600
            ));
        }
        let runs = self.tracks.into_iter().flat_map(|track| track.runs).collect();
        Ok((runs, Filled { silence: self.silence, left: self.left }))
    }
}
