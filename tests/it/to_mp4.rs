//! Hooks that call ffmpeg: the one that is shipped, and what people write.

use crate::support::judge::{self, Probe};
use crate::support::media;
use crate::support::server::Server;
use crate::support::user::{Api, Script, files_in};
use reqwest::{Client, StatusCode, header};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/hooks/to_mp4.sh");
/// A conversion of some seconds, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const FRAMES: usize = 20;

/// As many do, without a thought of standard input.
const PLAIN: &str = r#"#!/bin/sh
STREAM_NAME=$1
FILE_PATH=$2
ffmpeg -y -i "$FILE_PATH" -c:v libx264 -c:a aac "${FILE_PATH%.*}.mp4"
"#;

/// Records pictures at about ten a second; gives the manifest once the hook is done.
async fn recorded(server: &Server, stream: &str) -> Value {
    let (client, url) = (Client::new(), server.url(&format!("/upload/{stream}")));
    let (mut token, mut pace) = (None::<String>, tokio::time::interval(Duration::from_millis(100)));
    for image in media::jpegs(FRAMES, "320x180") {
        pace.tick().await;
        let request = client.post(&url).header(header::CONTENT_TYPE, "image/jpeg").body(image);
        let request = token.iter().fold(request, |request, token| request.header("onrecord-resume", token));
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        let told = answer.headers().get("onrecord-resume");
        token = told.map(|told| told.to_str().unwrap().to_owned()).or(token);
    }
    let end = client.delete(&url).header("onrecord-resume", token.unwrap());
    let end: Value = end.send().await.unwrap().json().await.unwrap();
    Api::of(server).hook(end["recording"]["id"].as_str().unwrap(), "done", PATIENCE).await
}

#[tokio::test]
async fn a_plain_ffmpeg_makes_a_whole_mp4_of_every_recording() {
    let script = Script::verbatim(tempfile::tempdir().unwrap(), PLAIN);
    let server = Server::start(&[&script.setting(), "hooks.max_attempts=1"]);
    // A manifest with these names on standard input holds what ffmpeg takes for commands.
    for stream in ["mock", "sequence"] {
        let manifest = recorded(&server, stream).await;
        let mp4 = server.records().join(manifest["file"].as_str().unwrap()).with_extension("mp4");
        judge::decode(&mp4).unwrap();
        let lasts = Probe::of(&mp4).duration().unwrap().as_millis() as u64;
        let lasted = manifest["duration_ms"].as_u64().unwrap();
        println!("{stream}: {lasts} ms of {lasted}");
        assert!(lasts.abs_diff(lasted) < 300, "{stream}: {lasts} ms of {lasted}");
    }
}

#[tokio::test]
async fn the_shipped_converter_keeps_every_picture_and_is_no_recording_to_the_server() {
    let setting = format!("hooks.on_record={SCRIPT}");
    let settings = [setting.as_str(), "hooks.max_attempts=1"];
    let server = Server::start(&settings);
    let manifest = recorded(&server, "front door").await;
    let file = PathBuf::from(manifest["file"].as_str().unwrap()).with_extension("mp4");
    let mp4 = server.records().join("mp4").join(&file);
    judge::decode(&mp4).unwrap();
    assert_eq!(judge::packets_of(&mp4, "video").len(), FRAMES);
    assert_eq!(files_in(&server.records().join("mp4")), [file.to_str().unwrap()]);
    let tail = manifest["hook"]["attempts"][0]["tail"].as_str().unwrap();
    assert_eq!(tail.lines().count(), 1, "it talks: {tail}");
    let server = server.killed_and_started(&settings);
    assert_eq!(Api::of(&server).recordings().await.len(), 1, "the MP4 was taken for a recording");
}

/// 2 s each of three sizes, the last odd, with flashes and beeps, and two holes in the sound.
fn climbing(folder: &Path) -> PathBuf {
    let ffmpeg = |args: &[&str]| {
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-v", "error"]).args(args).current_dir(folder).stdin(Stdio::null());
        assert!(command.status().unwrap().success(), "{args:?}");
    };
    let beep = "aevalsrc='if(between(mod(t,1),0.5,0.6),0.8*sin(2*PI*1000*t),0)':s=48000";
    let mut list = String::new();
    for size in ["320x180", "640x360", "161x91"] {
        let flash =
            format!("color=c=black:s={size}:r=30,drawbox=c=white:t=fill:enable='between(mod(n,30),15,17)'");
        let part = format!("{size}.webm");
        let codecs = ["-c:v", "libvpx", "-deadline", "realtime", "-g", "30", "-c:a", "libopus"];
        let input = ["-f", "lavfi", "-i", &flash, "-f", "lavfi", "-i", beep, "-t", "2"];
        ffmpeg(&[&input[..], &codecs, &[&part]].concat());
        list.push_str(&format!("file {part}\n"));
    }
    std::fs::write(folder.join("list"), list).unwrap();
    let holes = "noise=drop='between(pts*tb,1,1.4)+between(pts*tb,3.7,4.2)'";
    ffmpeg(&["-f", "concat", "-i", "list", "-c", "copy", "-bsf:a", holes, "it's a climb.webm"]);
    folder.join("it's a climb.webm")
}

fn convert(file: &Path, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(SCRIPT);
    command.arg("name").arg(file).env_remove("ONRECORD_WIDTH").env_remove("ONRECORD_HEIGHT");
    command.envs(variables.iter().copied()).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn sizes_that_climb_and_holes_in_the_sound_become_one_size_and_sound_in_step() {
    let folder = tempfile::tempdir().unwrap();
    let file = climbing(folder.path());
    let sizes = [("ONRECORD_WIDTH", "640"), ("ONRECORD_HEIGHT", "360")];
    let output = convert(&file, &sizes);
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success() && said[1].is_empty(), "{said:?}");
    let mp4 = folder.path().join("mp4/it's a climb.mp4");
    judge::decode(&mp4).unwrap();
    assert_eq!(judge::packets_of(&mp4, "video").len(), judge::packets_of(&file, "video").len());
    assert_eq!(judge::picture_sizes(&mp4).into_iter().collect::<Vec<_>>(), [(640, 360)]);
    let (before, after) = (judge::av_offsets(&file), judge::av_offsets(&mp4));
    println!("beeps behind their flashes: {before:?} ms, in the MP4 {after:?} ms");
    assert_eq!((before.len(), after.len()), (6, 6));
    assert!(after.iter().all(|offset| offset.abs() < 40.0), "{after:?}");

    // Again it finds it there; what is there stays as it is until it is whole.
    let made = std::fs::metadata(&mp4).unwrap().modified().unwrap();
    assert!(convert(&file, &sizes).status.success());
    assert_eq!(std::fs::metadata(&mp4).unwrap().modified().unwrap(), made, "converted twice");
    std::fs::remove_file(&mp4).unwrap();
    let fails = folder.path().join("ffmpeg");
    std::fs::write(
        &fails,
        "#!/bin/sh\n[ \"$1\" = -version ] || { for last; do :; done; echo x > \"${last#file:}\"; exit 1; }\n",
    )
    .unwrap();
    std::fs::set_permissions(&fails, PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("/usr/bin/ffprobe", folder.path().join("ffprobe")).unwrap();
    let output = convert(&file, &[("MP4_FFMPEG", fails.to_str().unwrap())]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(std::fs::read_dir(folder.path().join("mp4")).unwrap().count(), 0, "a broken MP4 is left");
}

#[test]
fn each_ffmpeg_is_told_to_keep_pictures_in_the_words_it_knows() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.webm");
    std::fs::write(&file, "x").unwrap();
    let pretend = folder.path().join("ffmpeg");
    let old = "-vsync vfr -enc_time_base 1:1000";
    let new = "-fps_mode vfr -enc_time_base demux";
    for (version, words) in [
        ("5.1.9-0+deb12u1", old),
        ("6.1.1-3ubuntu5", old),
        ("7.1", new),
        ("n8.1", new),
        ("10.0", new),
        ("N-121000-gabcdef", new),
    ] {
        let text = format!(
            "#!/bin/sh\n[ \"$1\" != -version ] || {{ echo 'ffmpeg version {version} Copyright'; exit; }}\n\
             echo \"$@\" > {}/told\nexit 1\n",
            folder.path().display()
        );
        std::fs::write(&pretend, text).unwrap();
        std::fs::set_permissions(&pretend, PermissionsExt::from_mode(0o755)).unwrap();
        let sizes = [("ONRECORD_WIDTH", "161"), ("ONRECORD_HEIGHT", "91")];
        convert(&file, &[&sizes[..], &[("MP4_FFMPEG", pretend.to_str().unwrap())]].concat());
        let told = std::fs::read_to_string(folder.path().join("told")).unwrap();
        assert!(told.contains(words) && told.contains("scale=162:92:"), "{version}: {told}");
        assert!(told.contains("-nostdin -loglevel error"), "{told}");
    }
}
