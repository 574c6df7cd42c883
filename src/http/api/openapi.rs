//! The API as an OpenAPI 3.1 document: what routes take, answer and refuse.
//!
//! The schemas come from the types themselves, the operations from the table in `operations`: a test
//! holds it against the router, others hold real answers against the schemas.

mod operations;

use crate::base::error_code::ErrorCode;
use crate::http::api::recordings::Listed;
use crate::http::api::streams::{File, Stopped};
use crate::http::error::{ApiError, status_of};
use crate::publish::publication::StreamInfo;
use crate::{catalog, publish};
use axum::body::Bytes;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use operations::{Body, Operation, TAGS};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::LazyLock;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Components, ComponentsBuilder};

/// What there is to know before the first request.
const ABOUT: &str = "\
onrecord takes WebRTC, MediaRecorder chunks and JPEG pictures, records each stream to a file that seeks, \
and runs a hook for it.

**Errors** are JSON `{code, message}`: the code is for programs, the message says what to do. A WebSocket \
is closed with 4000 + the status the same error has over HTTP.

**Who may what** is decided by `auth.mode`: a token in `Authorization: Bearer`, or the cookie of the \
log-in page. With `auth.mode = \"off\"` local requests need none and others get 401.

**WebSockets.** `GET /signal`: JSON messages `publish {stream, sdp, record?, resume?}`, \
`candidate {stream?, candidate}`, `stop {stream?}`; the server says `answer`, `candidate`, `status`, \
`error`. `GET /chunks`: `register`, `START_REC_BLOB`, the recorder's bytes as binary messages, \
`STOP_REC_BLOB`; the server says `registered`, acknowledges bytes, and tells the recording. \
`GET /live/{name}`: the server sends `init {mime}` as text before each init segment, `skipped {frames}` \
after a hole, `end {reason}` at last, and WebM as binary messages.

**Server-sent events.** `GET /api/events`: `stream` events with a `StreamEvent`, `recording` events with a \
`RecordingEvent`; `reset` says that the client has missed some, or has just come: read `/api/streams` and \
`/api/recordings` then. Each has an id; `Last-Event-ID` goes on behind it.";

/// The document.
pub fn document() -> Value {
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for (tag, operation) in operations() {
        let path = operation.path.replace("{*", "{");
        paths.entry(path).or_default().insert(operation.method.to_lowercase(), describe(tag, operation));
    }
    let tags: Vec<_> =
        TAGS.iter().map(|(name, about, _)| json!({ "name": name, "description": about })).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "onrecord",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": env!("CARGO_PKG_DESCRIPTION"),
            "description": ABOUT,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": tags,
        "paths": paths,
        "components": components(),
    })
}

/// Each operation with its tag.
fn operations() -> impl Iterator<Item = (&'static str, &'static Operation)> {
    TAGS.iter().flat_map(|(tag, _, operations)| operations.iter().map(move |one| (*tag, one)))
}

/// One for all clients, however long they take to receive it.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| document().to_string().into());

/// `GET /api/openapi.json`.
pub async fn answer() -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")];
    (headers, DOCUMENT.clone()).into_response()
}

fn components() -> Value {
    // Those that the schemas below are made of.
    let mut parts = Vec::new();
    Listed::schemas(&mut parts);
    StreamInfo::schemas(&mut parts);
    File::schemas(&mut parts);
    ApiError::schemas(&mut parts);
    let schemas: Components = ComponentsBuilder::new()
        .schemas_from_iter(parts)
        .schema_from::<Listed>()
        .schema_from::<StreamInfo>()
        .schema_from::<publish::publication::What>()
        .schema_from::<catalog::What>()
        .schema_from::<File>()
        .schema_from::<Stopped>()
        .schema_from::<ApiError>()
        .build();
    // An error is an error of the server's own making: a document without schemas shows it.
    let mut components = serde_json::to_value(schemas).unwrap_or_else(|_| json!({ "schemas": {} }));
    let event = |change: &str, listed: &str| {
        json!({ "allOf": [
            { "type": "object", "required": ["change"], "properties": { "change": reference(change) } },
            reference(listed),
        ] })
    };
    let more = json!({
        "StreamEvent": event("StreamChange", "StreamInfo"),
        "RecordingEvent": event("RecordingChange", "Recording"),
        "Status": status(),
        "Health": { "type": "object", "required": ["status"], "properties": { "status": { "type": "string" } } },
    });
    if let (Some(schemas), Value::Object(more)) = (components["schemas"].as_object_mut(), more) {
        schemas.extend(more);
    }
    components["securitySchemes"] = json!({
        "bearer": { "type": "http", "scheme": "bearer", "description": "A token of auth.tokens, or a signed one." },
        "cookie": {
            "type": "apiKey", "in": "cookie", "name": "onrecord",
            "description": "Set by the log-in page.",
        },
    });
    components
}

/// What `/signal` sends, and the end of an upload is answered with.
fn status() -> Value {
    let text = json!({ "type": "string" });
    json!({
        "type": "object",
        "description": "Where a publication stands.",
        "required": ["type", "stream", "status"],
        "properties": {
            "type": { "const": "status" },
            "stream": reference("StreamName"),
            "status": { "enum": ["PENDING", "PUBLISHING", "UNPUBLISHED", "FAILED"] },
            "reason": text,
            "message": text,
            "recording": {
                "type": "object",
                "required": ["id", "stream", "file", "url", "bytes", "duration_ms"],
                "properties": {
                    "id": reference("RecordingId"), "stream": reference("StreamName"), "file": text,
                    "url": text, "bytes": { "type": "integer" }, "duration_ms": { "type": "integer" },
                },
            },
        },
    })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn describe(tag: &str, operation: &Operation) -> Value {
    let mut described = json!({
        "tags": [tag],
        "summary": operation.summary,
        "operationId": id_of(operation),
        "responses": responses(operation),
        "security": if operation.is_open() { json!([]) } else { json!([{ "bearer": [] }, { "cookie": [] }]) },
    });
    if !operation.about.is_empty() {
        described["description"] = operation.about.into();
    }
    let parameters = parameters(operation);
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    if let Some(takes) = &operation.takes {
        described["requestBody"] = json!({ "required": true, "content": content(takes) });
    }
    described
}

/// `getApiStreams`: stable, and unique as method and path are.
fn id_of(operation: &Operation) -> String {
    let parts = operation.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    let capital = |part: &str| part[..1].to_uppercase() + &part[1..];
    let name: String = parts.map(capital).collect();
    operation.method.to_lowercase() + if name.is_empty() { "Home" } else { &name }
}

fn parameters(operation: &Operation) -> Vec<Value> {
    let in_path = operation.path.split('{').skip(1).filter_map(|rest| {
        let name = rest.split('}').next()?.trim_start_matches('*');
        let (about, schema) = match name {
            "name" => ("The stream's name, percent-encoded.", reference("StreamName")),
            "id" => ("The recording's identifier.", reference("RecordingId")),
            "session" => ("The session, as `Location` names it.", json!({ "type": "string" })),
            "file" => ("The file's name, percent-encoded.", json!({ "type": "string" })),
            _ => ("The rest of the path.", json!({ "type": "string" })),
        };
        Some(json!({ "name": name, "in": "path", "required": true, "description": about, "schema": schema }))
    });
    let beside = |location: &'static str, list: &'static [(&'static str, &'static str)]| {
        list.iter().map(move |(name, about)| {
            json!({ "name": name, "in": location, "description": about, "schema": { "type": "string" } })
        })
    };
    in_path.chain(beside("query", operation.query)).chain(beside("header", operation.headers)).collect()
}

fn responses(operation: &Operation) -> Value {
    let mut responses = Map::new();
    for (status, about, body) in operation.answers {
        let mut response = json!({ "description": about });
        if let Some(body) = body {
            response["content"] = content(body);
        }
        responses.insert(status.to_string(), response);
    }
    let everywhere: &[ErrorCode] = match operation.is_open() {
        true => &[],
        false => &[ErrorCode::Unauthorized, ErrorCode::Forbidden, ErrorCode::RateLimited],
    };
    // Reads from foreign pages are the browser's business; what changes something, or upgrades, is ours.
    let origin: &[ErrorCode] = if operation.minds_origin() { &[ErrorCode::OriginDenied] } else { &[] };
    let mut errors: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for code in [operation.errors, everywhere, origin].concat() {
        let described = format!("`{code}`: {}", code.description());
        errors.entry(status_of(code).as_u16()).or_default().push(described);
    }
    for (status, code, why) in operation.precise {
        errors.entry(*status).or_default().push(format!("{why} (code `{code}`)"));
    }
    for (status, described) in errors {
        let error = json!({ "description": described.join("; "), "content": content(&Body::Json("Error")) });
        responses.entry(status.to_string()).or_insert(error);
    }
    responses.into()
}

fn content(body: &Body) -> Value {
    let (mime, schema) = match body {
        Body::Json(schema) => ("application/json", reference(schema)),
        Body::Object => ("application/json", json!({ "type": "object" })),
        Body::List(schema) => ("application/json", json!({ "type": "array", "items": reference(schema) })),
        Body::Text(mime) => (*mime, json!({ "type": "string" })),
        Body::Bytes(mime) => return json!({ *mime: {} }),
    };
    json!({ mime: { "schema": schema } })
}

#[cfg(test)]
mod tests;
