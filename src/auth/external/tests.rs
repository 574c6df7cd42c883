use super::*;
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::IntoResponse;
use futures_util::future::{BoxFuture, join_all};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

type Reply = Arc<dyn Fn(Value) -> BoxFuture<'static, axum::response::Response> + Send + Sync>;

/// A service on loopback; every question it gets is on the channel before it answers.
struct Service {
    url: String,
    questions: UnboundedReceiver<Value>,
}

impl Service {
    async fn start<F, R>(reply: impl Fn(Value) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = R> + Send + 'static,
        R: IntoResponse,
    {
        let reply = Arc::new(reply);
        let reply: Reply = Arc::new(move |question| {
            let reply = reply.clone();
            Box::pin(async move { reply(question).await.into_response() })
        });
        let (ask, questions) = unbounded_channel();
        let handler = move |request: Request<Body>| {
            let (ask, reply) = (ask.clone(), reply.clone());
            async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut question: Value = serde_json::from_slice(&body).unwrap_or_default();
                question["path"] = path.into();
                let _ = ask.send(question.clone());
                reply(question).await
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/may", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, Router::new().fallback(handler)).into_future());
        Self { url, questions }
    }

    fn external(&self) -> External {
        external(&self.url, Duration::from_secs(20))
    }

    fn asked(&mut self) -> usize {
        std::iter::from_fn(|| self.questions.try_recv().ok()).count()
    }
}

fn external(url: &str, url_timeout: Duration) -> External {
    let config = Config { url: url.to_owned(), url_timeout, ..Config::default() };
    External::new(&config).unwrap().unwrap()
}

async fn ask(external: &External, credential: &str, stream: &str, now: Anchor) -> Result<Grant, AuthError> {
    let (stream, from) = (stream.parse().unwrap(), Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped().into());
    let asked = AccessRequest {
        credential: Some(credential),
        permission: Permission::Publish,
        stream: Some(&stream),
        from,
    };
    external.ask(credential, asked, now, || false).await
}

fn later(now: Anchor, seconds: u64) -> Anchor {
    let by = Duration::from_secs(seconds);
    Anchor { instant: now.instant + by, wall: now.wall + by }
}

#[tokio::test]
async fn the_service_hears_the_question_and_its_answer_holds_for_a_while() {
    let mut service = Service::start(async |_| "OK").await;
    let (external, now) = (service.external(), Anchor::now());
    let grant = ask(&external, "pupil", "a", now).await.unwrap();
    let question = service.questions.recv().await.unwrap();
    let expected = json!({
        "credential": "pupil", "permission": "publish", "stream": "a", "address": "192.0.2.7", "path": "/may"
    });
    assert_eq!(question, expected);
    let only = |name: &str| vec![name.parse::<Pattern>().unwrap()];
    assert_eq!((grant.permissions, grant.streams), (vec![Permission::Publish], only("a")));
    assert!(ask(&external, "pupil", "a", later(now, 29)).await.is_ok());
    assert_eq!(service.asked(), 0, "it was asked again within auth.url_cache");
    assert!(ask(&external, "pupil", "a", later(now, 30)).await.is_ok());
    assert!(ask(&external, "pupil", "b", now).await.is_ok());
    assert!(ask(&external, "other", "a", now).await.is_ok());
    assert_eq!(service.asked(), 3, "another time, stream, credential");
    assert!(ask(&external, "pupil", "a*", now).await.unwrap().streams.is_empty(), "it would be a pattern");
}

#[tokio::test]
async fn only_a_clear_yes_is_a_yes() {
    let cases: &[(u16, &str, &str, Result<(), AuthError>)] = &[
        (200, "", "", Ok(())),
        (204, "", "", Ok(())),
        (200, "text/plain", "no", Ok(())),
        (200, "application/json", "", Ok(())),
        (200, "application/json", "{\"ok\": true}", Ok(())),
        (200, "application/json; charset=utf-8", "{\"permissions\": [\"publish\"]}", Ok(())),
        (200, "application/json", "{\"permissions\": [\"view\"]}", Err(AuthError::Forbidden)),
        (200, "application/json", "{\"permissions\": []}", Err(AuthError::Forbidden)),
        (200, "application/json", "{\"streams\": [\"b*\"]}", Err(AuthError::Forbidden)),
        (200, "application/json", "{\"expires\": \"2001-01-01T00:00:00Z\"}", Err(AuthError::Expired)),
        (200, "application/json", "{\"permissions\": [\"dance\"]}", Err(AuthError::Unavailable)),
        (200, "application/json", "{\"streams\": \"a\"}", Err(AuthError::Unavailable)),
        (200, "application/json", "<html>", Err(AuthError::Unavailable)),
        (401, "application/json", "{}", Err(AuthError::Unknown)),
        (403, "", "", Err(AuthError::Forbidden)),
        (302, "", "", Err(AuthError::Unavailable)),
        (404, "", "", Err(AuthError::Unavailable)),
        (429, "", "", Err(AuthError::Unavailable)),
        (500, "", "", Err(AuthError::Unavailable)),
    ];
    let answers: Vec<_> = cases.iter().map(|(status, kind, body, _)| (*status, *kind, *body)).collect();
    let mut service = Service::start(move |question| {
        let at: usize = question["credential"].as_str().unwrap_or("0").parse().unwrap();
        let (status, kind, body) = answers[at];
        async move {
            let response = axum::http::Response::builder().status(status).header("location", "/elsewhere");
            response.header("content-type", kind).body(Body::from(body)).unwrap()
        }
    })
    .await;
    let external = service.external();
    for (at, (status, kind, body, expected)) in cases.iter().enumerate() {
        let got = ask(&external, &at.to_string(), "a", Anchor::now()).await;
        assert_eq!(got.map(drop), *expected, "{status} {kind} {body}");
    }
    assert_eq!(service.asked(), cases.len(), "a redirect was followed, or a question asked twice");
}

#[tokio::test]
async fn a_service_that_is_slow_down_or_answers_without_end_lets_no_caller_in() {
    let slow = Service::start(async |_| std::future::pending::<String>().await).await;
    let endless = Service::start(async |_| "x".repeat(8 << 20)).await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let limit = Duration::from_millis(300);
    for (what, url, limit) in [
        ("slow", slow.url, limit),
        ("endless", endless.url, Duration::from_secs(20)),
        ("down", format!("http://{gone}/"), Duration::from_secs(20)),
    ] {
        let (external, start) = (external(&url, limit), Instant::now());
        let denied = ask(&external, "pupil", "a", Anchor::now()).await;
        println!("{what}: {:?} after {:?}", denied, start.elapsed());
        assert_eq!(denied, Err(AuthError::Unavailable), "{what}");
    }
}

#[tokio::test]
async fn a_no_and_a_silence_hold_shorter_than_a_yes() {
    let mut service = Service::start(async |question: Value| match question["credential"].as_str() {
        Some("wrong") => StatusCode::UNAUTHORIZED,
        _ => StatusCode::BAD_GATEWAY,
    })
    .await;
    let (external, now) = (service.external(), Anchor::now());
    for (credential, denied, seconds) in
        [("wrong", AuthError::Unknown, 5), ("odd", AuthError::Unavailable, 1)]
    {
        for (after, questions) in [(0, 1), (seconds - 1, 0), (seconds, 1)] {
            let answer = ask(&external, credential, "a", later(now, after)).await;
            assert_eq!((answer, service.asked()), (Err(denied.clone()), questions), "{credential} {after} s");
        }
    }
}

#[tokio::test]
async fn a_wide_yes_covers_what_it_says_until_it_expires() {
    let now = Anchor::now();
    let expires = (now.wall + Duration::from_secs(10)).to_string();
    let wide =
        json!({ "who": "class\n7", "permissions": ["publish"], "streams": ["a*"], "expires": expires });
    let mut service = Service::start(move |question: Value| {
        let allowed = question["stream"].as_str().is_some_and(|stream| stream.starts_with('a'));
        let wide = wide.clone();
        async move {
            if allowed { axum::Json(wide).into_response() } else { StatusCode::FORBIDDEN.into_response() }
        }
    })
    .await;
    let external = service.external();
    let grant = ask(&external, "class", "a1", now).await.unwrap();
    assert_eq!((&*grant.who, grant.expires.map(|at| at.to_string())), ("class7", Some(expires)));
    assert!(ask(&external, "class", "a2", now).await.is_ok());
    assert_eq!(service.asked(), 1, "it had said so");
    assert_eq!(ask(&external, "class", "b", now).await, Err(AuthError::Forbidden));
    assert!(ask(&external, "class", "a3", later(now, 9)).await.is_ok());
    assert_eq!(service.asked(), 1, "of b");
    let over = ask(&external, "class", "a3", later(now, 11)).await;
    assert_eq!((over, service.asked()), (Err(AuthError::Expired), 1));
}

#[tokio::test]
async fn callers_that_ask_the_same_at_the_same_time_share_one_question() {
    let (release, held) = tokio::sync::watch::channel(false);
    let mut service = Service::start(move |_| {
        let mut held = held.clone();
        async move { held.wait_for(|open| *open).await.map(|_| "OK").unwrap_or("gone") }
    })
    .await;
    let (external, now) = (Arc::new(service.external()), Anchor::now());
    // The first of all goes away with the question on its way: the others must not wait for it.
    let first = external.clone();
    let leader = tokio::spawn(async move { ask(&first, "pupil", "a", now).await });
    service.questions.recv().await.unwrap();
    let mut all = std::pin::pin!(join_all((0..20).map(|_| ask(&external, "pupil", "a", now))));
    tokio::select! {
        biased;
        answers = &mut all => panic!("answered by nobody: {answers:?}"),
        () = tokio::task::yield_now() => leader.abort(),
    }
    tokio::select! {
        answers = &mut all => panic!("answered by nobody: {answers:?}"),
        question = service.questions.recv() => assert!(question.is_some()),
    }
    release.send(true).unwrap();
    assert!(all.await.into_iter().all(|answer| answer.is_ok()));
    assert_eq!(service.asked(), 0, "20 that asked the same had one question, beside that of who went away");
}

#[tokio::test]
async fn a_caller_that_has_to_wait_gets_only_what_is_known() {
    let mut service = Service::start(async |_| "OK").await;
    let (external, now) = (service.external(), Anchor::now());
    assert!(ask(&external, "good", "a", now).await.is_ok());
    let (stream, from) = ("a".parse().unwrap(), Ipv4Addr::LOCALHOST.into());
    let asked =
        AccessRequest { credential: None, permission: Permission::Publish, stream: Some(&stream), from };
    assert!(external.ask("good", asked, now, || true).await.is_ok());
    assert_eq!(external.ask("new", asked, now, || true).await, Err(AuthError::Unknown));
    assert_eq!(service.asked(), 1);
    assert!(external.ask("new", asked, now, || false).await.is_ok(), "what wasn't asked was kept");
    assert!(!format!("{external:?}").contains(&service.url));
}

#[test]
fn credentials_in_the_clear_are_noticed() {
    for (url, clear) in [
        ("http://example.org/", true),
        ("http://192.0.2.1/", true),
        ("http://[2001:db8::1]/", true),
        ("https://example.org/", false),
        ("http://127.0.0.1:9/", false),
        ("http://[::1]/", false),
        ("http://localhost:9/", false),
        ("", false),
    ] {
        assert_eq!(in_the_clear(url), clear, "{url}");
    }
}
