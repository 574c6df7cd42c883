//! Generated media: real VP8 and Opus, encoded once by ffmpeg and kept under `target/test-media`.

use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// One encoded picture, or one packet of sound.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// When it was captured, since the clip's start.
    pub time: Duration,
    pub keyframe: bool,
    pub data: Arc<[u8]>,
}

/// Encoded media that can be played in a loop: it begins with a keyframe.
#[derive(Clone, Debug, Default)]
pub struct Clip {
    pub frames: Vec<Encoded>,
    /// When the next round begins.
    pub duration: Duration,
}

/// Frames a second of every clip.
pub const FPS: u64 = 30;
/// Length of an Opus packet.
pub const OPUS_PACKET: Duration = Duration::from_millis(20);
/// Where in each second the flash begins, and the beep.
pub const FLASH_AT: Duration = Duration::from_millis(500);
/// libopus looks ahead by 312 samples, which players take out by the pre-skip of an OpusHead. Over RTP
/// there is none, so sound comes out that much late: the beep starts earlier by as much.
pub const OPUS_LOOKAHEAD: f64 = 312.0 / 48_000.0;

/// A white flash and a 1 kHz beep of 100 ms at [`FLASH_AT`] of every second, with a keyframe a second.
/// Video first.
pub fn flash_and_beep(seconds: u32) -> (Clip, Clip) {
    let flash = format!(
        "color=c=black:s=320x180:r={FPS},drawbox=c=white:t=fill:enable='between(mod(n,{FPS}),15,17)'"
    );
    let from = FLASH_AT.as_secs_f64() - OPUS_LOOKAHEAD;
    let to = from + 0.1;
    let beep = format!("aevalsrc='if(between(mod(t,1),{from},{to}),0.8*sin(2*PI*1000*t),0)':s=48000");
    (vp8(&flash, seconds, "200k", FPS), opus(&beep, seconds))
}

/// A camera's picture at 720p30 and 1.5 Mbit/s, and a voice's worth of sound.
pub fn camera(seconds: u32) -> (Clip, Clip) {
    camera_at(seconds, 1500)
}

/// The same at so many kbit/s.
pub fn camera_at(seconds: u32, kilobits: u32) -> (Clip, Clip) {
    let graph = format!("testsrc2=s=1280x720:r={FPS}");
    let video = vp8(&graph, seconds, &format!("{kilobits}k"), 2 * FPS);
    (video, opus("sine=f=220:r=48000", seconds))
}

/// A noisy picture that takes 12 Mbit/s, with a keyframe a second, and a voice's worth of sound.
pub fn heavy(seconds: u32) -> (Clip, Clip) {
    let noise = format!("testsrc2=s=640x360:r={FPS},noise=alls=80:allf=t+u");
    (vp8(&noise, seconds, "12M", FPS), opus("sine=f=330:r=48000", seconds))
}

/// 640×360, then 1280×720, then 320×180, each for so many seconds: a sender that adapts to its network.
pub fn size_change(seconds_each: u32) -> Clip {
    let mut whole = Clip::default();
    for size in ["640x360", "1280x720", "320x180"] {
        let part = vp8(&format!("testsrc2=s={size}:r={FPS}"), seconds_each, "600k", FPS);
        let start = whole.duration;
        let shifted = part.frames.into_iter().map(|frame| Encoded { time: start + frame.time, ..frame });
        whole.frames.extend(shifted);
        whole.duration += part.duration;
    }
    whole
}

/// What a source of lavfi shows, with a keyframe at least every `gop` pictures.
pub fn vp8(graph: &str, seconds: u32, bitrate: &str, gop: u64) -> Clip {
    let (seconds_text, gop) = (seconds.to_string(), gop.to_string());
    let ivf = encode(
        "ivf",
        &[
            &["-f", "lavfi", "-i", graph, "-t", &seconds_text, "-c:v", "libvpx"][..],
            &["-b:v", bitrate, "-g", &gop, "-deadline", "realtime", "-cpu-used", "8", "-lag-in-frames", "0"],
            // Every picture of the source becomes a frame: none is dropped to meet the bitrate.
            &["-auto-alt-ref", "0", "-drop-threshold", "0", "-pix_fmt", "yuv420p"],
        ]
        .concat(),
    );
    Clip { frames: parse_ivf(&ivf), duration: Duration::from_secs(seconds.into()) }
}

/// What a source of lavfi sounds like, in packets of [`OPUS_PACKET`].
pub fn opus(graph: &str, seconds: u32) -> Clip {
    let seconds_text = seconds.to_string();
    let ogg = encode(
        "ogg",
        &[
            &["-f", "lavfi", "-i", graph, "-t", &seconds_text, "-c:a", "libopus", "-ac", "2"][..],
            &["-b:a", "64k", "-frame_duration", "20", "-application", "audio"],
        ]
        .concat(),
    );
    let packets = parse_ogg(&ogg).into_iter().skip(2); // OpusHead and OpusTags
    let frames =
        packets.zip(0..seconds * 50).map(|(data, n)| Encoded { time: OPUS_PACKET * n, keyframe: true, data });
    Clip { frames: frames.collect(), duration: Duration::from_secs(seconds.into()) }
}

/// ffmpeg's output for these arguments, from the disk if it was made before.
pub fn encode(format: &str, args: &[&str]) -> Vec<u8> {
    let key = Sha256::digest(args.join("\n"));
    let name: String = key[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let folder = cache_folder();
    let path = folder.join(format!("{name}.{format}"));
    if let Ok(known) = std::fs::read(&path) {
        return known;
    }
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error"])
        .args(args)
        .args(["-f", format, "-"])
        .stdin(Stdio::null())
        .output()
        .expect("ffmpeg is installed");
    assert!(output.status.success(), "ffmpeg: {}", String::from_utf8_lossy(&output.stderr));
    // Renamed into place, because tests of several processes may be making the same file.
    std::fs::create_dir_all(&folder).unwrap();
    let mut part = tempfile::NamedTempFile::new_in(&folder).unwrap();
    std::io::Write::write_all(&mut part, &output.stdout).unwrap();
    part.persist(&path).unwrap();
    output.stdout
}

fn cache_folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("test-media")
}

/// IVF: a 32-byte header with the time base, then size and timestamp before each frame.
fn parse_ivf(ivf: &[u8]) -> Vec<Encoded> {
    assert_eq!(&ivf[..4], b"DKIF");
    let word = |at: usize| u64::from(u32::from_le_bytes(ivf[at..at + 4].try_into().unwrap()));
    let (rate, scale) = (word(16), word(20));
    let mut frames = Vec::new();
    let mut at = 32;
    while at + 12 <= ivf.len() {
        let (size, stamp) = (word(at) as usize, word(at + 4));
        let data = &ivf[at + 12..at + 12 + size];
        frames.push(Encoded {
            time: Duration::from_nanos(stamp * scale * 1_000_000_000 / rate),
            keyframe: data[0] & 1 == 0, // RFC 6386 section 9.1
            data: data.into(),
        });
        at += 12 + size;
    }
    frames
}

/// The packets of an Ogg stream (RFC 3533 section 6): segments of 255 bytes go on in the next one.
fn parse_ogg(ogg: &[u8]) -> Vec<Arc<[u8]>> {
    let mut packets = Vec::new();
    let mut packet = Vec::new();
    let mut at = 0;
    while at + 27 <= ogg.len() {
        assert_eq!(&ogg[at..at + 4], b"OggS");
        let segments = usize::from(ogg[at + 26]);
        let table = &ogg[at + 27..at + 27 + segments];
        at += 27 + segments;
        for &length in table {
            packet.extend_from_slice(&ogg[at..at + usize::from(length)]);
            at += usize::from(length);
            if length < 255 {
                packets.push(std::mem::take(&mut packet).into());
            }
        }
    }
    packets
}

/// Different JPEG images of this size, as ffmpeg's own encoder makes them.
pub fn jpegs(count: usize, size: &str) -> Vec<Vec<u8>> {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-f", "lavfi", "-i", &format!("testsrc2=s={size}:r=10")])
        .args(["-frames:v", &count.to_string(), "-t", &(count as f64 / 10.0 + 1.0).to_string()])
        .args(["-c:v", "mjpeg", "-q:v", "5", "-f", "image2pipe", "-"])
        .stdin(Stdio::null())
        .output()
        .expect("ffmpeg is installed");
    let mut images: Vec<Vec<u8>> = Vec::new();
    let mut rest = output.stdout.as_slice();
    // Stuffing keeps FF D9 out of pictures, and ffmpeg writes no thumbnails.
    while let Some(end) = rest.windows(2).position(|pair| pair == [0xff, 0xd9]) {
        images.push(rest[..end + 2].to_vec());
        rest = &rest[end + 2..];
    }
    assert_eq!(images.len(), count, "{}", String::from_utf8_lossy(&output.stderr));
    images
}

/// The same image with comments in it, until it has about this many bytes.
pub fn heavy_jpeg(image: &[u8], bytes: usize) -> Vec<u8> {
    let mut heavy = image[..2].to_vec();
    while heavy.len() + image.len() < bytes {
        heavy.extend([0xff, 0xfe, 0xff, 0xff]);
        heavy.extend(std::iter::repeat_n(b'.', 0xffff - 2));
    }
    heavy.extend(&image[2..]);
    heavy
}
