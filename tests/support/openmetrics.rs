//! Reads what `/metrics` says, as strictly as the OpenMetrics 1.0 specification lets a reader be.

use std::collections::{BTreeMap, HashSet};

/// A scrape.
#[derive(Debug)]
pub struct Scrape {
    families: Vec<Family>,
}

/// The lines of one metric.
#[derive(Debug)]
struct Family {
    name: String,
    kind: String,
    samples: Vec<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Scrape {
    /// Reads a text; the error names the line that is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let body = text.strip_suffix("# EOF\n").ok_or("it does not end with # EOF")?;
        let (mut families, mut help): (Vec<Family>, Option<String>) = (Vec::new(), None);
        for line in body.split_terminator('\n') {
            let wrong = |why: &str| format!("{why}: {line}");
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, text) = rest.split_once(' ').ok_or_else(|| wrong("HELP without a text"))?;
                if help.is_some() || !is_name(name) || text.trim() != text || text.is_empty() {
                    return Err(wrong("a HELP out of place, or badly written"));
                }
                if families.iter().any(|family| clashes(&family.name, name)) {
                    return Err(wrong("a second family of this name"));
                }
                help = Some(name.to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').ok_or_else(|| wrong("TYPE without a type"))?;
                if help.take().as_deref() != Some(name) {
                    return Err(wrong("a TYPE that does not follow its HELP"));
                }
                if !["counter", "gauge", "histogram"].contains(&kind) {
                    return Err(wrong("a type nobody should use here"));
                }
                let (name, kind) = (name.to_owned(), kind.to_owned());
                families.push(Family { name, kind, samples: Vec::new() });
            } else {
                let sample = Sample::parse(line).map_err(|why| wrong(&why))?;
                let family = families.last_mut().filter(|_| help.is_none());
                family
                    .ok_or_else(|| wrong("a sample of no family"))?
                    .take(sample)
                    .map_err(|why| wrong(&why))?;
            }
        }
        families.iter().try_for_each(Family::check)?;
        if help.is_some() { Err("a HELP without anything".to_owned()) } else { Ok(Self { families }) }
    }

    /// The value of a sample with these labels; 0 if it was never counted.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let samples = || self.families.iter().flat_map(|family| &family.samples);
        let has = |sample: &&Sample| {
            labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|found| found == value))
        };
        assert!(samples().any(|sample| sample.name == name), "no {name} at all");
        samples().filter(|sample| sample.name == name).filter(has).map(|sample| sample.value).sum()
    }

    /// Every series: what a monitoring server has to remember.
    pub fn series(&self) -> Vec<String> {
        let samples = self.families.iter().flat_map(|family| &family.samples);
        let mut all: Vec<_> = samples.map(|sample| format!("{}{:?}", sample.name, sample.labels)).collect();
        all.sort();
        all
    }

    /// Names of families.
    pub fn names(&self) -> Vec<&str> {
        self.families.iter().map(|family| family.name.as_str()).collect()
    }
}

/// Whether two families' samples could have the same name.
fn clashes(a: &str, b: &str) -> bool {
    let names = |name: &str| {
        ["", "_total", "_created", "_count", "_sum", "_bucket"].map(|end| format!("{name}{end}"))
    };
    names(a).iter().any(|name| name == b) || names(b).iter().any(|name| name == a)
}

impl Family {
    fn take(&mut self, sample: Sample) -> Result<(), String> {
        let suffix = sample.name.strip_prefix(&self.name).ok_or("a sample of another family")?;
        let fits = match self.kind.as_str() {
            "counter" => suffix == "_total" && sample.value >= 0.0,
            "gauge" => suffix.is_empty(),
            _ => ["_count", "_sum", "_bucket"].contains(&suffix),
        };
        if !fits || !sample.value.is_finite() {
            return Err(format!("no sample of a {}", self.kind));
        }
        if (suffix == "_bucket") != sample.labels.contains_key("le") {
            return Err("le belongs to buckets".to_owned());
        }
        if self.samples.iter().any(|other| other.name == sample.name && other.labels == sample.labels) {
            return Err("the same series twice".to_owned());
        }
        self.samples.push(sample);
        Ok(())
    }

    /// What can be told only of all samples together.
    fn check(&self) -> Result<(), String> {
        let keys: HashSet<Vec<&String>> = self
            .samples
            .iter()
            .map(|sample| sample.labels.keys().filter(|key| *key != "le").collect())
            .collect();
        if self.samples.is_empty() || keys.len() != 1 {
            return Err(format!("{}: labels differ between its samples, or there are none", self.name));
        }
        let of = |end: &str, labels: &BTreeMap<String, String>| {
            let name = format!("{}{end}", self.name);
            self.samples
                .iter()
                .find(|sample| sample.name == name && sample.labels == *labels)
                .map(|sample| sample.value)
        };
        let counts =
            self.samples.iter().filter(|sample| self.kind == "histogram" && sample.name.ends_with("_count"));
        for count in counts {
            let buckets: Vec<_> = self
                .samples
                .iter()
                .filter(|sample| sample.labels.contains_key("le"))
                .filter(|sample| {
                    count.labels.iter().all(|(key, value)| sample.labels.get(key) == Some(value))
                })
                .collect();
            let bounds: Vec<f64> =
                buckets.iter().map(|bucket| number(&bucket.labels["le"]).unwrap()).collect();
            let rising = bounds.is_sorted() && buckets.is_sorted_by(|a, b| a.value <= b.value);
            let whole = bounds.last() == Some(&f64::INFINITY)
                && buckets.last().map(|bucket| bucket.value) == Some(count.value);
            if !rising || !whole || of("_sum", &count.labels).is_none() {
                return Err(format!("{}: its buckets do not add up", self.name));
            }
        }
        Ok(())
    }
}

impl Sample {
    fn parse(line: &str) -> Result<Self, String> {
        let end = line.find(['{', ' ']).ok_or("no value")?;
        let (name, mut rest) = line.split_at(end);
        let mut labels = BTreeMap::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            loop {
                let (key, value) = rest.split_once("=\"").ok_or("a label without a value")?;
                let (value, behind) = unescape(value)?;
                if !is_name(key) || key.contains(':') || labels.insert(key.to_owned(), value).is_some() {
                    return Err("a bad label, or one that comes twice".to_owned());
                }
                match behind.strip_prefix(',') {
                    Some(more) => rest = more,
                    None => {
                        rest = behind.strip_prefix('}').ok_or("labels that do not end")?;
                        break;
                    }
                }
            }
        }
        let value = rest.strip_prefix(' ').ok_or("no value behind one space")?;
        if !is_name(name) || value.contains(' ') {
            return Err("a bad name, or more than a value".to_owned());
        }
        Ok(Self { name: name.to_owned(), labels, value: number(value).ok_or("no number")? })
    }
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        _ if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') => text.parse().ok(),
        _ => None,
    }
}

/// A label's value up to its closing quote, and what is behind that.
fn unescape(text: &str) -> Result<(String, &str), String> {
    let (mut value, mut chars) = (String::new(), text.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, c @ ('\\' | '"'))) => value.push(c),
                _ => return Err("an escape nobody knows".to_owned()),
            },
            c => value.push(c),
        }
    }
    Err("a value that does not end".to_owned())
}

fn is_name(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}
