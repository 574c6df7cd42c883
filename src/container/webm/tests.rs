//! Reading, repairing and copying: our own bytes, other people's ways of writing, and noise.

use crate::container::webm::ebml::{element, id, master, uint};
use crate::container::webm::{
    self, Block, Clusters, CopyPlan, Extent, InPlacePlan, InPlaceRepair, Index, Item, OwnHead, PacketRun,
    Reader, Remux, RemuxError,
};
use crate::container::{Defect, Head};
use crate::media::{Codec, Size, Track};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;

const TRACKS: [Track; 2] = [Track::video(Codec::Vp8), Track::opus(2)];
/// A keyframe of 640x360, another picture, 20 ms of sound.
const KEY: [u8; 12] = [0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01, 7, 7];
const DELTA: [u8; 9] = [0x31, 0, 0, 1, 2, 3, 4, 5, 6];
const SOUND: [u8; 3] = [0xfc, 9, 9];

/// Ten seconds of ours, unfinished: a keyframe every 2 s, a cluster a second. Returns where each of its
/// clusters ends, too.
fn ours() -> (Vec<u8>, Vec<usize>) {
    let sizes = [Some(Size { width: 640, height: 360 }), None];
    let (mut bytes, _) =
        webm::head(&Head { tracks: &TRACKS, sizes: &sizes, uid: 99, unix_nanos: 1 << 60, title: "" });
    let mut clusters = Clusters::new(&TRACKS, Duration::from_millis(900));
    for step in 0..500u64 {
        let time = Duration::from_millis(step * 20);
        if step % 2 == 0 {
            let keyframe = step % 100 == 0;
            let data: &[u8] = if keyframe { &KEY } else { &DELTA };
            clusters.push(&Block { time, keyframe, ..Block::of(0, data) });
        }
        clusters.push(&Block { time, keyframe: true, ..Block::of(1, &SOUND) });
    }
    clusters.finish();
    let ends = clusters.finished().iter().map(|cluster| bytes.len() + cluster.range.end).collect();
    bytes.extend_from_slice(clusters.bytes());
    (bytes, ends)
}

/// Up to the Segment's payload, of unknown size.
fn ebml(out: &mut Vec<u8>) {
    master(out, id::EBML, |out| {
        element(out, id::DOC_TYPE, b"webm");
        uint(out, id::DOC_TYPE_VERSION, 4);
        uint(out, id::DOC_TYPE_READ_VERSION, 2);
    });
    out.extend([0x18, 0x53, 0x80, 0x67, 0x01, 255, 255, 255, 255, 255, 255, 255]);
}

/// As MediaRecorder writes: unknown sizes, no Duration, no Cues, an alpha channel that never comes.
fn recorder(scale: u64) -> Vec<u8> {
    let mut out = Vec::new();
    ebml(&mut out);
    master(&mut out, id::INFO, |out| {
        uint(out, id::TIMESTAMP_SCALE, scale);
        element(out, id::MUXING_APP, b"Chrome");
    });
    master(&mut out, id::TRACKS, |out| {
        master(out, id::TRACK_ENTRY, |out| {
            uint(out, id::TRACK_NUMBER, 7);
            uint(out, id::TRACK_TYPE, 1);
            element(out, id::CODEC_ID, b"V_VP9");
            master(out, id::VIDEO, |out| {
                uint(out, id::PIXEL_WIDTH, 640);
                uint(out, id::PIXEL_HEIGHT, 480);
                uint(out, id::ALPHA_MODE, 1);
            });
        });
    });
    for cluster in 0..3u64 {
        out.extend([0x1f, 0x43, 0xb6, 0x75, 0xff]);
        uint(&mut out, id::TIMESTAMP, cluster * 1000);
        for step in 0..10u8 {
            let key = if step == 0 { 0x80 } else { 0 };
            element(&mut out, id::SIMPLE_BLOCK, &[0x87, 0, step * 10, key, 1, 2, step]);
        }
        master(&mut out, id::BLOCK_GROUP, |out| {
            element(out, id::BLOCK, &[0x87, 0x03, 0, 0, 9]);
            uint(out, id::BLOCK_DURATION, 50);
            element(out, id::REFERENCE_BLOCK, &[0xff]);
        });
    }
    out
}

/// Reads in pieces of `piece` bytes; the most that was held at a time is checked, too.
fn read(
    bytes: &[u8],
    piece: usize,
    len: Option<u64>,
    mut take: impl FnMut(&Item<'_>),
) -> Option<webm::ReadError> {
    let mut reader = Reader::new(len);
    for piece in bytes.chunks(piece).chain([&[][..]]) {
        if piece.is_empty() {
            reader.finish();
        }
        reader.push(piece);
        loop {
            match reader.read() {
                Ok(Some(item)) => take(&item),
                Ok(None) => break,
                Err(error) => return Some(error),
            }
        }
    }
    None
}

fn repair_in_place(bytes: &[u8]) -> Option<(OwnHead, InPlacePlan)> {
    let own = OwnHead::find(bytes)?;
    let mut repair = InPlaceRepair::new(own.clone());
    read(bytes, 4096, Some(bytes.len() as u64), |item| repair.take(item));
    Some((own, repair.finish()?))
}

fn plan(bytes: &[u8]) -> Result<CopyPlan, RemuxError> {
    plan_with(bytes, Vec::new())
}

fn plan_with(bytes: &[u8], runs: Vec<PacketRun>) -> Result<CopyPlan, RemuxError> {
    let (mut remux, mut refused) = (Remux::with(runs), None);
    read(bytes, 1000, Some(bytes.len() as u64), |item| {
        if refused.is_none() {
            refused = remux.take(item).err();
        }
    });
    refused.map_or_else(|| remux.finish(bytes.len() as u64), Err)
}

fn copy(plan: &CopyPlan, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in plan.extents() {
        match piece {
            Extent::Bytes(bytes) => out.extend_from_slice(&bytes),
            Extent::Original(range) => {
                out.extend_from_slice(&bytes[range.start as usize..range.end as usize])
            }
        }
    }
    out
}

#[test]
fn packets_put_into_a_copy_stand_in_order_of_time_however_far_the_clusters_are_apart() {
    let tracks = [Track::opus(2)];
    for tick in [1_000_000u64, 20_833, 1_000_000_000] {
        let mut bytes = Vec::new();
        ebml(&mut bytes);
        master(&mut bytes, id::INFO, |out| uint(out, id::TIMESTAMP_SCALE, tick));
        let (head, layout) =
            webm::head(&Head { tracks: &tracks, sizes: &[None], uid: 9, unix_nanos: 0, title: "" });
        let entry = layout.tracks[0].entry.start as usize..layout.tracks[0].entry.end as usize;
        element(&mut bytes, id::TRACKS, &head[entry]);
        // A packet at 5 s, and one at 100 s.
        for seconds in [5, 100] {
            master(&mut bytes, id::CLUSTER, |out| {
                uint(out, id::TIMESTAMP, seconds * 1_000_000_000 / tick);
                element(out, id::SIMPLE_BLOCK, &[0x81, 0, 0, 0x80, 0xfc, 1, 2]);
            });
        }
        let run = |behind, at, count| {
            let (at, length) = (Duration::from_secs(at), Duration::from_secs(1));
            PacketRun { track: 1, behind, at, length, count, packet: Bytes::from_static(&[0xfc, 0xff, 0xfe]) }
        };
        let first = plan_with(&bytes, vec![run(0, 0, 5), run(1, 6, 94), run(2, 101, 3)]).unwrap();
        let copied = copy(&first, &bytes);
        let second = plan(&copied).unwrap();
        assert!(second.is_whole(), "{:?} {:?}", second.defects, second.damaged);
        assert_eq!((second.digest, second.len, first.len), (first.digest, copied.len() as u64, second.len));
        let mut times = Vec::new();
        read(&copied, 1000, None, |item| {
            if let Item::Block(block) = item {
                times.push((block.time * i128::from(tick) + 500_000_000) / 1_000_000_000);
            }
        });
        assert_eq!(times, (0..104).collect::<Vec<_>>(), "seconds, at ticks of {tick} ns");
    }
}

/// Writes what repair and sealing say.
fn apply(bytes: &mut Vec<u8>, own: &OwnHead, repaired: &InPlacePlan) {
    let seal = webm::seal(&own.layout, &repaired.index, repaired.end);
    bytes.truncate(repaired.end as usize);
    bytes.extend_from_slice(&seal.append);
    for patch in repaired.patches.iter().chain(&seal.patches) {
        bytes[patch.at as usize..patch.at as usize + patch.bytes.len()].copy_from_slice(&patch.bytes);
    }
}

fn frames(index: &Index) -> Vec<u64> {
    index.tracks.iter().map(|track| track.frames).collect()
}

#[test]
fn the_same_items_come_out_however_the_bytes_come_in() {
    for bytes in [ours().0, recorder(1_000_000)] {
        let items = |piece| {
            let mut items = Vec::new();
            let error = read(&bytes, piece, None, |item| items.push(format!("{item:?}")));
            assert_eq!(error, None);
            items
        };
        let whole = items(bytes.len());
        assert!(whole.len() > 30 && !whole.iter().any(|item| item.contains("Damaged")), "{whole:?}");
        for piece in [1, 3, 17, 1000] {
            assert!(items(piece) == whole, "in pieces of {piece} bytes");
        }
    }
}

#[test]
fn ours_is_cut_behind_the_last_whole_cluster_wherever_it_ends() {
    let (bytes, ends) = ours();
    for end in (0..bytes.len()).step_by(7).chain(ends.clone()) {
        let Some((own, repaired)) = repair_in_place(&bytes[..end]) else {
            assert!(end < 450, "the head was not found in {end} bytes");
            continue;
        };
        let last = ends.iter().rev().find(|whole| **whole <= end);
        assert_eq!(repaired.end, last.map_or(own.layout.len, |end| *end as u64), "cut at {end}");
        assert!(repaired.patches.is_empty() && repaired.holes.is_empty());
    }
}

#[test]
fn sealing_that_was_cut_off_anywhere_is_done_again_with_the_same_result() {
    let (unfinished, _) = ours();
    let (own, repaired) = repair_in_place(&unfinished).unwrap();
    let mut sealed = unfinished.clone();
    apply(&mut sealed, &own, &repaired);
    let again = |bytes: &[u8]| {
        let (own, repaired) = repair_in_place(bytes).unwrap();
        let mut bytes = bytes.to_vec();
        apply(&mut bytes, &own, &repaired);
        bytes
    };
    assert!(again(&sealed) == sealed, "whole");
    // The index half written, and then each number of patches with the index there.
    for end in (unfinished.len()..sealed.len()).step_by(5) {
        assert!(again(&sealed[..end]) == sealed, "cut at {end}");
    }
    let seal = webm::seal(&own.layout, &repaired.index, repaired.end);
    for patched in 0..seal.patches.len() {
        let mut bytes = [&unfinished[..], &seal.append].concat();
        for patch in &seal.patches[..patched] {
            bytes[patch.at as usize..patch.at as usize + patch.bytes.len()].copy_from_slice(&patch.bytes);
        }
        assert!(again(&bytes) == sealed, "{patched} patches");
    }
}

#[test]
fn damage_costs_its_cluster_and_the_pictures_up_to_the_next_keyframe() {
    let (mut bytes, ends) = ours();
    let (_, whole) = repair_in_place(&bytes).unwrap();
    // Zeros over a page's worth of the fourth cluster, which begins in the middle of a group of pictures.
    let at = ends[2] + 40;
    bytes[at..at + 200].fill(0);
    let (own, repaired) = repair_in_place(&bytes).unwrap();
    assert_eq!(repaired.end, whole.end, "everything behind it is kept");
    assert_eq!(repaired.damaged, (ends[3] - ends[2]) as u64);
    let (before, after) = (frames(&whole.index), frames(&repaired.index));
    assert!(after[1] + 60 > before[1] && after[1] < before[1], "sound: {after:?} of {before:?}");
    assert!(after[0] + 60 > before[0] && after[0] < before[0], "pictures: {after:?} of {before:?}");
    assert_eq!(repaired.holes.len(), 2, "{:?}", repaired.holes);
    let pictures = repaired.holes.iter().find(|hole| hole.track == 0).unwrap();
    assert_eq!(pictures.to % 2000, 0, "a keyframe ends it: {pictures:?}");

    // A second run finds it covered, also if only a part of the covering was done.
    for done in 0..=repaired.patches.len() {
        let mut again = bytes.clone();
        for patch in &repaired.patches[..done] {
            again[patch.at as usize..patch.at as usize + patch.bytes.len()].copy_from_slice(&patch.bytes);
        }
        let (_, second) = repair_in_place(&again).unwrap();
        assert_eq!((frames(&second.index), second.end), (after.clone(), repaired.end), "{done} patches");
    }
    apply(&mut bytes, &own, &repaired);
    let (_, second) = repair_in_place(&bytes).unwrap();
    assert!(second.patches.is_empty(), "what is covered is covered again");
    let copied = plan(&bytes).unwrap();
    assert!(copied.is_whole(), "{:?} {:?}", copied.defects, copied.damaged);
}

#[test]
fn what_mediarecorder_writes_becomes_seekable_with_the_same_frames() {
    let bytes = recorder(1_000_000);
    let first = plan(&bytes).unwrap();
    assert_eq!(first.defects, [Defect::Duration, Defect::Cues, Defect::Sizes]);
    assert_eq!(first.duration, Duration::from_millis(2768 + 50), "the last block tells its duration");
    assert_eq!(first.tracks[0].1, 33);
    let copied = copy(&first, &bytes);
    assert_eq!(copied.len() as u64, first.len);
    let second = plan(&copied).unwrap();
    assert!(second.is_whole(), "{:?}", second.defects);
    assert_eq!((second.digest, second.duration), (first.digest, first.duration));
    assert!(copy(&second, &copied) == copied, "a copy of the copy differs");
    let alpha = [0x53, 0xc0, 0x81, 1];
    assert!(!copied.windows(4).any(|bytes| bytes == alpha), "AlphaMode without BlockAdditions is kept");
}

#[test]
fn ticks_of_any_length_are_kept() {
    let plan = plan(&recorder(500_000)).unwrap();
    assert_eq!(plan.duration, Duration::from_micros((2768 + 50) * 500));
}

#[test]
fn a_cut_file_keeps_every_whole_frame() {
    let bytes = recorder(1_000_000);
    let (mut last, whole) = (0, plan(&bytes).unwrap().tracks[0].1);
    for end in 0..bytes.len() {
        let Ok(plan) = plan(&bytes[..end]) else {
            assert_eq!(last, 0, "cut at {end}: refused, though {last} frames are there");
            continue;
        };
        assert!(plan.tracks[0].1 >= last, "cut at {end}: {} frames after {last}", plan.tracks[0].1);
        last = plan.tracks[0].1;
    }
    assert_eq!(last, whole - 1);
}

#[test]
fn what_is_not_understood_is_refused() {
    let bytes = recorder(1_000_000);
    let twice = [&bytes[..], &bytes].concat();
    assert_eq!(plan(&twice).unwrap_err(), RemuxError::SecondFile(bytes.len() as u64));
    let late = [&bytes[..], &[id::TIMESTAMP as u8, 0x81, 5]].concat();
    assert_eq!(plan(&late).unwrap_err(), RemuxError::LateTime);
    let (head, _) = webm::head(&Head { tracks: &TRACKS, sizes: &[], uid: 1, unix_nanos: 0, title: "" });
    assert_eq!(plan(&head).unwrap_err(), RemuxError::NoMedia);
    for noise in [&b""[..], b"\0\0\0\x20ftypisom", b"RIFF", &[0x1a, 0x45, 0xdf, 0xa3]] {
        assert_eq!(read(noise, 100, None, |_| {}), Some(webm::ReadError::NotWebm), "{noise:?}");
    }
    let mut other = Vec::new();
    master(&mut other, id::EBML, |out| {
        element(out, id::DOC_TYPE, b"other");
    });
    assert!(matches!(read(&other, 100, None, |_| {}), Some(webm::ReadError::Unsupported(_))));
}

#[test]
fn noise_never_panics_and_what_is_made_of_it_is_whole() {
    let mut random = StdRng::seed_from_u64(0x5eed);
    let (mut whole, mut refused) = (0, 0);
    for round in 0..3000 {
        let mut bytes = if round % 2 == 0 { ours().0 } else { recorder(1_000_000) };
        for _ in 0..random.random_range(1..6) {
            let at = random.random_range(0..bytes.len());
            match random.random_range(0..4) {
                0 => bytes.truncate(at.max(1)),
                1 => bytes[at] = random.random(),
                2 => bytes[at] ^= 1 << random.random_range(0..8),
                _ => {
                    let end = (at + random.random_range(1..300)).min(bytes.len());
                    bytes[at..end].fill(0);
                }
            }
        }
        let piece = random.random_range(1..2000);
        read(&bytes, piece, None, |_| {});
        if let Some((own, repaired)) = repair_in_place(&bytes)
            && repaired.index.tracks.iter().any(|track| track.frames > 0)
        {
            let mut repaired_bytes = bytes.clone();
            apply(&mut repaired_bytes, &own, &repaired);
            let (_, again) = repair_in_place(&repaired_bytes).unwrap();
            // Sealing takes out a track of which nothing is left.
            let left = |index| frames(index).into_iter().filter(|frames| *frames > 0).collect::<Vec<_>>();
            assert_eq!(left(&again.index), left(&repaired.index), "round {round}");
        }
        let at = |at| PacketRun {
            track: if round % 2 == 0 { 2 } else { 7 },
            behind: random.random_range(0..40),
            at: Duration::from_millis(at),
            length: Duration::from_millis(20),
            count: random.random_range(1..200),
            packet: Bytes::from_static(&SOUND),
        };
        match plan_with(&bytes, [0, 2_000].map(at).to_vec()) {
            Ok(first) => {
                let copied = copy(&first, &bytes);
                let second = plan(&copied).unwrap();
                assert!(second.is_whole(), "round {round}: {:?} {:?}", second.defects, second.damaged);
                assert_eq!((second.digest, second.len), (first.digest, copied.len() as u64), "round {round}");
                whole += 1;
            }
            Err(_) => refused += 1,
        }
    }
    println!("{whole} of 3000 broken files became whole, {refused} were refused");
    assert!(whole > 1500, "{whole} of 3000, {refused} refused");
}
