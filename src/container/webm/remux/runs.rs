//! Runs of equal packets that a copy has in addition to the original's blocks.

use crate::container::webm::cluster::{Block, write_block};
use crate::container::webm::frame_interval::in_ticks;
use bytes::Bytes;
use std::time::Duration;

/// A run of equal packets, each of which begins where the one before it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketRun {
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

/// Some packets of a run, in a cluster of this time.
#[derive(Clone, Debug)]
pub(super) struct PacketRange {
    pub run: u32,
    pub first: u32,
    pub count: u32,
    pub cluster: u64,
}

/// All runs, and how far the copy of each track has come.
#[derive(Debug, Default)]
pub(super) struct PacketRuns {
    runs: Vec<PacketRun>,
    cursors: Vec<Cursor>,
}

#[derive(Debug)]
struct Cursor {
    track: u64,
    /// Its blocks so far.
    blocks: u64,
    /// Its next packet: the run, the end of the track's runs, and the packet's index in the run.
    run: usize,
    end: usize,
    index: u32,
}

impl PacketRun {
    fn tick(&self, index: u32, tick: Duration) -> u64 {
        in_ticks(self.at + self.length * index + tick / 2, tick)
    }

    /// A packet as a block, which is as long whatever its time is.
    pub(super) fn block(&self, offset: i16) -> Vec<u8> {
        let (mut out, track) = (Vec::new(), (self.track - 1) as usize);
        write_block(&mut out, &Block { keyframe: true, ..Block::of(track, &self.packet) }, offset, true);
        out
    }
}

impl PacketRuns {
    /// Runs in the order of their time, those of a track together.
    pub fn new(runs: Vec<PacketRun>) -> Self {
        let mut cursors = Vec::<Cursor>::new();
        for (run, PacketRun { track, .. }) in runs.iter().enumerate() {
            match cursors.last_mut() {
                Some(cursor) if cursor.track == *track => cursor.end = run + 1,
                _ => cursors.push(Cursor { track: *track, blocks: 0, run, end: run + 1, index: 0 }),
            }
        }
        Self { runs, cursors }
    }

    /// Keeps the runs of declared tracks alone.
    pub fn keep(&mut self, is_declared: impl Fn(u64) -> bool) {
        self.cursors.retain(|cursor| is_declared(cursor.track));
    }

    /// How many tracks have runs: below, each is meant by its index among them.
    pub fn tracks(&self) -> usize {
        self.cursors.len()
    }

    /// The TrackNumber of a track.
    pub fn number(&self, track: usize) -> u64 {
        self.cursors[track].track
    }

    /// The time of a track's next packet, if all that stands before it is in the copy.
    pub fn next(&self, track: usize, tick: Duration) -> Option<u64> {
        let cursor = &self.cursors[track];
        let run = self.runs[..cursor.end].get(cursor.run)?;
        (run.behind <= cursor.blocks).then(|| run.tick(cursor.index, tick))
    }

    /// The time of the next packet of any track.
    pub fn first(&self, tick: Duration) -> Option<u64> {
        (0..self.tracks()).filter_map(|track| self.next(track, tick)).min()
    }

    /// A track's next packet, as its run and its index in it.
    pub fn packet(&self, track: usize) -> (&PacketRun, u32, u32) {
        let Cursor { run, index, .. } = self.cursors[track];
        (&self.runs[run], run as u32, index)
    }

    /// A track's next packet is in the copy.
    pub fn advance(&mut self, track: usize) {
        let cursor = &mut self.cursors[track];
        cursor.index += 1;
        if cursor.index >= self.runs[cursor.run].count {
            (cursor.run, cursor.index) = (cursor.run + 1, 0);
        }
    }

    /// One more block of the track with this TrackNumber is in the copy.
    pub fn count_block(&mut self, number: u64) {
        self.cursors.iter_mut().filter(|cursor| cursor.track == number).for_each(|cursor| cursor.blocks += 1);
    }

    /// These packets as blocks.
    pub fn blocks(&self, packets: &PacketRange, tick: Duration) -> Vec<u8> {
        let run = &self.runs[packets.run as usize];
        let indexes = packets.first..packets.first + packets.count;
        indexes
            .flat_map(|index| run.block((run.tick(index, tick) as i64 - packets.cluster as i64) as i16))
            .collect()
    }
}
