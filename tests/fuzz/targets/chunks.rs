//! An upload: messages in any order, bytes cut anywhere, time that passes.
//!
//! The input is what its container is said to be, a count of steps, the steps of four bytes each, and the
//! file that they send: so that real files can be seeds.

use onrecord::fuzzing::Upload;
use std::time::Duration;

pub fn run(data: &[u8]) {
    let [kind, steps, rest @ ..] = data else { return };
    let Some((steps, file)) = rest.split_at_checked(usize::from(*steps) * 4) else { return };
    let mut upload = Upload::new(kind % 2 == 0);
    let (mut at, mut sent) = (0, 0u64);
    for step in steps.chunks_exact(4) {
        let [what, how, low, high] = *step else { continue };
        let number = u16::from_le_bytes([low, high]);
        match what % 10 {
            0 => upload.start(),
            // The next bytes of the file, seldom with a few that are none of it.
            1..=4 => {
                let end = (at + usize::from(number)).min(file.len());
                upload.bytes(&file[at..end]);
                sent += (end - at) as u64;
                at = end;
                if how == 255 {
                    upload.bytes(step);
                }
            }
            // The file again, from its start: MediaRecorder began anew.
            5 => at = 0,
            6 => upload.stop((how > 0).then(|| (sent + u64::from(number)).saturating_sub(how.into()))),
            7 => upload.socket(false),
            8 => upload.socket(true),
            _ => upload.wait(Duration::from_millis(number.into())),
        }
    }
}
