//! Reads the layers and merges them; every value keeps its origin.

use super::{Problem, Sources};
use config::{Environment, File, FileFormat, Map, Source, Value, ValueKind};
use std::path::{Path, PathBuf};

const ENVIRONMENT: &str = "environment variable ";
const SET: &str = "--set";

/// One layer's values, relabelled with where they come from.
#[derive(Clone, Debug)]
struct Layer(Map<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.0.clone())
    }
}

/// All layers, merged.
pub(super) struct Layers {
    pub(super) merged: Map<String, Value>,
    /// Where relative paths in it begin: the folder of every file that was read, or would be.
    pub(super) folder: PathBuf,
    default_file: String,
}

impl Layers {
    /// Reads what there is; a layer that can't be read is a problem and otherwise left out.
    pub(super) fn read(sources: &Sources) -> (Self, Vec<Problem>) {
        let (mut layers, mut problems) = (Vec::new(), Vec::new());
        let mut add = |layer: Result<Option<Layer>, Problem>| match layer {
            Ok(layer) => layers.extend(layer),
            Err(problem) => problems.push(problem),
        };
        let default_file = sources.folder.join("default.toml");
        let folder = match &sources.file {
            Some(file) => {
                add(read_file(file, true));
                file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
            }
            None => {
                add(read_file(&default_file, false));
                add(read_file(&sources.folder.join("local.toml"), false));
                &sources.folder
            }
        };
        add(read_environment(sources));
        sources.set.iter().for_each(|argument| add(read_set(argument)));

        let mut builder = config::Config::builder();
        for layer in layers {
            builder = builder.add_source(layer);
        }
        let merged = builder.build().map(|merged| merged.cache.kind);
        let merged = match merged {
            Ok(ValueKind::Table(merged)) => merged,
            Ok(_) => Map::new(),
            Err(error) => {
                problems.push(Problem::new("configuration", error.to_string()));
                Map::new()
            }
        };
        let default_file = default_file.display().to_string();
        (Self { merged, default_file, folder: folder.to_owned() }, problems)
    }

    fn value(&self, key: &str) -> Option<&Value> {
        let mut parts = key.split('.');
        let first = self.merged.get(parts.next()?);
        parts.fold(first, |value, part| match &value?.kind {
            ValueKind::Table(table) => table.get(part),
            _ => None,
        })
    }

    /// Where this key was set; `None` if it was not.
    pub(super) fn origin(&self, key: &str) -> Option<String> {
        self.value(key)?.origin().map(str::to_owned)
    }

    /// Whether that is the documented list of defaults.
    pub(super) fn is_default(&self, origin: &str) -> bool {
        origin == self.default_file
    }
}

/// Where this was set; merged tables don't know themselves, so one of their values answers.
pub(super) fn origin(value: &Value) -> Option<&str> {
    value.origin().or_else(|| match &value.kind {
        ValueKind::Table(table) => table.values().find_map(origin),
        _ => None,
    })
}

/// Whether a value came as mere text and may stand for a number, a truth value or a list.
pub(super) fn is_text(value: &Value) -> bool {
    value.origin().is_some_and(|origin| origin.starts_with(ENVIRONMENT) || origin == SET)
}

fn read_file(path: &Path, required: bool) -> Result<Option<Layer>, Problem> {
    let origin = path.display().to_string();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => return Ok(None),
        Err(error) => return Err(Problem::new(origin, format!("expected a file of settings: {error}"))),
    };
    parse(&text).map(|values| Some(label(values, &origin))).map_err(|error| {
        Problem::new(origin, format!("expected TOML: {}", unquoted(error.trim()).replace('\n', "\n    ")))
    })
}

/// An error of the TOML parser without the line it quotes, if that may hold a secret: those don't belong on a
/// terminal. Where it is stands in the first line.
fn unquoted(error: &str) -> String {
    let quotes = |line: &&str| {
        let behind = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
        behind.len() < line.len() && behind.starts_with('|')
    };
    let secret = error.lines().filter(quotes).any(super::coerce::may_be_secret);
    let kept: Vec<_> = error.lines().filter(|line| !secret || !quotes(line)).collect();
    kept.join("\n")
}

/// TOML as the `config` crate reads it.
pub(super) fn parse(text: &str) -> Result<Map<String, Value>, String> {
    File::from_str(text, FileFormat::Toml).collect().map_err(|error| error.to_string())
}

fn read_environment(sources: &Sources) -> Result<Option<Layer>, Problem> {
    let environment = Environment::with_prefix("ONRECORD")
        .prefix_separator("__")
        .separator("__")
        .source(sources.environment.clone());
    let values = environment.collect().map_err(|error| {
        Problem::new("the environment", format!("expected text in variables ONRECORD__…: {error}"))
    })?;
    let labelled = values.into_iter().map(|(key, value)| {
        let origin = format!("{ENVIRONMENT}ONRECORD__{}", key.to_uppercase().replace('.', "__"));
        (key, relabel(value, &origin))
    });
    Ok(Some(Layer(labelled.collect())))
}

fn read_set(argument: &str) -> Result<Option<Layer>, Problem> {
    let Some((key, value)) = argument.split_once('=') else {
        let expected = "expected section.key=value, as in --set server.bind=127.0.0.1:9000";
        return Err(Problem::new(argument, expected).at(Some(SET)));
    };
    let value = Value::new(Some(&SET.to_owned()), ValueKind::String(value.to_owned()));
    Ok(Some(Layer(Map::from_iter([(key.trim().to_owned(), value)]))))
}

fn label(values: Map<String, Value>, origin: &str) -> Layer {
    Layer(values.into_iter().map(|(key, value)| (key, relabel(value, origin))).collect())
}

fn relabel(value: Value, origin: &str) -> Value {
    let kind = match value.kind {
        ValueKind::Table(table) => ValueKind::Table(label(table, origin).0),
        other => other,
    };
    Value::new(Some(&origin.to_owned()), kind)
}
