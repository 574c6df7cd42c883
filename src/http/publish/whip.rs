//! WHIP, RFC 9725: a publisher over plain HTTP.
//!
//! The endpoint takes an offer; the session it creates lives under `Location` until a DELETE, or
//! until its media ends. Only its publisher knows its id, which binds it to its stream: a caller that may publish
//! the one in the path reaches no other's session. Signalling with feedback is `/signal`; WHIP clients find the
//! recording at `/api/recordings`.

use crate::base::end_reason::EndReason;
use crate::base::error_code::ErrorCode;
use crate::base::id::SessionId;
use crate::http::body::{self, expect_type};
use crate::http::error::ApiError;
use crate::http::gate::credential::bearer;
use crate::http::gate::forwarded::Caller;
use crate::http::percent_encode;
use crate::http::route::NamedStream;
use crate::http::state::State;
use crate::ingest::webrtc::Offer;
use crate::webrtc::{IceServer, Patch, Patched};
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Extract};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::time::Duration;

/// The largest SDP or fragment: a browser's offer with every codec and candidate is under 20 KiB.
const MAX_BODY: usize = 256 << 10;
/// How long a body may take: 256 KiB over a 200 kbit/s line.
const BODY_TIME: Duration = Duration::from_secs(10);

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// `POST /whip/{name}`.
pub async fn publish(
    Extract(state): Extract<Arc<State>>,
    NamedStream(stream): NamedStream,
    Caller(client): Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    expect_type(&headers, SDP)?;
    let sdp = text(body).await?;
    let bearer = bearer(&headers);
    let path = state.site.path(&format!("/whip/{}", percent_encode(stream.as_str())));
    let offer = Offer { stream, sdp, record: true, resume: None, bearer, session: None, client };
    let accepted = state.ingest.accept(offer).await?;

    let mut response = (StatusCode::CREATED, accepted.answer).into_response();
    let headers = response.headers_mut();
    set(headers, header::CONTENT_TYPE, SDP);
    set(headers, header::LOCATION, &format!("{path}/{}", accepted.session.as_str()));
    set(headers, header::ETAG, &format!("\"{}\"", accepted.etag));
    set(headers, ACCEPT_PATCH, FRAGMENT);
    for link in state.ingest.ice_servers().iter().flat_map(links) {
        if let Ok(link) = HeaderValue::try_from(link) {
            headers.append(header::LINK, link);
        }
    }
    Ok(response)
}

/// `PATCH` of the session: candidates, or an ICE restart (RFC 9725 section 4.3).
pub async fn patch(
    Extract(state): Extract<Arc<State>>,
    session: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let session = session_id(session)?;
    expect_type(&headers, FRAGMENT)?;
    if !headers.contains_key(header::IF_MATCH) {
        return Err(ApiError::with_status(
            StatusCode::PRECONDITION_REQUIRED,
            ErrorCode::BadRequest,
            "send the session's ETag as If-Match, or If-Match: * to restart ICE",
        ));
    }
    let lines = headers.get_all(header::IF_MATCH).iter();
    let if_match = lines.flat_map(|line| entity_tags(&String::from_utf8_lossy(line.as_bytes()))).collect();
    let fragment = text(body).await?;
    match state.ingest.patch(&session, Patch { if_match, fragment }).await? {
        Patched::Trickled => Ok(StatusCode::NO_CONTENT.into_response()),
        Patched::Restarted { fragment, etag } => {
            let mut response = fragment.into_response();
            set(response.headers_mut(), header::CONTENT_TYPE, FRAGMENT);
            set(response.headers_mut(), header::ETAG, &format!("\"{etag}\""));
            Ok(response)
        }
    }
}

/// `DELETE` of the session: the publisher stops. The file is sealed in the background.
pub async fn stop(
    Extract(state): Extract<Arc<State>>,
    session: Result<Path<(String, String)>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    state.ingest.stop(&session_id(session)?, EndReason::Stopped).await?;
    Ok(StatusCode::OK)
}

/// `OPTIONS` of the endpoint (RFC 9725 section 4.2): what a POST may carry.
pub async fn endpoint_options() -> Response {
    let headers = [(ACCEPT_POST, SDP), (header::ALLOW, "POST, OPTIONS")];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// `OPTIONS` of the session.
pub async fn session_options() -> Response {
    let headers = [(ACCEPT_PATCH, FRAGMENT), (header::ALLOW, "PATCH, DELETE, OPTIONS")];
    (StatusCode::NO_CONTENT, headers).into_response()
}

const ACCEPT_POST: header::HeaderName = header::HeaderName::from_static("accept-post");
const ACCEPT_PATCH: header::HeaderName = header::HeaderName::from_static("accept-patch");

fn session_id(path: Result<Path<(String, String)>, PathRejection>) -> Result<SessionId, ApiError> {
    let Path((_, session)) =
        path.map_err(|_| ApiError::bad_request("a session's URL is the Location of its 201"))?;
    Ok(SessionId::from_client(&session))
}

async fn text(body: Body) -> Result<String, ApiError> {
    let bytes = body::read(body, MAX_BODY, BODY_TIME).await?;
    String::from_utf8(bytes).map_err(|_| ApiError::new(ErrorCode::BadSdp, "the body is not UTF-8"))
}

/// The ETags of an `If-Match` list without their quotes (RFC 9110 section 13.1.1). What isn't a strong
/// one is no generation of ours: it goes on as it is, and is stale.
fn entity_tags(list: &str) -> Vec<String> {
    let mut quoted = false;
    let tags = list.split(|c: char| {
        quoted ^= c == '"';
        c == ',' && !quoted
    });
    let tags = tags.map(str::trim).filter(|tag| !tag.is_empty());
    tags.map(|tag| match tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')) {
        Some(inner) if inner != "*" => inner.to_owned(),
        _ => tag.to_owned(),
    })
    .collect()
}

/// `Link` values for one server (RFC 9725 section 4.6): one for each of its URLs.
fn links(server: &IceServer) -> Vec<String> {
    let mut parameters = String::from("; rel=\"ice-server\"");
    if let (Some(name), Some(password)) = (&server.username, &server.credential) {
        parameters += &format!(
            "; username={}; credential={}; credential-type=\"password\"",
            quoted(name),
            quoted(password)
        );
    }
    server.urls.iter().map(|url| format!("<{url}>{parameters}")).collect()
}

/// A quoted-string of RFC 9110 section 5.6.4.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Sets a header whose value is ours; one that can't be a header (never, by construction) is left out.
fn set(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::StreamName;
    use crate::http::testing::{Server, Setup};
    use proptest::strategy::{Strategy, ValueTree};
    use proptest::test_runner::TestRunner;

    #[test]
    fn the_tags_of_a_list_are_told_apart_and_weak_ones_and_a_quoted_star_are_none_of_ours() {
        for (list, tags) in [
            ("\"a\"", &["a"][..]),
            (" \"a\" ,\"b,c\",, W/\"d\"", &["a", "b,c", "W/\"d\""][..]),
            ("*", &["*"][..]),
            ("\"*\"", &["\"*\""][..]),
            ("a", &["a"][..]),
            ("\"", &["\""][..]),
            ("", &[][..]),
        ] {
            assert_eq!(entity_tags(list), tags, "{list:?}");
        }
    }

    /// Requests are slow beside what one case of a property usually costs.
    const NAMES: usize = 200;

    #[tokio::test]
    async fn every_name_comes_back_from_its_url_and_its_location() {
        let server = Server::start(Setup::default()).await;
        let mut runner = TestRunner::deterministic();
        let names = "\\PC{1,40}|[ -~]{1,30}|[%+?#&;:@. /\\\\]{1,10}";
        for _ in 0..NAMES {
            let name = names.new_tree(&mut runner).unwrap().current();
            let path = format!("/whip/{}", percent_encode(&name));
            let request = || server.request("POST", &path).header("content-type", SDP).body("v=0");
            let answer = request().send().await.unwrap();
            if name.parse::<StreamName>().is_err() {
                assert!(answer.status().is_client_error(), "{name:?}: {answer:?}");
                continue;
            }
            assert_eq!(answer.status(), 201, "{name:?}");
            let calls = server.ingest.calls();
            let call = calls.last().unwrap();
            assert!(call.starts_with(&format!("accept {name} sdp=v=0 ")), "{name:?} became {call:?}");
            // What a client resolves against the request's address, as RFC 9725 has it.
            let location = str::from_utf8(answer.headers()["location"].as_bytes()).unwrap();
            let absolute = answer.url().join(location).unwrap();
            assert!(absolute.path().starts_with(&format!("{path}/")), "{name:?} at {location}");
        }
    }
}
