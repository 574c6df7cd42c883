//! What `onrecord repair` says, refuses and leaves alone.

use super::parts::unfinished;
use super::{assert_seekable, ffmpeg, ffmpeg_live, framemd5, names, onrecord, repaired};
use crate::support::judge;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

#[test]
fn what_is_not_understood_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    ffmpeg(&[
        "-f",
        "lavfi",
        "-i",
        "testsrc2=s=64x64",
        "-t",
        "1",
        "-c:v",
        "mpeg4",
        at("a.mp4").to_str().unwrap(),
    ]);
    fs::write(at("b.webm"), "not a film").unwrap();
    fs::write(at("empty.webm"), "").unwrap();
    let live = ffmpeg_live();
    fs::write(at("head.webm"), &live[..400]).unwrap();
    // A document type that is neither.
    let doctype = live.windows(4).position(|word| word == b"webm").unwrap();
    fs::write(at("other.webm"), [&live[..doctype], b"wasm", &live[doctype + 4..]].concat()).unwrap();
    let rows = [
        ("a.mp4", "neither WebM nor Matroska"),
        ("b.webm", "neither WebM nor Matroska"),
        ("empty.webm", "can't be repaired"),
        ("head.webm", "can't be repaired"),
        ("other.webm", "neither WebM nor Matroska"),
    ];
    for (name, expected) in rows {
        let before = fs::read(at(name)).unwrap();
        let output = onrecord(&["repair", at(name).to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        print!("{said}");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{said}");
        assert!(said.contains("left as it is") && said.contains(expected), "{said}");
        assert!(fs::read(at(name)).unwrap() == before, "{name} was touched");
    }
    assert_eq!(names(dir.path()).len(), rows.len(), "something was left beside them");
    let folder = onrecord(&["repair", dir.path().to_str().unwrap()]);
    let missing = onrecord(&["repair", at("nowhere.webm").to_str().unwrap()]);
    assert_eq!((folder.status.code(), missing.status.code()), (Some(1), Some(1)));
    let two = onrecord(&["repair", "a", "b", "--output", "c"]);
    assert_eq!(two.status.code(), Some(2));
}

#[test]
fn one_that_can_not_be_repaired_keeps_no_other_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (dir.path().join("good.webm"), dir.path().join("bad.webm"));
    fs::write(&good, ffmpeg_live()).unwrap();
    fs::write(&bad, "no").unwrap();
    let output = onrecord(&["repair", bad.to_str().unwrap(), good.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert_seekable(&good);
}

#[tokio::test]
async fn our_own_file_is_repaired_in_place_or_as_another() {
    let (dir, unfinished) = (tempfile::tempdir().unwrap(), unfinished().await);
    let (path, output) = (dir.path().join("own.webm.part"), dir.path().join("out.webm"));
    let cut = unfinished.part.len() - 100;
    fs::write(&path, &unfinished.part[..cut]).unwrap();
    let to_output = ["repair", path.to_str().unwrap(), "-o", output.to_str().unwrap()];
    let run = onrecord(&to_output);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(fs::read(&path).unwrap() == unfinished.part[..cut], "the original was touched");
    assert_seekable(&output);
    judge::decode(&output).unwrap();
    let written = fs::read(&output).unwrap();
    let again = onrecord(&to_output);
    assert_eq!(again.status.code(), Some(1), "an output that exists was replaced");
    assert!(fs::read(&output).unwrap() == written);
    let said = repaired(&path);
    assert!(said.contains("repaired in place"), "{said}");
    assert_seekable(&path);
    judge::decode(&path).unwrap();
}

/// Repairs with files limited to so many blocks of 512 bytes, as on a disk that becomes full.
fn repair_within(blocks: usize, file: &Path) -> Output {
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" repair \"$1\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_onrecord")]).arg(file).stdin(Stdio::null());
    command.output().unwrap()
}

#[tokio::test]
async fn a_repair_that_can_not_write_leaves_what_it_found() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = dir.path().join("foreign.webm");
    let bytes = ffmpeg_live();
    fs::write(&foreign, &bytes).unwrap();
    let output = repair_within(bytes.len() / 1024, &foreign);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    print!("{said}");
    assert!(output.status.code() == Some(1) && said.contains("left as it is"), "{said}");
    assert!(fs::read(&foreign).unwrap() == bytes, "the original was touched");
    assert_eq!(names(dir.path()), ["foreign.webm"], "something was left beside it");

    // One of ours has its index appended where it is: what could not be appended can be later.
    let (own, unfinished) = (dir.path().join("own.webm.part"), unfinished().await);
    fs::write(&own, &unfinished.part).unwrap();
    let before = framemd5(&own);
    let output = repair_within(unfinished.part.len() / 512, &own);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(framemd5(&own) == before, "frames are lost");
    println!("{}", repaired(&own));
    assert!(framemd5(&own) == before, "frames are lost");
    assert_seekable(&own);
}

#[test]
fn a_terminal_sees_how_far_it_is_and_others_only_lines() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.webm");
    fs::write(&file, ffmpeg_live()).unwrap();
    let command = format!("'{}' repair '{}'", env!("CARGO_BIN_EXE_onrecord"), file.display());
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &command, "/dev/null"]).stdin(Stdio::null());
    let output = terminal.output().expect("script is installed");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{said:?}");
    assert!(output.status.success() && said.contains("\r[====") && said.contains(" MiB"), "{said:?}");
    // The bar is gone before the line is there.
    let line = said.rsplit("\r\x1b[K").next().unwrap();
    assert!(line.contains("a.webm: 150 pictures") && line.contains("found: no duration"), "{said:?}");

    fs::write(&file, ffmpeg_live()).unwrap();
    let said = repaired(&file);
    assert!(!said.contains(['\r', '\x1b', '\n']), "{said:?}");
    assert!(said.contains("repaired and replaced"), "{said}");
}
