//! Packets that a copy has between those of the original.

use super::{Open, Part, Remux, RemuxError};
use crate::container::webm::cluster::{Block, ClusterStats, write_block};
use crate::container::webm::pace::in_ticks;
use bytes::Bytes;
use std::hash::Hasher;
use std::time::Duration;

/// How far packets may be ahead of what they stand beside: one by one they would cut the original into
/// a piece for each picture.
const AHEAD: Duration = Duration::from_millis(100);
/// The longest cluster of such packets alone.
const CLUSTER: Duration = Duration::from_secs(1);

/// A row of equal packets, each of which begins where the one before it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// TrackNumber, below 2^28.
    pub track: u64,
    /// How many of the track's blocks stand before them.
    pub behind: u64,
    /// When the first begins.
    pub at: Duration,
    /// How long each lasts.
    pub length: Duration,
    /// How many there are.
    pub count: u32,
    /// The packet.
    pub packet: Bytes,
}

/// Some packets of a row, in a cluster of this time.
#[derive(Clone, Debug)]
pub(super) struct Packets {
    row: u32,
    first: u32,
    count: u32,
    cluster: u64,
}

/// All rows, and how far each track has come.
#[derive(Debug, Default)]
pub(super) struct Rows {
    rows: Vec<Row>,
    lanes: Vec<TrackState>,
}

#[derive(Debug)]
struct TrackState {
    track: u64,
    /// Its blocks so far.
    seen: u64,
    /// Its next packet: the row, the last one of the track, and the place in the row.
    row: usize,
    end: usize,
    step: u32,
}

impl Row {
    fn tick(&self, step: u32, tick: Duration) -> u64 {
        in_ticks(self.at + self.length * step + tick / 2, tick)
    }

    /// A packet as a block, which is as long whatever its time is.
    fn block(&self, offset: i16) -> Vec<u8> {
        let (mut out, track) = (Vec::new(), (self.track - 1) as usize);
        write_block(&mut out, &Block { keyframe: true, ..Block::of(track, &self.packet) }, offset, true);
        out
    }
}

impl Rows {
    /// Rows in the order of their time, those of a track together.
    pub fn new(rows: Vec<Row>) -> Self {
        let mut lanes = Vec::<TrackState>::new();
        for (index, row) in rows.iter().enumerate() {
            match lanes.last_mut() {
                Some(lane) if lane.track == row.track => lane.end = index + 1,
                _ => {
                    lanes.push(TrackState { track: row.track, seen: 0, row: index, end: index + 1, step: 0 })
                }
            }
        }
        Self { rows, lanes }
    }

    /// Only what is of these tracks has a place in the copy.
    pub fn keep(&mut self, is_declared: impl Fn(u64) -> bool) {
        self.lanes.retain(|lane| is_declared(lane.track));
    }

    /// The time of a lane's next packet, if all that stands before it does.
    fn next(&self, lane: &TrackState, tick: Duration) -> Option<u64> {
        let row = self.rows[..lane.end].get(lane.row)?;
        (row.behind <= lane.seen).then(|| row.tick(lane.step, tick))
    }

    /// One more of a track's blocks stands in the copy.
    pub fn pass(&mut self, track: u64) {
        self.lanes.iter_mut().filter(|lane| lane.track == track).for_each(|lane| lane.seen += 1);
    }

    /// These packets as blocks.
    pub fn blocks(&self, packets: &Packets, tick: Duration) -> Vec<u8> {
        let row = &self.rows[packets.row as usize];
        let steps = packets.first..packets.first + packets.count;
        steps
            .flat_map(|step| row.block((row.tick(step, tick) as i64 - packets.cluster as i64) as i16))
            .collect()
    }
}

impl Remux {
    /// A copy that has these packets, too: rows in the order of their time, those of a track together.
    pub fn with(rows: Vec<Row>) -> Self {
        Self { rows: Rows::new(rows), ..Self::default() }
    }

    /// Before a block of `track` at `time`: what stands before it on its track, and on others what is heard
    /// by then.
    pub(super) fn fill_before(&mut self, track: u64, time: u64) -> Result<(), RemuxError> {
        let ahead = time.saturating_add(in_ticks(AHEAD, self.tick()));
        for lane in 0..self.rows.lanes.len() {
            let of_track = self.rows.lanes[lane].track == track;
            let due = self.rows.next(&self.rows.lanes[lane], self.tick()).is_some_and(|next| next <= time);
            if of_track || due {
                self.fill_open(lane, if of_track { time } else { ahead })?;
            }
        }
        Ok(())
    }

    /// Has a lane's packets up to `until` in the open cluster, as far as it reaches.
    fn fill_open(&mut self, lane: usize, until: u64) -> Result<(), RemuxError> {
        let tick = self.tick();
        let Some(cluster) = self.open.as_ref().and_then(|open| open.time) else { return Ok(()) };
        let reaches = |time: u64| i16::try_from(i128::from(time) - i128::from(cluster)).is_ok();
        while let Some(time) = self.rows.next(&self.rows.lanes[lane], tick)
            && time <= until
            && reaches(time)
        {
            self.add_packet(lane, time, cluster)?;
            let Rows { rows, lanes } = &mut self.rows;
            lanes[lane].step += 1;
            if lanes[lane].step >= rows[lanes[lane].row].count {
                (lanes[lane].row, lanes[lane].step) = (lanes[lane].row + 1, 0);
            }
        }
        Ok(())
    }

    fn add_packet(&mut self, lane: usize, time: u64, cluster: u64) -> Result<(), RemuxError> {
        let TrackState { row: index, step, track: number, .. } = self.rows.lanes[lane];
        let (row, index) = (&self.rows.rows[index], index as u32);
        let Some(open) = &mut self.open else { return Ok(()) };
        let relative = open.len;
        open.len += row.block(0).len() as u64;
        open.blocks += 1;
        let track = self.tracks.iter().position(|track| track.number == number);
        if let Some((indexed, kind)) =
            track.and_then(|track| Some((self.indexed[track]?, self.tracks[track].kind?)))
        {
            let entry = Block { keyframe: true, ..Block::of(indexed, &row.packet) };
            open.stats.add(kind, &entry, time, relative);
        }
        self.digest.write_u64(number);
        self.digest.write_i128(i128::from(time));
        self.digest.write_u8(1);
        self.digest.write_usize(row.packet.len());
        self.digest.write(&row.packet);
        match self.pieces[open.first_piece..].last_mut() {
            Some(Part::Made(made)) if made.row == index && made.first + made.count == step => made.count += 1,
            _ => self.pieces.push(Part::Made(Packets { row: index, first: step, count: 1, cluster })),
        }
        self.check_pieces()
    }

    /// Has all packets before `end` in clusters of their own, where nothing else comes for long: in front of
    /// the cluster that has just begun, if one has.
    pub(super) fn fill_up_to(&mut self, end: u64) -> Result<(), RemuxError> {
        let tick = self.tick();
        let next = |rows: &Rows| rows.lanes.iter().filter_map(|lane| rows.next(lane, tick)).min();
        if next(&self.rows).is_none_or(|next| next >= end) {
            return Ok(());
        }
        let begun = self.open.take();
        let aside = begun.as_ref().map(|open| self.pieces.split_off(open.first_piece)).unwrap_or_default();
        let last = self.clusters.last().map_or(0, |cluster| cluster.original);
        let original = begun.as_ref().map_or(last, |open| open.original);
        while let Some(first) = next(&self.rows).filter(|next| *next < end) {
            let stats = ClusterStats::new(self.tracks.len(), tick);
            self.open = Some(Open { time: Some(first), ..Open::begin(original, self.pieces.len(), stats) });
            for lane in 0..self.rows.lanes.len() {
                self.fill_open(lane, first.saturating_add(in_ticks(CLUSTER, tick)).min(end - 1))?;
            }
            self.end_cluster();
        }
        let first_piece = self.pieces.len();
        self.pieces.extend(aside);
        self.open = begun.map(|open| Open { first_piece, ..open });
        Ok(())
    }
}
