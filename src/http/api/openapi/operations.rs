//! Every operation, by tag.
//!
//! Not `utoipa-axum`: its router has no place for [`Needs`], and its attributes write each status out by hand,
//! where here several codes share one, and what every route may answer is added to all.

use crate::base::error_code::ErrorCode::{self, *};
use crate::http::all_routes;
use crate::http::route::{Needs, Route};

/// What a body is.
#[derive(Clone, Copy)]
pub(super) enum Body {
    /// JSON of this schema.
    Json(&'static str),
    /// JSON, an object that isn't described further.
    Object,
    /// JSON, a list of these.
    List(&'static str),
    /// Text of this media type.
    Text(&'static str),
    /// Bytes of this media type.
    Bytes(&'static str),
}

/// A status, what it means, and the body.
type Answer = (u16, &'static str, Option<Body>);
/// A status that an error has instead of its code's, the code, and what it means.
type Precise = (u16, ErrorCode, &'static str);
/// A name and what it is.
type Named = (&'static str, &'static str);

/// A method of a route.
pub(super) struct Operation {
    pub method: &'static str,
    /// As the router has it.
    pub path: &'static str,
    pub summary: &'static str,
    /// More to know; may be empty.
    pub about: &'static str,
    pub takes: Option<Body>,
    pub query: &'static [Named],
    pub headers: &'static [Named],
    pub answers: &'static [Answer],
    /// Beside those that every route has.
    pub errors: &'static [ErrorCode],
    pub precise: &'static [Precise],
}

impl Operation {
    const fn new(method: &'static str, path: &'static str, summary: &'static str) -> Self {
        let (about, takes, query, headers) = ("", None, &[], &[]);
        let (answers, errors, precise) = (&[], &[], &[]);
        Self { method, path, summary, about, takes, query, headers, answers, errors, precise }
    }

    const fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }

    const fn takes(self, body: Body) -> Self {
        Self { takes: Some(body), ..self }
    }

    const fn query(self, query: &'static [Named]) -> Self {
        Self { query, ..self }
    }

    const fn headers(self, headers: &'static [Named]) -> Self {
        Self { headers, ..self }
    }

    const fn answers(self, answers: &'static [Answer]) -> Self {
        Self { answers, ..self }
    }

    const fn errors(self, errors: &'static [ErrorCode]) -> Self {
        Self { errors, ..self }
    }

    const fn precise(self, precise: &'static [Precise]) -> Self {
        Self { precise, ..self }
    }

    /// Whether it takes no credential.
    pub fn is_open(&self) -> bool {
        let open = |route: &Route| matches!(route.needs, Needs::Probe | Needs::Nothing);
        all_routes().iter().any(|route| route.path == self.path && route.method == self.method && open(route))
    }

    /// Whether a page of another origin is refused.
    pub fn minds_origin(&self) -> bool {
        !matches!(self.method, "GET" | "OPTIONS") || self.answers.iter().any(|(status, ..)| *status == 101)
    }
}

const fn get(path: &'static str, summary: &'static str) -> Operation {
    Operation::new("GET", path, summary)
}

const fn post(path: &'static str, summary: &'static str) -> Operation {
    Operation::new("POST", path, summary)
}

const fn delete(path: &'static str, summary: &'static str) -> Operation {
    Operation::new("DELETE", path, summary)
}

const fn options(path: &'static str, summary: &'static str) -> Operation {
    Operation::new("OPTIONS", path, summary)
}

const fn page(path: &'static str, summary: &'static str) -> Operation {
    get(path, summary).answers(&[(200, "The page.", Some(Body::Text("text/html")))])
}

const UPGRADED: Answer = (101, "A WebSocket; see the description of the API.", None);
const SDP: Body = Body::Text("application/sdp");
const FRAGMENT: Body = Body::Text("application/trickle-ice-sdpfrag");
const RESUME: Named = ("Onrecord-Resume", "The stream's secret, from the answer to its first image.");
const IMAGE: &[ErrorCode] =
    &[BadName, BadBlob, StreamBusy, ResumeExpired, TooLarge, BadType, LimitReached, DiskFull];
const STATUS: &[Answer] = &[
    (200, "It has ended; with its recording.", Some(Body::Json("Status"))),
    (202, "It ends; its file is not sealed yet.", Some(Body::Json("Status"))),
];
const PICTURES: &[Answer] = &[(
    200,
    "Every picture from the newest on, until the stream ends; before it begins, none.",
    Some(Body::Bytes("multipart/x-mixed-replace")),
)];

const NOT_FOUND: Precise = (404, BadRequest, "there is nothing under this path");
const TIMEOUT: Precise = (408, BadRequest, "the body took too long to arrive");
const GONE: Precise = (410, RecordingNotFound, "the file was deleted or moved away");
const STALE_ETAG: Precise = (412, BadRequest, "the session has another ETag by now");
const NO_RANGE: Precise = (416, BadRequest, "the file has no such range");
const UPGRADE: Precise = (426, BadRequest, "open it as a WebSocket");
const NO_ETAG: Precise = (428, BadRequest, "If-Match is missing");

/// Each tag, what it is about, and its operations; a test compares them with the router.
pub(super) const TAGS: &[(&str, &str, &[Operation])] = &[
    ("streams", "Who is live, and what an operator may do about it.", STREAMS),
    ("recordings", "The catalogue and its files.", RECORDINGS),
    ("events", "What happens, as it happens.", EVENTS),
    ("publish", "The ways in: WebRTC (WHIP, /signal), MediaRecorder chunks, JPEG pictures.", PUBLISH),
    ("watch", "The ways out.", WATCH),
    ("server", "The server itself.", SERVER),
    ("pages", "Pages for people, and what they are made of.", PAGES),
];

const STREAMS: &[Operation] = &[
    get("/api/streams", "All live streams, by name")
        .about(
            "`bytes`, `frames`, `video.frames` and `lost` are running totals: who looks twice has the rates.",
        )
        .answers(&[(200, "Those that are live.", Some(Body::List("StreamInfo")))]),
    delete("/api/streams/{name}", "End a stream")
        .about("Its publisher is told `kicked`; its file is sealed in the background.")
        .answers(&[(204, "It ends.", None)])
        .errors(&[BadName, StreamNotFound]),
    post("/api/streams/{name}/recording", "From now on a new file")
        .about(
            "Begins to record a stream that isn't recorded. One that is goes on in a new file at its next \
             keyframe, which is asked for at once: the file before is sealed with `rotated`, its hook \
             runs, and no frame falls between the two.",
        )
        .answers(&[
            (201, "A recording begins.", Some(Body::Json("File"))),
            (
                202,
                "The new file begins with the next keyframe; a stream that ends before leaves none.",
                Some(Body::Json("File")),
            ),
        ])
        .errors(&[BadName, StreamNotFound, UnsupportedCodec, DiskFull]),
    delete("/api/streams/{name}/recording", "Stop recording a stream that goes on")
        .about("The file is sealed with `stopped` in the background, and its hook runs.")
        .answers(&[(202, "What came up to now is in this file.", Some(Body::Json("Stopped")))])
        .errors(&[BadName, StreamNotFound, RecordingNotFound, UnsupportedCodec]),
];

const EVENTS: &[Operation] = &[get("/api/events", "What happens to streams and recordings")
    .about(
        "`stream` events: `live`, `ended`. `recording` events: `started`, `sealed`, `hook`, `deleted`, \
         `quarantined`. `reset`: read the lists.",
    )
    .query(&[("stream", "Only this stream's.")])
    .headers(&[("Last-Event-ID", "Goes on behind this event.")])
    .answers(&[(200, "Events, until the server stops.", Some(Body::Text("text/event-stream")))])
    .errors(&[BadRequest, LimitReached])];

const RECORDINGS: &[Operation] = &[
    get("/api/recordings", "All recordings but the deleted ones, newest first")
        .query(&[
            ("stream", "Only this stream's."),
            ("limit", "At most so many: 1000 if it is left out, 10000 at most."),
            ("before", "Only those that began before this recording: the last one of the page before."),
        ])
        .answers(&[(200, "A page of them.", Some(Body::List("Recording")))])
        .errors(&[BadRequest]),
    get("/api/recordings/{id}", "One recording; of a deleted one its manifest")
        .answers(&[(200, "The manifest, and where its file is.", Some(Body::Json("Recording")))])
        .errors(&[RecordingNotFound]),
    delete("/api/recordings/{id}", "Remove a recording's file; its manifest says `deleted`")
        .answers(&[(204, "It is gone.", None)])
        .errors(&[RecordingNotFound, StreamBusy]),
    post("/api/recordings/{id}/hook", "Run a recording's hook again")
        .answers(&[(202, "It is queued.", Some(Body::Json("Recording")))])
        .errors(&[BadRequest, RecordingNotFound, StreamBusy, LimitReached])
        .precise(&[GONE]),
    get("/recordings/{file}", "Download a sealed file")
        .about("Takes ranges and validators.")
        .query(&[("inline", "To be shown rather than saved; of any value.")])
        .headers(&[("Range", "One range of bytes.")])
        .answers(&[
            (200, "The file.", Some(Body::Bytes("video/webm"))),
            (206, "The part of it that was asked for.", Some(Body::Bytes("video/webm"))),
            (304, "It is the one the client has.", None),
        ])
        .errors(&[RecordingNotFound])
        .precise(&[GONE, STALE_ETAG, NO_RANGE]),
    get("/recordings/{file}/pictures", "Look at a recording of JPEG pictures")
        .about(
            "No browser plays its file. Each part says in `Onrecord-Time` when it is, in milliseconds, and in \
             `Onrecord-Damaged` that the file is damaged before it. Where the file can't be read on, the last \
             part is the error, as JSON.",
        )
        .query(&[("from", "Where to begin, in milliseconds.")])
        .answers(&[(200, "Every picture at its time.", Some(Body::Bytes("multipart/x-mixed-replace")))])
        .errors(&[BadRequest, RecordingNotFound, LimitReached])
        .precise(&[GONE]),
];

const PUBLISH: &[Operation] = &[
    get("/signal", "Signalling over a WebSocket")
        .answers(&[UPGRADED])
        .errors(&[LimitReached])
        .precise(&[UPGRADE]),
    get("/chunks", "MediaRecorder's chunks over a WebSocket")
        .answers(&[UPGRADED])
        .errors(&[LimitReached])
        .precise(&[UPGRADE]),
    post("/whip/{name}", "Publish over WHIP (RFC 9725)")
        .takes(SDP)
        .answers(&[(201, "The answer; `Location` is the session, `Link` names ICE servers.", Some(SDP))])
        .errors(&[BadName, BadSdp, StreamBusy, TooLarge, BadType, UnsupportedCodec, LimitReached, DiskFull])
        .precise(&[TIMEOUT]),
    options("/whip/{name}", "What a WHIP endpoint takes").answers(&[(204, "`Accept-Post` says it.", None)]),
    Operation::new("PATCH", "/whip/{name}/{session}", "Add candidates, or restart ICE")
        .takes(FRAGMENT)
        .headers(&[("If-Match", "The session's ETag, or `*` to restart ICE.")])
        .answers(&[
            (200, "ICE restarts; with the server's fragment and the new ETag.", Some(FRAGMENT)),
            (204, "The candidates are taken.", None),
        ])
        .errors(&[BadSdp, SessionNotFound, TooLarge, BadType])
        .precise(&[TIMEOUT, STALE_ETAG, NO_ETAG]),
    delete("/whip/{name}/{session}", "Stop publishing")
        .answers(&[(200, "It ends; its file is sealed in the background.", None)])
        .errors(&[SessionNotFound]),
    options("/whip/{name}/{session}", "What a WHIP session takes")
        .answers(&[(204, "`Accept-Patch` says it.", None)]),
    post("/upload", "One JPEG image of the stream `default`")
        .takes(Body::Bytes("image/jpeg"))
        .headers(&[RESUME])
        .answers(&[(204, "Every reader of the stream has it.", None)])
        .errors(IMAGE)
        .precise(&[TIMEOUT]),
    delete("/upload", "Stop the stream `default`")
        .headers(&[RESUME])
        .answers(STATUS)
        .errors(&[StreamNotFound, StreamBusy]),
    post("/upload/{name}", "One JPEG image, or some behind each other")
        .about("The answer to the first one has the stream's secret in `Onrecord-Resume`, which the others show.")
        .takes(Body::Bytes("image/jpeg"))
        .headers(&[RESUME])
        .answers(&[(204, "Every reader of the stream has it.", None)])
        .errors(IMAGE)
        .precise(&[TIMEOUT]),
    delete("/upload/{name}", "Stop a JPEG stream")
        .headers(&[RESUME])
        .answers(STATUS)
        .errors(&[BadName, StreamNotFound, StreamBusy]),
];

const WATCH: &[Operation] = &[
    get("/live/{name}", "A stream as WebM while it happens")
        .about("As a WebSocket, or without an upgrade as an endless file under `/live/{name}.webm`.")
        .answers(&[UPGRADED, (200, "The file, until the stream ends.", Some(Body::Bytes("video/webm")))])
        .errors(&[BadName, StreamNotFound, LimitReached])
        .precise(&[UPGRADE]),
    get("/stream", "The JPEG stream `default`").answers(PICTURES).errors(&[StreamNotFound, LimitReached]),
    get("/stream/{name}", "A JPEG stream").answers(PICTURES).errors(&[BadName, StreamNotFound, LimitReached]),
    get("/snapshot/{file}", "The newest picture of a JPEG stream, as `{name}.jpg`")
        .answers(&[(200, "The picture.", Some(Body::Bytes("image/jpeg")))])
        .errors(&[BadRequest, BadName, StreamNotFound]),
];

const SERVER: &[Operation] = &[
    post("/login", "Trade a token for a session's cookie")
        .about("A form with `token` and `next` is answered with the way to `next`.")
        .takes(Body::Object)
        .answers(&[
            (200, "Who one is; the cookie is set.", Some(Body::Object)),
            (303, "To a form: the way there; the cookie is set.", None),
        ])
        .errors(&[BadRequest, Unauthorized, Forbidden, RateLimited, TooLarge, BadType])
        .precise(&[TIMEOUT]),
    post("/logout", "Forget the session's cookie").answers(&[(204, "The browser forgets it.", None)]),
    get("/api/session", "Who the caller is, and what it may do")
        .answers(&[(
            200,
            "`asked`: whether anybody has to be somebody; `who` is null for nobody.",
            Some(Body::Object),
        )])
        .errors(&[Unauthorized, RateLimited]),
    get("/metrics", "Counts and present values, for Prometheus").answers(&[(
        200,
        "OpenMetrics for who accepts it, else Prometheus' text.",
        Some(Body::Text("text/plain")),
    )]),
    get("/healthz", "The process answers").answers(&[(200, "It does.", Some(Body::Json("Health")))]),
    get("/readyz", "Publishers are taken")
        .answers(&[(200, "They are.", Some(Body::Json("Health")))])
        .errors(&[LimitReached]),
    get("/api/openapi.json", "This document").answers(&[(200, "OpenAPI 3.1.", Some(Body::Object))]),
];

const PAGES: &[Operation] = &[
    page("/login", "Where people show their token"),
    page("/", "Live streams and newest recordings"),
    page("/publish", "Publish camera and microphone"),
    page("/record", "Record in chunks"),
    page("/camera", "Send JPEG pictures"),
    page("/recordings", "All recordings"),
    page("/watch/{name}", "Watch a stream"),
    get("/js/{*path}", "Scripts; `/js/onrecord.js` is the library")
        .answers(&[(200, "A script.", Some(Body::Text("text/javascript")))])
        .precise(&[NOT_FOUND]),
    get("/css/{*path}", "Styles")
        .answers(&[(200, "A style sheet.", Some(Body::Text("text/css")))])
        .precise(&[NOT_FOUND]),
    get("/img/{*path}", "Pictures")
        .answers(&[(200, "A picture.", Some(Body::Bytes("image/svg+xml")))])
        .precise(&[NOT_FOUND]),
    get("/dev/reload", "Tells open pages that a file has changed; only with --dev")
        .answers(&[(200, "`change` events.", Some(Body::Text("text/event-stream")))])
        .errors(&[LimitReached])
        .precise(&[NOT_FOUND]),
];
