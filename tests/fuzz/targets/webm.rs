//! WebM of any kind: read in pieces as in one, made whole by a copy, demuxed, written and sealed anew.

use onrecord::fuzzing;
use onrecord::media::{h264, opus, vp9};
use onrecord::container::{Head, Patch};
use onrecord::container::webm::{
    Block, Clusters, CopyPlan, Extent, InPlaceRepair, Index, MAX_HEAD, OwnHead, PacketRun, ReadError, Reader, Remux, head,
    seal, tick_of, tracks_of,
};
use std::time::Duration;

pub fn run(data: &[u8]) {
    let Some((split, file)) = data.split_first() else { return };
    let whole = items(file, &mut [file.len()].into_iter());
    let mut dice = u64::from(*split) + 1;
    let mut pieces = std::iter::repeat_with(move || {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) as usize % (1 << (dice >> 61)) + 1
    });
    assert_eq!(items(file, &mut pieces), whole, "what comes out depends on how it comes in");
    // Whatever stands where a file's parts stand: these are read on their own, too.
    let _ = (tick_of(file), tracks_of(file), opus::duration(file), vp9::size(file));
    let _ = (h264::config(file), h264::to_length_prefixed(file), h264::parameter_sets(file));
    copied(file, Vec::new());
    copied(file, vec![packet_run(1, *split), packet_run(2, *split)]);
    repaired_in_place(file);
    sealed(file);
}

/// All items in words.
fn items(file: &[u8], pieces: &mut impl Iterator<Item = usize>) -> (Vec<String>, Option<ReadError>) {
    let (mut reader, mut rest, mut found) = (Reader::new(Some(file.len() as u64)), file, Vec::new());
    loop {
        let (piece, behind) = rest.split_at(pieces.next().unwrap_or(rest.len()).min(rest.len()));
        reader.push(piece);
        rest = behind;
        if rest.is_empty() {
            reader.finish();
        }
        loop {
            match reader.read() {
                Ok(Some(item)) => found.push(format!("{item:?}")),
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
        if rest.is_empty() {
            return (found, None);
        }
    }
}

/// A second of silence on a track, behind so many of its blocks.
fn packet_run(track: u64, behind: u8) -> PacketRun {
    let (length, packet) = (Duration::from_millis(20), opus::silence(Duration::from_millis(20), true));
    PacketRun { track, behind: behind.into(), at: length * u32::from(behind), length, count: 50, packet }
}

fn plan(file: &[u8], runs: Vec<PacketRun>) -> Result<CopyPlan, String> {
    let (mut reader, mut remux) = (Reader::new(Some(file.len() as u64)), Remux::with(runs));
    reader.push(file);
    reader.finish();
    while let Some(item) = reader.read().map_err(|error| error.to_string())? {
        remux.take(&item).map_err(|refused| refused.to_string())?;
    }
    remux.finish(file.len() as u64).map_err(|refused| refused.to_string())
}

/// The copy that `onrecord repair` makes, which it reads again before it gives it the name.
fn copied(file: &[u8], runs: Vec<PacketRun>) {
    let Ok(plan) = plan(file, runs) else { return };
    assert!(plan.tracks.iter().map(|(_, frames)| frames).sum::<u64>() > 0);
    let mut copy = Vec::new();
    for piece in plan.extents() {
        match piece {
            Extent::Bytes(bytes) => copy.extend_from_slice(&bytes),
            Extent::Original(range) => copy.extend_from_slice(&file[range.start as usize..range.end as usize]),
        }
    }
    assert_eq!(copy.len() as u64, plan.len);
    let again = self::plan(&copy, Vec::new()).unwrap_or_else(|why| panic!("its copy: {why}"));
    assert_eq!((again.len, again.digest), (plan.len, plan.digest));
}

/// One of our own files, cut or damaged.
fn repaired_in_place(file: &[u8]) {
    let Some(own) = OwnHead::find(file) else { return };
    let (mut reader, mut repair) = (Reader::new(Some(file.len() as u64)), InPlaceRepair::new(own.clone()));
    reader.push(file);
    reader.finish();
    while let Ok(Some(item)) = reader.read() {
        repair.take(&item);
    }
    let Some(plan) = repair.finish() else { return };
    let frames: u64 = plan.index.tracks.iter().map(|track| track.frames).sum();
    assert!(plan.end <= file.len() as u64);
    let mut whole = file[..plan.end as usize].to_vec();
    patch(&mut whole, &plan.patches);
    let seal = seal(&own.layout, &plan.index, plan.end);
    whole.extend_from_slice(&seal.append);
    patch(&mut whole, &seal.patches);
    if frames > 0 {
        is_seekable(&whole, frames);
    }
}

fn patch(file: &mut [u8], patches: &[Patch]) {
    for patch in patches {
        let at = patch.at as usize;
        file[at..at + patch.bytes.len()].copy_from_slice(&patch.bytes);
    }
}

/// What `/chunks` makes of it, recorded.
fn sealed(file: &[u8]) {
    let (tracks, mut frames) = fuzzing::demux(file);
    // As the recorder does: nothing before a keyframe can be decoded.
    let mut begun = vec![false; tracks.len()];
    frames.retain(|frame| {
        begun[frame.track] |= frame.keyframe;
        begun[frame.track]
    });
    if frames.is_empty() {
        return;
    }
    let sizes = vec![None; tracks.len()];
    let (mut out, layout) = head(&Head { tracks: &tracks, sizes: &sizes, uid: 7, unix_nanos: 0, title: "" });
    let (mut clusters, mut index) = (Clusters::new(&tracks, Duration::from_secs(1)), Index::new(&tracks));
    for frame in &frames {
        clusters.push(&Block::from(frame));
    }
    clusters.finish();
    let at = layout.len - layout.segment_at;
    for cluster in clusters.finished() {
        index.commit(&cluster.stats, at + cluster.range.start as u64);
    }
    out.extend_from_slice(clusters.bytes());
    let seal = seal(&layout, &index, out.len() as u64);
    out.extend_from_slice(&seal.append);
    patch(&mut out, &seal.patches);
    is_seekable(&out, frames.len() as u64);
    assert!(OwnHead::find(&out).is_some() || layout.len > MAX_HEAD as u64, "our own head isn't known again");
}

/// Read as a stranger's file.
fn is_seekable(file: &[u8], frames: u64) {
    let plan = plan(file, Vec::new()).unwrap_or_else(|why| panic!("a sealed file can't be read: {why}"));
    let found: u64 = plan.tracks.iter().map(|(_, frames)| frames).sum();
    assert_eq!((found, plan.damaged), (frames, (0, 0)), "defects {:?}", plan.defects);
    assert!(plan.is_whole(), "defects {:?}", plan.defects);
}
