//! What a script prints: line by line for the log, the last 4 KiB for the manifest.
//!
//! Bounded whatever comes: one line of [`LINE_MAX`] bytes, one tail of [`TAIL_MAX`], and a log that
//! takes [`BURST`] lines at once and [`RATE`] a second; lines beyond that are counted, not kept.

use std::time::{Duration, Instant};

/// The tail kept for the manifest, in bytes.
pub(super) const TAIL_MAX: usize = 4096;
/// Longer lines are cut in the log.
const LINE_MAX: usize = 1024;
/// Lines the log takes at once: enough for a chatty upload.
const BURST: u32 = 200;
/// Lines a second after that.
const RATE: u32 = 20;

/// One attempt's output.
pub(super) struct Output {
    tail: Vec<u8>,
    tail_cut: bool,
    line: Vec<u8>,
    line_cut: bool,
    tokens: f64,
    refilled: Instant,
    skipped: u64,
}

impl Output {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            tail: Vec::new(),
            tail_cut: false,
            line: Vec::new(),
            line_cut: false,
            tokens: f64::from(BURST),
            refilled: now,
            skipped: 0,
        }
    }

    /// Takes what was read; calls `log` with each line that is due.
    pub(super) fn take(&mut self, mut bytes: &[u8], now: Instant, log: &mut impl FnMut(&str)) {
        self.keep_tail(bytes);
        self.refill(now);
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.keep_line(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.end_line(log);
            if self.tokens < 1.0
                && let Some(last) = bytes.iter().rposition(|byte| *byte == b'\n')
            {
                // A flood: the whole lines that are left cost one pass, not one step each.
                self.skipped += bytes[..=last].iter().filter(|byte| **byte == b'\n').count() as u64;
                bytes = &bytes[last + 1..];
            }
        }
        self.keep_line(bytes);
    }

    /// Logs what is left and returns the tail as text of at most [`TAIL_MAX`] bytes.
    pub(super) fn finish(mut self, now: Instant, log: &mut impl FnMut(&str)) -> String {
        self.refill(now);
        self.end_line(log);
        self.log_skipped(log);
        let mut tail = self.tail.as_slice();
        if self.tail_cut {
            // The cut may have fallen into a character: its continuation bytes go too.
            let whole = tail.iter().position(|byte| byte & 0xc0 != 0x80).unwrap_or(0).min(3);
            tail = &tail[whole..];
        }
        let text = String::from_utf8_lossy(tail);
        // Replacement characters are longer than the bytes they stand for.
        let surplus = text.len().saturating_sub(TAIL_MAX);
        let from = text.char_indices().map(|(at, _)| at).find(|at| *at >= surplus).unwrap_or(0);
        text[from..].to_owned()
    }

    fn keep_tail(&mut self, bytes: &[u8]) {
        self.tail_cut |= self.tail.len() + bytes.len() > TAIL_MAX;
        let bytes = &bytes[bytes.len().saturating_sub(TAIL_MAX)..];
        let surplus = (self.tail.len() + bytes.len()).saturating_sub(TAIL_MAX);
        self.tail.drain(..surplus);
        self.tail.extend_from_slice(bytes);
    }

    fn keep_line(&mut self, bytes: &[u8]) {
        let free = LINE_MAX - self.line.len();
        self.line_cut |= bytes.len() > free;
        self.line.extend_from_slice(&bytes[..bytes.len().min(free)]);
    }

    fn end_line(&mut self, log: &mut impl FnMut(&str)) {
        if self.line.is_empty() {
            return;
        }
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            self.log_skipped(log);
            let line = String::from_utf8_lossy(&self.line);
            let cut = if self.line_cut { "…" } else { "" };
            log(&format!("{}{cut}", line.trim_end()));
        } else {
            self.skipped += 1;
        }
        self.line.clear();
        self.line_cut = false;
    }

    fn log_skipped(&mut self, log: &mut impl FnMut(&str)) {
        if self.skipped > 0 {
            log(&format!("({} lines left out: the log takes {RATE} a second of one script)", self.skipped));
            self.skipped = 0;
        }
    }

    fn refill(&mut self, now: Instant) {
        let passed: Duration = now.saturating_duration_since(self.refilled);
        self.tokens = (self.tokens + passed.as_secs_f64() * f64::from(RATE)).min(f64::from(BURST));
        self.refilled = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(chunks: &[&[u8]]) -> (Vec<String>, String) {
        let (now, mut lines) = (Instant::now(), Vec::new());
        let mut output = Output::new(now);
        for chunk in chunks {
            output.take(chunk, now, &mut |line| lines.push(line.to_owned()));
        }
        let tail = output.finish(now, &mut |line| lines.push(line.to_owned()));
        (lines, tail)
    }

    #[test]
    fn lines_are_logged_whole_however_they_were_written() {
        let (lines, tail) = logged(&[b"up", b"loaded\r\n\nsecond\nun", b"finished"]);
        assert_eq!(lines, ["uploaded", "second", "unfinished"]);
        assert_eq!(tail, "uploaded\r\n\nsecond\nunfinished");
    }

    #[test]
    fn a_flood_costs_the_log_a_burst_and_one_count() {
        let chunk = b"y\n".repeat(32 * 1024);
        let began = Instant::now();
        let (lines, tail) = logged(&vec![chunk.as_slice(); 1600]);
        println!(
            "{} MB in {:?}, {} lines logged",
            chunk.len() * 1600 / 1_000_000,
            began.elapsed(),
            lines.len()
        );
        assert_eq!(lines.len(), BURST as usize + 1, "{:?}", lines.last());
        let left_out = 1600 * 32 * 1024 - BURST;
        assert!(lines.last().unwrap().starts_with(&format!("({left_out} lines")), "{:?}", lines.last());
        assert_eq!(tail.len(), TAIL_MAX);
    }

    #[test]
    fn an_endless_line_is_cut_and_the_log_recovers() {
        let (lines, _) = logged(&[&[b'x'; 100_000], &[b'x'; 100_000], b"\nafter\n"]);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(lines[0].chars().count(), LINE_MAX + 1, "{}", lines[0].len());
        assert_eq!(lines[1], "after");
    }

    #[test]
    fn the_log_takes_lines_again_after_a_flood_and_says_how_many_it_missed() {
        let (now, mut lines) = (Instant::now(), Vec::new());
        let mut output = Output::new(now);
        output.take(&b"y\n".repeat(BURST as usize + 7), now, &mut |_| {});
        output.take(b"later\n", now + Duration::from_secs(1), &mut |line| lines.push(line.to_owned()));
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("(7 lines left out"), "{lines:?}");
        assert_eq!(lines[1], "later");
    }

    #[test]
    fn the_tail_is_the_last_4_kib_and_cuts_no_character() {
        let (_, tail) = logged(&["ж".repeat(3000).as_bytes(), b"!"]);
        assert!(tail.len() <= TAIL_MAX, "{}", tail.len());
        assert_eq!(tail, format!("{}!", "ж".repeat(2047)));
        let (_, tail) = logged(&[&[0xff; 10_000]]);
        assert!(tail.len() <= TAIL_MAX && tail.len() > TAIL_MAX - 3, "{}", tail.len());
    }
}
