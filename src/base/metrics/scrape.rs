//! One look at everything: the counts, and what their owners say of the present.

use super::Metrics;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::AtomicU64;

/// How the text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0, which Prometheus asks for first.
    OpenMetrics,
    /// Prometheus' own older text format, 0.0.4, which everything else reads.
    Classic,
}

impl Format {
    /// What an `Accept` header asks for: OpenMetrics only where it is named, since a reader that doesn't
    /// know it would take each counter for something of no known type.
    pub fn accepted(accept: &str) -> Self {
        let wanted = |range: &str| {
            let mut parts = range.split(';').map(str::trim);
            parts.next() == Some("application/openmetrics-text")
                && !parts.any(|part| matches!(part, "q=0" | "q=0.0"))
        };
        if accept.split(',').any(wanted) { Self::OpenMetrics } else { Self::Classic }
    }

    /// Its `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What one scrape shows.
#[derive(Debug)]
pub struct Scrape {
    ours: Registry,
    /// Named as in any process, without our prefix.
    process: Registry,
}

impl Scrape {
    /// With all counts in it.
    pub fn new(metrics: &Metrics) -> Self {
        let mut ours = Registry::with_prefix("onrecord");
        metrics.register(&mut ours);
        Self { ours, process: Registry::default() }
    }

    /// Adds a present value.
    pub fn gauge(&mut self, name: &str, help: &str, value: u64) {
        let gauge = Gauge::<u64, AtomicU64>::default();
        gauge.set(value);
        self.ours.register(name, help, gauge);
    }

    /// Adds a present value in parts of a second, or the like.
    pub fn fraction(&mut self, name: &str, help: &str, value: f64) {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value);
        self.ours.register(name, help, gauge);
    }

    /// Adds present values, each with a label; its values must be few and known.
    pub fn gauges(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (impl Into<Cow<'static, str>>, u64)>,
    ) {
        let family = Family::<[(&'static str, Cow<'static, str>); 1], Gauge<u64, AtomicU64>>::default();
        for (of, value) in values {
            family.get_or_create(&[(label, of.into())]).set(value);
        }
        self.ours.register(name, help, family);
    }

    /// Adds what any Prometheus client says of its process.
    pub fn process(&mut self, name: &str, help: &str, value: f64) {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value);
        self.process.register(name, help, gauge);
    }

    /// The same for what only rises; `_total` is added to the name.
    pub fn process_counter(&mut self, name: &str, help: &str, value: f64) {
        let counter = Counter::<f64, AtomicU64>::default();
        counter.inc_by(value);
        self.process.register(name, help, counter);
    }

    /// The text.
    pub fn text(&self, format: Format) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(32 << 10);
        encode_registry(&mut text, &self.ours)?;
        encode_registry(&mut text, &self.process)?;
        match format {
            Format::OpenMetrics => encode_eof(&mut text).map(|()| text),
            Format::Classic => Ok(classic(&text)),
        }
    }
}

/// The older format names a counter as its one line is named, with `_total`.
fn classic(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2048);
    let is_counter = |next: &&str| next.starts_with("# TYPE ") && next.ends_with(" counter");
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let help = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' '));
        match help.filter(|_| lines.next_if(is_counter).is_some()) {
            Some((name, help)) => {
                out.push_str(&format!("# HELP {name}_total {help}\n# TYPE {name}_total counter\n"));
            }
            None => out.extend([line, "\n"]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_who_names_it_and_the_older_text_for_everybody_else() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;\
                          version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text; version=1.0.0", Format::OpenMetrics),
            ("application/openmetrics-text;q=0, text/plain", Format::Classic),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Classic),
            ("*/*", Format::Classic),
            ("", Format::Classic),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }

    #[test]
    fn in_the_older_text_a_counter_is_named_as_its_line_is() {
        let metrics = Metrics::default();
        metrics.refused("limits.max_streams");
        let mut scrape = Scrape::new(&metrics);
        scrape.gauge("streams", "Streams", 3);
        scrape.process_counter("process_cpu_seconds", "CPU", 1.5);
        let text = scrape.text(Format::Classic).unwrap();
        for line in [
            "# TYPE onrecord_limit_refusals_total counter",
            "onrecord_limit_refusals_total{limit=\"limits.max_streams\"} 1",
            "# TYPE onrecord_streams gauge",
            "onrecord_streams 3",
            "# HELP process_cpu_seconds_total CPU.",
            "process_cpu_seconds_total 1.5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("# EOF"), "{text}");
    }
}
