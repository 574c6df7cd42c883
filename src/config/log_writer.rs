//! Log lines on their way out: logging never waits.
//!
//! Standard error may be a pipe whose reader is slow, stopped or gone. The media thread logs too: a write that
//! blocks there would stop every stream, and one that fails must fail nothing.
//!
//! Lines have names in them that strangers chose. What would break a line in two for its reader, or turn the rest
//! of it around, is written as its number.
//!
//! `tracing-appender` would not do: it says in no line that lines were left out, and at its end, while its queue is
//! full, prints to the standard output, which may be the same stuck pipe.

use crate::base::metrics::metrics;
use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

/// Lines that may wait. What comes while so many do is left out, counted and said.
const WAITING: usize = 4096;
/// How long the last lines may take at the end.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

enum Message {
    Line(Box<[u8]>),
    /// Answered when everything before it is out.
    Flush(SyncSender<()>),
}

/// Where lines are put, each with one `write`. Cheap to clone.
#[derive(Clone)]
pub(super) struct Lines {
    queue: SyncSender<Message>,
    left_out: Arc<AtomicU64>,
}

impl Lines {
    /// Carries lines to `out` on a thread of its own.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, lines) = sync_channel(WAITING);
        let left_out = Arc::<AtomicU64>::default();
        let counted = left_out.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || carry(&lines, out, &counted))?;
        Ok(Self { queue, left_out })
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Message::Line(line.into())).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            metrics().log_lines_left_out.inc();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn carry(lines: &Receiver<Message>, mut out: impl Write, left_out: &AtomicU64) {
    while let Ok(message) = lines.recv() {
        match message {
            // There is nowhere left to report an error to.
            Message::Line(line) => drop(out.write_all(&visible(&line))),
            Message::Flush(done) => drop(done.send(())),
        }
        let lines = left_out.swap(0, Ordering::Relaxed);
        if lines > 0 {
            tracing::warn!(lines, "log lines were left out: whoever reads the log is too slow for it");
        }
    }
}

/// A line as it looks in every viewer. A number is written as JSON writes it, which holds for text as well.
fn visible(line: &[u8]) -> Cow<'_, [u8]> {
    let text = match std::str::from_utf8(line) {
        Ok(text) if !line.is_ascii() && text.contains(misleads) => text,
        _ => return Cow::Borrowed(line),
    };
    let mut shown = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        if misleads(char) {
            shown.push_str(&format!("\\u{:04x}", u32::from(char)));
        } else {
            shown.push(char);
        }
    }
    Cow::Owned(shown.into_bytes())
}

/// Next line and the other C1 controls; marks, embeddings and isolates that turn the direction of text (UAX 9
/// section 2), and what has no width; line and paragraph separators.
fn misleads(char: char) -> bool {
    matches!(char,
        '\u{80}'..='\u{9f}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Held as long as lines are to come out: what still waits when it is dropped has [`FLUSH_LIMIT`].
#[must_use = "lines that wait are lost with it"]
pub struct Logging(pub(super) Lines);

impl Drop for Logging {
    fn drop(&mut self) {
        let deadline = Instant::now() + FLUSH_LIMIT;
        let (done, flushed) = sync_channel(1);
        let mut flush = Message::Flush(done);
        while let Err(TrySendError::Full(back)) = self.0.queue.try_send(flush) {
            if Instant::now() > deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
            flush = back;
        }
        let _ = flushed.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::mpsc::{Sender, channel};

    /// Takes nothing until the other end is dropped, then keeps it.
    struct Held {
        gate: Receiver<()>,
        kept: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Held {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.gate.recv();
            self.kept.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn held() -> (Lines, Sender<()>, Arc<Mutex<Vec<u8>>>) {
        let ((gate, shut), kept) = (channel(), Arc::<Mutex<Vec<u8>>>::default());
        (Lines::start(Held { gate: shut, kept: kept.clone() }).unwrap(), gate, kept)
    }

    #[test]
    fn no_name_breaks_a_line_or_turns_it_around() {
        let table = [
            ("stream=plain\n", "stream=plain\n"),
            ("stream=Собеседование №7 \u{1f3a5}\n", "stream=Собеседование №7 \u{1f3a5}\n"),
            ("stream=a\u{202e}gpj.exe\u{2069}\n", "stream=a\\u202egpj.exe\\u2069\n"),
            ("a\u{2028}b\u{2029}c\u{85}d\u{200f}é", "a\\u2028b\\u2029c\\u0085d\\u200fé"),
        ];
        for (line, shown) in table {
            assert_eq!(visible(line.as_bytes()), shown.as_bytes(), "{line:?}");
        }
        assert_eq!(visible(b"\xff\x80"), &b"\xff\x80"[..], "no text is left as it is");
    }

    #[test]
    fn logging_does_not_wait_for_a_reader_and_what_is_left_out_is_counted() {
        let (mut lines, gate, kept) = held();
        let logging = Logging(lines.clone());
        let began = Instant::now();
        // One may be with the reader already.
        for _ in 0..WAITING + 11 {
            lines.write_all(b"line\n").unwrap();
        }
        assert!(began.elapsed() < FLUSH_LIMIT, "{:?}", began.elapsed());
        let left_out = lines.left_out.load(Ordering::Relaxed);
        assert!((10..=11).contains(&left_out), "{left_out}");
        drop(gate);
        drop(logging);
        assert_eq!(kept.lock().len() / 5, WAITING + 11 - left_out as usize, "the others are out");
    }

    #[test]
    fn a_reader_that_hangs_does_not_keep_the_process() {
        let (mut lines, gate, _) = held();
        for _ in 0..2 * WAITING {
            lines.write_all(b"line\n").unwrap();
        }
        let began = Instant::now();
        drop(Logging(lines));
        assert!(began.elapsed() < 10 * FLUSH_LIMIT, "{:?}", began.elapsed());
        drop(gate);
    }

    #[test]
    fn a_reader_that_is_gone_fails_nothing() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut lines = Lines::start(writer).unwrap();
        lines.write_all(b"line\n").unwrap();
        drop(Logging(lines.clone()));
        lines.write_all(b"another\n").unwrap();
    }
}
