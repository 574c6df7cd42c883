//! The document against the router, and real answers against the document.

use super::*;
use crate::http::all_routes;
use crate::http::testing::{Server, Setup, cam, manifest};
use std::collections::BTreeSet;

#[test]
fn every_route_is_described_and_nothing_else() {
    let routes: BTreeSet<_> =
        all_routes().into_iter().map(|route| (route.method.to_string(), route.path.to_owned())).collect();
    let described: BTreeSet<_> =
        operations().map(|(_, one)| (one.method.to_owned(), one.path.to_owned())).collect();
    assert_eq!(described, routes, "the document is not what the router has");
    assert_eq!(operations().count(), routes.len(), "one is described twice");
}

#[test]
fn every_schema_that_is_named_is_there_and_every_operation_says_what_it_answers() {
    let document = document();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "no schema {name}; there are {:?}", schemas.keys());
    }
    for (_, operation) in operations() {
        assert!(!operation.answers.is_empty() && !operation.summary.is_empty(), "{}", operation.path);
    }
    let ids: BTreeSet<_> = operations().map(|(_, operation)| id_of(operation)).collect();
    assert_eq!(ids.len(), operations().count(), "{ids:?}");
}

/// What is wrong with a value, by a schema: the part of JSON Schema that the document uses.
fn faults(value: &Value, schema: &Value, root: &Value, at: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let fault = |what: String| vec![format!("{at}: {what}")];
    if let Some(name) = schema["$ref"].as_str() {
        return faults_of(value, name.rsplit('/').next().unwrap(), root, at);
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        faults.extend(self::faults(value, part, root, at));
    }
    for kind in ["oneOf", "anyOf"] {
        if let Some(parts) = schema[kind].as_array()
            && !parts.iter().any(|part| self::faults(value, part, root, at).is_empty())
        {
            return fault(format!("{value} is none of {parts:?}"));
        }
    }
    let types: Vec<_> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        other => other.as_str().into_iter().collect(),
    };
    let is = |kind: &&str| match *kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        _ => value.is_object(),
    };
    if !types.is_empty() && !types.iter().any(is) {
        return fault(format!("{value} is no {types:?}"));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        return fault(format!("{value} is not among {allowed:?}"));
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() {
            faults.extend(fault(format!("no {name}")));
        }
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(value) = value.get(name) {
            faults.extend(self::faults(value, property, root, &format!("{at}.{name}")));
        }
    }
    for (n, item) in value.as_array().into_iter().flatten().enumerate() {
        faults.extend(self::faults(item, &schema["items"], root, &format!("{at}[{n}]")));
    }
    faults
}

fn faults_of(value: &Value, schema: &str, root: &Value, at: &str) -> Vec<String> {
    faults(value, &root["components"]["schemas"][schema], root, at)
}

/// Every property that a schema knows, those of its parts too.
fn known(schema: &Value, root: &Value) -> BTreeSet<String> {
    if let Some(name) = schema["$ref"].as_str() {
        return known(&root["components"]["schemas"][name.rsplit('/').next().unwrap()], root);
    }
    let own = schema["properties"].as_object().into_iter().flat_map(|all| all.keys().cloned());
    let parts = schema["allOf"].as_array().into_iter().flatten().flat_map(|part| known(part, root));
    own.chain(parts).collect()
}

#[tokio::test]
async fn what_the_api_answers_is_what_the_document_says() {
    let server = Server::start(Setup::default()).await;
    let mut sealed = manifest("cam", "cam.webm", 1_000);
    let mut filled = serde_json::to_value(&sealed).unwrap();
    filled["tracks"] =
        json!([{ "kind": "video", "codec": "vp8", "frames": 3, "width": 2, "height": 2, "lost": 0 }]);
    filled["gaps"] = json!([{ "track": 1, "from_ms": 1, "to_ms": 2, "reason": "loss" }]);
    filled["hook"]["attempts"] = json!([{ "n": 1, "at": "2026-01-01T00:00:00Z", "exit": null, "error": "killed", "ms": 1, "tail": "" }]);
    filled["hook"]["running"] = json!({ "n": 2, "at": "2026-01-01T00:00:00Z", "process_group": 7 });
    sealed = serde_json::from_value(filled).unwrap();
    let id = sealed.id.clone();
    server.add(sealed, b"media");
    let root: Value = server.request("GET", "/api/openapi.json").send().await.unwrap().json().await.unwrap();
    assert_eq!(root, document());
    let table = [
        ("GET", "/api/streams".to_owned(), 200, "StreamInfo"),
        ("GET", "/api/recordings".to_owned(), 200, "Recording"),
        ("GET", format!("/api/recordings/{id}"), 200, "Recording"),
        ("POST", format!("/api/recordings/{id}/hook"), 202, "Recording"),
        ("POST", "/api/streams/cam/recording".to_owned(), 201, "File"),
        ("POST", "/api/streams/taped/recording".to_owned(), 202, "File"),
        ("DELETE", "/api/streams/taped/recording".to_owned(), 202, "Stopped"),
        ("POST", "/api/streams/mp4/recording".to_owned(), 422, "Error"),
        ("POST", "/api/streams/full/recording".to_owned(), 507, "Error"),
        ("DELETE", "/api/streams/cam/recording".to_owned(), 404, "Error"),
        ("GET", "/healthz".to_owned(), 200, "Health"),
    ];
    for (method, path, status, schema) in table {
        let answer = server.request(method, &path).send().await.unwrap();
        assert_eq!(answer.status(), status, "{method} {path}");
        let body: Value = answer.json().await.unwrap();
        for one in body.as_array().map_or(vec![&body], |list| list.iter().collect()) {
            let faults = faults_of(one, schema, &root, schema);
            assert!(faults.is_empty(), "{method} {path}: {faults:#?}\n{one:#}");
            let known = known(&root["components"]["schemas"][schema], &root);
            for name in one.as_object().unwrap().keys() {
                assert!(known.contains(name), "{schema} says nothing of {name}");
            }
        }
    }
    let mut bad = serde_json::to_value(cam()).unwrap();
    bad["video"]["frames"] = json!("many");
    assert_eq!(faults_of(&bad, "StreamInfo", &root, "bad").len(), 1, "the judge sees no fault");
}
