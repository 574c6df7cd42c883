//! `PROTOCOL.md` against the types that are read and written.

use crate::base::error_code::ErrorCode;
use crate::base::id::StreamName;
use crate::http::error::status_of;
use crate::http::publish::chunks;
use crate::http::publish::signal::wire;
use crate::webrtc::Candidate;
use serde_json::{Map, Value, json};

const PROTOCOL: &str = include_str!("../PROTOCOL.md");

/// A message as the document has it: its name, and its fields with whether they may be left out.
struct Row {
    name: &'static str,
    fields: Vec<(&'static str, bool)>,
}

/// The part below a heading.
fn section(heading: &str) -> &'static str {
    let (_, rest) = PROTOCOL.split_once(&format!("\n## {heading}\n")).expect("a section of this name");
    rest.split("\n## ").next().unwrap_or_default()
}

/// The messages of one table of a section: from the client, or from the server.
fn rows(heading: &str, from: &str) -> Vec<Row> {
    let (_, table) = section(heading).split_once(&format!("| from the {from} | |")).expect("a table");
    let lines = table.trim_start().lines().take_while(|line| line.starts_with('|'));
    let row = |line: &'static str| {
        let message = line.strip_prefix("| `")?.split('`').next()?;
        let (name, fields) = message.split_once(' ').unwrap_or((message, ""));
        let field = |text: &'static str| {
            // `a or b` is one of both, `a? = 1` has a default.
            let either = text.contains(" or ");
            text.split(" or ").map(move |text| {
                let name = text.split(" = ").next().unwrap_or_default().trim();
                (name.trim_end_matches('?'), either || name.ends_with('?'))
            })
        };
        let fields = fields.trim_matches(['{', '}']).split(',').flat_map(field);
        Some(Row { name, fields: fields.filter(|(name, _)| !name.is_empty()).collect() })
    };
    lines.filter_map(row).collect()
}

fn message(tag: &str, row: &Row, without: Option<&str>) -> Map<String, Value> {
    let value = |field: &str| match field {
        "record" => json!(true),
        "bytes" => json!(1),
        "candidate" => json!(null),
        _ => json!("a"),
    };
    let fields = row.fields.iter().filter(|(field, _)| Some(*field) != without);
    let mut all: Map<_, _> = fields.map(|(field, _)| ((*field).to_owned(), value(field))).collect();
    all.insert(tag.to_owned(), json!(row.name));
    all
}

/// Each message is taken as it is described; a field that must be there is missed, and each is read.
fn check_client(heading: &str, tag: &str, count: usize, takes: impl Fn(Value) -> bool) {
    let rows = rows(heading, "client");
    assert_eq!(rows.len(), count, "messages of {heading}");
    for row in rows {
        assert!(takes(message(tag, &row, None).into()), "{}", row.name);
        for (field, optional) in &row.fields {
            let without = message(tag, &row, Some(field));
            assert_eq!(takes(without.into()), *optional, "{} without {field}", row.name);
            let mut wrong = message(tag, &row, None);
            wrong.insert((*field).to_owned(), json!([1]));
            assert!(!takes(wrong.into()), "{} doesn't read {field}", row.name);
        }
    }
}

/// Each message has the fields that are described, those that may be left out only if there is something
/// to say.
fn check_server(heading: &str, tag: &str, full: Vec<Value>, bare: Vec<Value>) {
    let rows = rows(heading, "server");
    assert_eq!((rows.len(), full.len()), (bare.len(), bare.len()), "messages of {heading}");
    for (row, (full, bare)) in rows.iter().zip(full.into_iter().zip(bare)) {
        let keys = |value: &Value| {
            assert_eq!(value[tag], row.name);
            let mut keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
            keys.retain(|key| key != tag);
            keys
        };
        let named = |all: bool| {
            let fields = row.fields.iter().filter(|(_, optional)| all || !optional);
            let mut names: Vec<_> = fields.map(|(name, _)| (*name).to_owned()).collect();
            names.sort();
            names
        };
        let sorted = |mut keys: Vec<String>| {
            keys.sort();
            keys
        };
        assert_eq!(sorted(keys(&full)), named(true), "{}", row.name);
        assert_eq!(sorted(keys(&bare)), named(false), "{}", row.name);
    }
}

#[test]
fn messages_of_signalling_are_as_described() {
    check_client("Signalling", "type", 3, |value| wire::Client::parse(&value.to_string()).is_ok());
    let stream: StreamName = "a".parse().unwrap();
    let json = |message: &wire::Server<'_>| serde_json::to_value(message).unwrap();
    let (candidate, code) = (Candidate::default(), ErrorCode::BadSdp);
    let answer = json(&wire::Server::Answer { stream: &stream, sdp: "", resume: "", ice_servers: &[] });
    let candidate = json(&wire::Server::Candidate { stream: &stream, candidate: &candidate });
    let (some, none) = (Some("a"), None);
    let recording =
        wire::Recording { id: "", stream: "", file: "", url: String::new(), bytes: 0, duration_ms: 0 };
    let keys: Vec<_> =
        serde_json::to_value(&recording).unwrap().as_object().unwrap().keys().cloned().collect();
    let (_, fields) = section("Signalling").split_once("`recording` is `{").expect("what a recording is");
    let mut named: Vec<_> = fields.split('}').next().unwrap_or_default().split(", ").collect();
    named.sort_unstable();
    assert_eq!(keys, named);
    let status = |recording, text| {
        let (reason, message, warning) = (text, text, text);
        json(&wire::Server::Status { stream: &stream, status: "", recording, reason, message, warning })
    };
    let error = |stream| json(&wire::Server::Error { stream, code, message: "" });
    check_server(
        "Signalling",
        "type",
        vec![answer.clone(), candidate.clone(), status(Some(recording), some), error(some)],
        vec![answer, candidate, status(None, none), error(none)],
    );
}

#[test]
fn messages_of_chunks_are_as_described() {
    check_client("Chunks", "event", 4, |value| serde_json::from_value::<chunks::Client>(value).is_ok());
    let name: StreamName = "a".parse().unwrap();
    let all: Vec<_> = [
        chunks::Server::Registered { uid: "", name: &name, offset: 0 },
        chunks::Server::Ack { offset: 0 },
        chunks::Server::Sealing { message: "" },
        chunks::Server::Stopped { recording: None, reason: "" },
        chunks::Server::Error { code: ErrorCode::BadBlob, message: "" },
    ]
    .iter()
    .map(|message| serde_json::to_value(message).unwrap())
    .collect();
    check_server("Chunks", "event", all.clone(), all);
}

#[test]
fn every_code_is_listed_with_its_status() {
    let (mut listed, mut statuses) = (Vec::new(), Vec::new());
    for line in section("Errors").lines().filter(|line| line.starts_with("| ") && line.contains('`')) {
        let columns: Vec<_> = line.trim_matches(['|', ' ']).split(" | ").collect();
        // Codes of one status are told from the next one's by a semicolon.
        let of: Vec<u16> = columns[0].split(", ").map(|status| status.parse().unwrap()).collect();
        for (at, group) in columns[1].split("; ").enumerate() {
            for code in group.split(", ").map(|code| code.trim_matches('`')) {
                listed.push(code.to_owned());
                statuses.push((code.to_owned(), of[at.min(of.len() - 1)]));
            }
        }
    }
    let mut expected: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str().to_owned()).collect();
    expected.sort();
    listed.sort();
    assert_eq!(listed, expected);
    for (name, status) in statuses {
        let code = ErrorCode::ALL.iter().find(|code| code.as_str() == name).unwrap();
        assert_eq!(status_of(*code).as_u16(), status, "{name}");
    }
}
