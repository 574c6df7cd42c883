//! Gives every value the type its module wants, one key at a time, so that one mistake hides no other.

use super::layers::{Layers, is_text, origin, parse};
use super::{Config, Problem, schema};
use config::{Map, Value, ValueKind};
use serde::Deserialize;
use serde_json::{Value as Json, json};

/// What came of it.
pub(super) struct Typed {
    /// All that is right; defaults for what isn't.
    pub(super) config: Config,
    pub(super) problems: Vec<Problem>,
}

/// Checks every key of every section.
pub(super) fn check(layers: &Layers) -> Typed {
    let mut problems = Vec::new();
    let clean = check_table(&layers.merged, &[], &mut problems);
    let config = Config::deserialize(&clean).unwrap_or_else(|error| {
        // Each key is right by itself, so something is missing beside one of them.
        problems.push(Problem::new("configuration", explain(&error)));
        Config::default()
    });
    problems.sort_by(|a, b| a.key.cmp(&b.key));
    Typed { config, problems }
}

fn check_table(table: &Map<String, Value>, path: &[&str], problems: &mut Vec<Problem>) -> Json {
    let known = schema::fields::<Config>(path).unwrap_or_default();
    let mut clean = serde_json::Map::new();
    for (key, value) in table {
        let path = [path, &[key.as_str()]].concat();
        let checked = if known.contains(&key.as_str()) {
            check_value(value, &path, problems)
        } else {
            Err(unknown(&path, known))
        };
        match checked {
            Ok(value) => drop(clean.insert(key.clone(), value)),
            Err(expected) => {
                problems.push(Problem::new(path.join("."), expected).at(origin(value)));
            }
        }
    }
    Json::Object(clean)
}

fn check_value(value: &Value, path: &[&str], problems: &mut Vec<Problem>) -> Result<Json, String> {
    match (&value.kind, schema::fields::<Config>(path)) {
        (ValueKind::Table(table), Some(_)) => Ok(check_table(table, path, problems)),
        (_, Some(fields)) => Err(format!("expected a section with {}", list(fields))),
        (_, None) => check_leaf(value, path),
    }
}

/// A value from the environment or `--set` is text; it may stand for whatever the key wants.
fn check_leaf(value: &Value, path: &[&str]) -> Result<Json, String> {
    let plain = json_of(value);
    let mut error = match try_at(path, &plain) {
        Ok(()) => return Ok(plain),
        Err(error) => error,
    };
    if let (true, Json::String(text)) = (is_text(value), &plain) {
        if let Some(parsed) = parsed(text) {
            match try_at(path, &parsed) {
                Ok(()) => return Ok(parsed),
                // It knows more: "-1 is not …" rather than "a string is not …".
                Err(better) => error = better,
            }
        }
        let items: Vec<_> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
        if try_at(path, &json!(items)).is_ok() {
            return Ok(json!(items));
        }
    }
    // Secrets don't belong on a terminal that others may see.
    let secret = path == ["auth", "url"] || path.last().is_some_and(|last| may_be_secret(last));
    Err(if secret { error.split(", found").next().unwrap_or_default().to_owned() } else { error })
}

/// Whether something of this name is not for others who see the terminal.
pub(super) fn may_be_secret(text: &str) -> bool {
    ["token", "secret", "password", "credential", "ice_servers", "hash"]
        .iter()
        .any(|name| text.contains(name))
}

/// Whether the configuration takes this value at this path and nothing else.
fn try_at(path: &[&str], value: &Json) -> Result<(), String> {
    let whole = path.iter().rev().fold(value.clone(), |inner, key| json!({ *key: inner }));
    match Config::deserialize(whole) {
        Err(error) if !error.to_string().starts_with("missing field") => Err(explain(&error)),
        // What is missing beside it is for the whole to say.
        _ => Ok(()),
    }
}

/// Text as JSON or as TOML: a number, a truth value, a list, a table.
fn parsed(text: &str) -> Option<Json> {
    let json = serde_json::from_str(text).ok();
    let toml = || parse(&format!("value = {text}")).ok()?.get("value").map(json_of);
    json.or_else(toml).filter(|value| !value.is_string() && !value.is_null())
}

fn json_of(value: &Value) -> Json {
    match &value.kind {
        ValueKind::Nil => Json::Null,
        ValueKind::Boolean(value) => json!(value),
        ValueKind::I64(value) => json!(value),
        ValueKind::U64(value) => json!(value),
        ValueKind::I128(value) => json!(value.to_string()),
        ValueKind::U128(value) => json!(value.to_string()),
        ValueKind::Float(value) => json!(value),
        ValueKind::String(value) => json!(value),
        ValueKind::Table(table) => {
            Json::Object(table.iter().map(|(key, value)| (key.clone(), json_of(value))).collect())
        }
        ValueKind::Array(array) => array.iter().map(json_of).collect(),
    }
}

/// Serde's message in the order people need it: expected first.
fn explain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let unlabelled = text.strip_prefix("invalid type: ").or_else(|| text.strip_prefix("invalid value: "));
    if let Some((found, expected)) = unlabelled.and_then(|rest| rest.split_once(", expected ")) {
        let expected = match expected {
            "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
            "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
            "f32" | "f64" => "a number",
            "a boolean" => "true or false",
            "a sequence" => "a list",
            "path string" => "a path in quotes",
            other => other,
        };
        return format!("expected {expected}, found {found}");
    }
    for (label, what) in [("unknown variant ", ""), ("unknown field ", "the key ")] {
        let rest = text.strip_prefix(label);
        if let Some((found, expected)) = rest.and_then(|rest| rest.split_once(", expected ")) {
            return format!("expected {expected}, found {what}{found}");
        }
    }
    match text.as_str() {
        "invalid socket address syntax" => {
            "expected an address and a port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"".to_owned()
        }
        "data did not match any variant of untagged enum Text" => {
            "expected a duration such as \"10s\" or a size such as \"512MiB\", in quotes".to_owned()
        }
        _ if text.starts_with("expected") => text,
        _ => format!("it can't be used: {text}"),
    }
}

fn unknown(path: &[&str], known: &[&str]) -> String {
    let what = if path.len() == 1 { "section" } else { "key" };
    match nearest(path, known) {
        Some(near) => format!("there is no such {what}; did you mean {near}?"),
        None => format!("there is no such {what}; there are {}", list(known)),
    }
}

/// The known key that looks most like this one: the same name in another section, or a sibling.
fn nearest(path: &[&str], siblings: &[&str]) -> Option<String> {
    let (name, section) = path.split_last()?;
    let elsewhere = schema::keys::<Config>().into_iter().find(|key| key.rsplit('.').next() == Some(name));
    elsewhere.or_else(|| {
        let likeness = |sibling: &str| strsim::normalized_damerau_levenshtein(name, sibling);
        let sibling = siblings.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
        (likeness(sibling) >= 0.5).then(|| [section, &[*sibling]].concat().join("."))
    })
}

fn list(names: &[&str]) -> String {
    names.join(", ")
}
