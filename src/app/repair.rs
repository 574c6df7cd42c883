//! `onrecord repair`: says what was found in each file and what was done about it.

use crate::media::Kind;
use crate::record::{self, Done, Filled, RepairError, Repaired};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often the progress is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// Characters of the bar.
const BAR: u64 = 30;

/// Repairs files one after the other, in place or as `output`, and fills holes of sound with silence if that
/// is wished; returns whether all are whole now. One
/// line for each goes to the standard output, or to the standard error if it could not be repaired; the
/// progress to a terminal.
pub fn repair(files: &[impl AsRef<Path>], output: Option<&Path>, fill_silence: bool) -> bool {
    let mut all_whole = true;
    for file in files {
        let file = file.as_ref();
        let mut bar = Bar::new(file);
        let mut watch = |done, all| {
            bar.draw(done, all);
            true
        };
        let result = if fill_silence {
            let filled = record::repair_and_fill(file, output, &mut watch);
            filled.map(|(repaired, filled)| account(&repaired, output) + &account_of_silence(&filled))
        } else {
            record::repair(file, output, &mut watch).map(|repaired| account(&repaired, output))
        };
        bar.clear();
        // Standard output or error may be closed; the exit code tells the rest.
        let _ = match result {
            Ok(account) => writeln!(io::stdout(), "{}: {account}", file.display()),
            Err(error) => {
                all_whole = false;
                writeln!(io::stderr(), "{}: left as it is: {}", file.display(), reason(&error))
            }
        };
    }
    all_whole
}

fn reason(error: &RepairError) -> String {
    match error {
        RepairError::Unrepairable(why) => format!("can't be repaired: {why}"),
        other => other.to_string(),
    }
}

/// What was found and done, in a line.
fn account(repaired: &Repaired, output: Option<&Path>) -> String {
    let mut parts = Vec::new();
    for track in &repaired.tracks {
        let what = match track.kind {
            Some(Kind::Video) => "pictures",
            Some(Kind::Audio) => "packets of sound",
            None => "other blocks",
        };
        let codec = track.codec_id.split_once('_').map_or(track.codec_id.as_str(), |(_, codec)| codec);
        parts.push(format!("{} {what} ({codec})", track.frames));
    }
    parts.push(format!("{:.3} s", repaired.duration.as_secs_f64()));
    let mut found: Vec<_> = repaired.defects.iter().map(ToString::to_string).collect();
    if repaired.damaged > 0 {
        found.push(format!("{} bytes in its middle made no sense", repaired.damaged));
    }
    let sealed = repaired.done == Done::Sealed;
    if repaired.cut > 0 {
        let what = if sealed {
            "bytes behind its last whole cluster"
        } else {
            "bytes at its end that are no whole frame"
        };
        found.push(format!("{} {what}", repaired.cut));
    }
    let found = if found.is_empty() { "whole".to_owned() } else { found.join(", ") };
    let done = match (repaired.done, output) {
        (Done::Nothing, _) => "nothing to do".to_owned(),
        (_, Some(output)) => format!("repaired as {}", output.display()),
        (Done::Sealed, None) => "repaired in place".to_owned(),
        (Done::Copied, None) => "repaired and replaced".to_owned(),
    };
    format!("{}; found: {found}; {done}, {} bytes", parts.join(", "), repaired.bytes)
}

/// What became of the holes in its sound, as the end of that line.
fn account_of_silence(filled: &Filled) -> String {
    let mut account = match filled.silence {
        Duration::ZERO => "; no silence to fill in".to_owned(),
        silence => format!("; {:.3} s of silence filled in", silence.as_secs_f64()),
    };
    for codec in &filled.left {
        account +=
            &format!("; its sound in {codec} is left as it is: only Opus in mono or stereo can be filled");
    }
    account
}

/// A line on the standard error, if that is a terminal.
struct Bar<'a> {
    file: &'a Path,
    shown: bool,
    drawn: Option<Instant>,
}

impl<'a> Bar<'a> {
    fn new(file: &'a Path) -> Self {
        Self { file, shown: io::stderr().is_terminal(), drawn: None }
    }

    fn draw(&mut self, done: u64, all: u64) {
        if !self.shown || self.drawn.is_some_and(|drawn| drawn.elapsed() < DRAW_EVERY) {
            return;
        }
        self.drawn = Some(Instant::now());
        let filled = (done.min(all) * BAR).checked_div(all).unwrap_or(BAR) as usize;
        let (full, empty) = ("=".repeat(filled), " ".repeat(BAR as usize - filled));
        let _ = write!(io::stderr(), "\r[{full}{empty}] {} MiB  {}", done >> 20, self.file.display());
    }

    fn clear(&self) {
        if self.drawn.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
