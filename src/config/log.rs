//! The log: to standard error, as text or JSON.

use crate::config::log_writer::{Lines, Logging};
use serde::Deserialize;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal;
use std::panic;
use tracing::error;
use tracing::field::display;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Section `log` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// A level for the server itself, or `EnvFilter` directives for everything.
    pub level: String,
    /// How lines look.
    pub format: Format,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: Format::Text }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

impl Log {
    /// The directives. A level alone is the server's own: libraries say warnings only, and the
    /// WebRTC stack nothing, for any sender of a datagram can make it warn.
    pub(super) fn filter(&self) -> Result<EnvFilter, String> {
        let level = self.level.trim();
        let expected = "expected error, warn, info, debug or trace, or EnvFilter directives";
        let directives = if !level.is_empty() && level.parse::<LevelFilter>().is_ok() {
            format!("warn,rtc=off,webrtc=off,onrecord={level}")
        } else if level.contains(['=', ',']) {
            level.to_owned()
        } else {
            // EnvFilter would take a misspelt level for a target, and log nothing.
            return Err(format!("{expected}, found {level:?}"));
        };
        EnvFilter::try_new(directives).map_err(|error| format!("{expected}: {error}"))
    }

    /// Starts logging, once a process.
    pub fn start(&self) -> Result<Logging, String> {
        let lines = Lines::start(std::io::stderr()).map_err(|error| error.to_string())?;
        let logging = Logging(lines.clone());
        let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let builder = tracing_subscriber::fmt()
            .with_env_filter(self.filter()?)
            .with_writer(move || lines.clone())
            .with_ansi(colours);
        let started = match self.format {
            Format::Text => builder.try_init(),
            Format::Json => builder.json().flatten_event(true).try_init(),
        };
        started.map_err(|error| error.to_string())?;
        // In the log's own format: a collector that reads JSON would drop the lines the runtime prints.
        panic::set_hook(Box::new(|panicked| {
            let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
            // Taken if RUST_BACKTRACE asks for it.
            let backtrace = Backtrace::capture();
            let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| display(backtrace));
            error!(thread, backtrace, "{panicked}");
        }));
        Ok(logging)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_alone_is_the_servers_own_and_directives_are_taken_as_they_are() {
        let filter = |level: &str| {
            let log = Log { level: level.to_owned(), format: Format::Text };
            log.filter().map(|filter| {
                let mut directives: Vec<_> = filter.to_string().split(',').map(str::to_owned).collect();
                directives.sort();
                directives.join(",")
            })
        };
        assert_eq!(filter("debug").as_deref(), Ok("onrecord=debug,rtc=off,warn,webrtc=off"));
        assert_eq!(filter("OFF").as_deref(), Ok("onrecord=off,rtc=off,warn,webrtc=off"));
        assert_eq!(filter("info,rtc=warn").as_deref(), Ok("info,rtc=warn"));
        assert!(filter("loud").is_err() && filter("").is_err() && filter("onrecord=loud").is_err());
    }
}
