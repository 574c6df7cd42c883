//! Films that say at each moment which moment it is, for `tests/tools/scene.py` to read: a flash and a beep
//! each second, and a bar that moves from left to right in [`ROUND`].

use crate::support::media::{self, Clip, Encoded, FPS, OPUS_LOOKAHEAD};
use crate::support::source::Source;
use std::time::Duration;

/// In seconds; a film played in a loop goes on after so long as if it had no end.
pub const ROUND: u32 = 10;

/// A source of lavfi that shows what is to be seen from a second on.
pub fn picture(width: u32, height: u32, fps: u64, from: u32) -> String {
    let (bar, bar_height, flash) = (width / 16, height / 5, height * 2 / 3);
    let (first, last) = (fps / 2, fps / 2 + fps / 10 - 1);
    format!(
        "color=c=black:s={width}x{height}:r={fps}[back];color=c=white:s={bar}x{bar_height}:r={fps}[bar];\
         [back][bar]overlay=x='(W-w)*mod(t+{from},{ROUND})/{ROUND}':y=H-h,\
         drawbox=c=white:t=fill:h={flash}:enable='between(mod(n,{fps}),{first},{last})'"
    )
}

/// A source of lavfi that beeps for 0.1 s in the middle of each second, or so much earlier.
pub fn sound(earlier: f64) -> String {
    let (from, to) = (0.5 - earlier, 0.6 - earlier);
    format!("aevalsrc='if(between(mod(t,1),{from},{to}),0.8*sin(2*PI*1000*t),0)':s=48000")
}

/// Pictures and sound of one round, as a WebRTC publisher sends them.
pub fn round() -> (Clip, Clip) {
    let video = media::vp8(&picture(320, 180, FPS, 0), ROUND, "200k", FPS);
    (video, media::opus(&sound(OPUS_LOOKAHEAD), ROUND))
}

/// Pictures that become larger twice, as from a browser that finds out what its network can carry.
pub fn growing() -> Clip {
    let mut whole = Clip::default();
    // Size, and from which second on until which.
    for (width, height, from, to) in [(320, 180, 0, 3), (640, 360, 3, 6), (1280, 720, 6, ROUND)] {
        let part = media::vp8(&picture(width, height, FPS, from), to - from, "400k", FPS);
        let start = whole.duration;
        let later = part.frames.into_iter().map(|frame| Encoded { time: start + frame.time, ..frame });
        whole.frames.extend(later);
        whole.duration += part.duration;
    }
    whole
}

/// A camera whose pictures come unevenly: every fourth is late, 3 ms before the one behind it.
pub struct Uneven<S>(pub S, pub usize);

impl<S: Source> Source for Uneven<S> {
    fn next(&mut self) -> Encoded {
        let frame = self.0.next();
        self.1 += 1;
        // Flashes begin with the sixteenth of thirty.
        let late = if self.1 % 4 == 3 { Duration::from_millis(30) } else { Duration::ZERO };
        Encoded { time: frame.time + late, ..frame }
    }
}
