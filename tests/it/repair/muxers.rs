//! Files of other programs, cut anywhere.

use super::{assert_seekable, ffmpeg, ffmpeg_live, framemd5, gstreamer, in_pairs, muxed, repaired};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::fs;
use std::time::Instant;

/// Places at which each kind of file is cut.
const CUTS: usize = 6;

#[test]
fn what_others_mux_becomes_seekable_with_the_same_frames_wherever_it_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let vp9 = ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus"];
    let h264 = ["-c:v", "libx264", "-preset", "veryfast", "-c:a", "aac"];
    let av1 = ["-c:v", "libsvtav1", "-preset", "12", "-c:a", "libopus"];
    let vp8 = "vp8enc deadline=1 keyframe-max-dist=30";
    let whole = dir.path().join("whole.webm");
    fs::write(&whole, muxed(&vp9, "webm", false)).unwrap();
    // To a file ffmpeg can write sizes and index.
    let copy = dir.path().join("copy.webm");
    ffmpeg(&["-i", whole.to_str().unwrap(), "-c", "copy", copy.to_str().unwrap()]);
    let kinds = [
        ("ffmpeg live VP9", "webm", ffmpeg_live()),
        ("ffmpeg piped VP9", "webm", fs::read(&whole).unwrap()),
        ("ffmpeg whole VP9", "webm", fs::read(&copy).unwrap()),
        ("ffmpeg live AV1", "webm", muxed(&av1, "webm", true)),
        ("ffmpeg piped H.264", "mkv", muxed(&h264, "matroska", false)),
        ("ffmpeg live H.264", "mkv", muxed(&h264, "matroska", true)),
        ("gstreamer live VP8", "webm", gstreamer(vp8, "webmmux streamable=true")),
        ("gstreamer whole VP8", "webm", gstreamer(vp8, "webmmux")),
        ("gstreamer live VP8", "mkv", gstreamer(vp8, "matroskamux streamable=true")),
    ];
    let mut random = StdRng::seed_from_u64(22);
    let mut files = Vec::new();
    for (number, (kind, extension, bytes)) in kinds.iter().enumerate() {
        // The whole file first, then any part of it that has some frames.
        let cuts = (1..CUTS).map(|_| random.random_range(bytes.len() / 8..bytes.len()));
        for end in std::iter::once(bytes.len()).chain(cuts) {
            files.push((kind, &bytes[..end], dir.path().join(format!("{number}-{end}.{extension}"))));
        }
    }
    let begun = Instant::now();
    in_pairs(&files, |(kind, bytes, path)| {
        let end = bytes.len();
        fs::write(path, bytes).unwrap();
        let before = framemd5(path);
        let said = repaired(path);
        let duration = assert_seekable(path);
        println!("{kind} cut at {end}: {duration:?}; {said}");
        assert!(framemd5(path) == before, "{kind} cut at {end}: other frames than before");
        assert!(repaired(path).contains("nothing to do"), "{kind} cut at {end}: not whole the first time");
    });
    println!("{} files in {:?}", files.len(), begun.elapsed());
}
