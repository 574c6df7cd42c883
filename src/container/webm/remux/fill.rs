//! Puts runs of packets between the original's blocks.

use super::plan::ClusterPart;
use super::runs::{PacketRange, PacketRun, PacketRuns};
use super::{OpenCluster, Remux, RemuxError};
use crate::container::webm::cluster::{Block, ClusterStats};
use crate::container::webm::frame_interval::in_ticks;
use std::hash::Hasher;
use std::time::Duration;

/// How far packets may be ahead of what they stand beside: one by one they would cut the original into
/// a part for each picture.
const AHEAD: Duration = Duration::from_millis(100);
/// The longest cluster of such packets alone.
const CLUSTER: Duration = Duration::from_secs(1);

impl Remux {
    /// A copy that has these packets, too: runs in the order of their time, those of a track together.
    pub fn with(runs: Vec<PacketRun>) -> Self {
        Self { runs: PacketRuns::new(runs), ..Self::default() }
    }

    /// Before a block of the track `number` at `time`: what stands before it on its track, and on others what
    /// is heard by then.
    pub(super) fn fill_before(&mut self, number: u64, time: u64) -> Result<(), RemuxError> {
        let ahead = time.saturating_add(in_ticks(AHEAD, self.tick()));
        for track in 0..self.runs.tracks() {
            let is_same = self.runs.number(track) == number;
            let due = self.runs.next(track, self.tick()).is_some_and(|next| next <= time);
            if is_same || due {
                self.fill_open(track, if is_same { time } else { ahead })?;
            }
        }
        Ok(())
    }

    /// Has a track's packets up to `until` in the open cluster, as far as it reaches.
    fn fill_open(&mut self, track: usize, until: u64) -> Result<(), RemuxError> {
        let tick = self.tick();
        let Some(cluster) = self.open.as_ref().and_then(|open| open.time) else { return Ok(()) };
        let reaches = |time: u64| i16::try_from(i128::from(time) - i128::from(cluster)).is_ok();
        while let Some(time) = self.runs.next(track, tick)
            && time <= until
            && reaches(time)
        {
            self.add_packet(track, time, cluster)?;
            self.runs.advance(track);
        }
        Ok(())
    }

    fn add_packet(&mut self, track: usize, time: u64, cluster: u64) -> Result<(), RemuxError> {
        let (of, run, index) = self.runs.packet(track);
        let (PacketRun { packet, track: number, .. }, block_len) = (of, of.block(0).len() as u64);
        let Some(open) = &mut self.open else { return Ok(()) };
        let relative = open.len;
        open.len += block_len;
        open.blocks += 1;
        let track = self.tracks.iter().position(|track| track.number == *number);
        if let Some((indexed, kind)) =
            track.and_then(|track| Some((self.indexed[track]?, self.tracks[track].kind?)))
        {
            let entry = Block { keyframe: true, ..Block::of(indexed, packet) };
            open.stats.add(kind, &entry, time, relative);
        }
        self.digest.write_u64(*number);
        self.digest.write_i128(i128::from(time));
        self.digest.write_u8(1);
        self.digest.write_usize(packet.len());
        self.digest.write(packet);
        match self.parts[open.first_part..].last_mut() {
            Some(ClusterPart::Generated(last)) if last.run == run && last.first + last.count == index => {
                last.count += 1;
            }
            _ => {
                self.parts.push(ClusterPart::Generated(PacketRange { run, first: index, count: 1, cluster }))
            }
        }
        self.check_parts()
    }

    /// Has all packets before `end` in clusters of their own, where nothing else comes for long: in front of
    /// the cluster that has just begun, if one has.
    pub(super) fn fill_up_to(&mut self, end: u64) -> Result<(), RemuxError> {
        let tick = self.tick();
        if self.runs.first(tick).is_none_or(|first| first >= end) {
            return Ok(());
        }
        let begun = self.open.take();
        let parts = begun.as_ref().map(|open| self.parts.split_off(open.first_part)).unwrap_or_default();
        let last = self.clusters.last().map_or(0, |cluster| cluster.original);
        let original = begun.as_ref().map_or(last, |open| open.original);
        while let Some(first) = self.runs.first(tick).filter(|first| *first < end) {
            let stats = ClusterStats::new(self.tracks.len(), tick);
            let open = OpenCluster::begin(original, self.parts.len(), stats);
            self.open = Some(OpenCluster { time: Some(first), ..open });
            for track in 0..self.runs.tracks() {
                self.fill_open(track, first.saturating_add(in_ticks(CLUSTER, tick)).min(end - 1))?;
            }
            self.end_cluster();
        }
        let first_part = self.parts.len();
        self.parts.extend(parts);
        self.open = begun.map(|open| OpenCluster { first_part, ..open });
        Ok(())
    }
}
