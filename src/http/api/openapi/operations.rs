//! Every operation, on one screen each.

use crate::http::all_routes;
use crate::http::route::{Needs, Route};

/// What a body is.
pub(in crate::http) enum Body {
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

/// A method of a route.
pub(in crate::http) struct Operation {
    pub method: &'static str,
    /// As the router has it.
    pub path: &'static str,
    pub tag: &'static str,
    pub summary: &'static str,
    /// More to know; may be empty.
    pub about: &'static str,
    pub takes: Option<Body>,
    pub query: &'static [(&'static str, &'static str)],
    pub headers: &'static [(&'static str, &'static str)],
    /// Status, what it means, and the body.
    pub answers: &'static [(u16, &'static str, Option<Body>)],
    /// The contract's codes, beside those that every route has.
    pub errors: &'static [&'static str],
}

impl Operation {
    /// Whether nobody has to show who they are.
    pub fn is_open(&self) -> bool {
        let open = |route: &Route| matches!(route.needs, Needs::Probe | Needs::Nothing);
        all_routes().iter().any(|route| route.path == self.path && route.method == self.method && open(route))
    }

    /// Whether a page of another origin is refused.
    pub fn minds_origin(&self) -> bool {
        !matches!(self.method, "GET" | "OPTIONS") || self.answers.iter().any(|(status, ..)| *status == 101)
    }
}

pub(in crate::http) const TAGS: &[(&str, &str)] = &[
    ("streams", "Who is live, and what an operator may do about it."),
    ("recordings", "The catalogue and its files."),
    ("events", "What happens, as it happens."),
    ("publish", "The ways in: WebRTC (WHIP, /signal), MediaRecorder chunks, JPEG pictures."),
    ("watch", "The ways out."),
    ("server", "The server itself."),
    ("pages", "Pages for people, and what they are made of."),
];

const NONE: Operation = Operation {
    method: "GET",
    path: "",
    tag: "",
    summary: "",
    about: "",
    takes: None,
    query: &[],
    headers: &[],
    answers: &[],
    errors: &[],
};

const HTML: &[(u16, &str, Option<Body>)] = &[(200, "The page.", Some(Body::Text("text/html")))];
const UPGRADED: (u16, &str, Option<Body>) = (101, "A WebSocket; see the description of the API.", None);
const SDP: Body = Body::Text("application/sdp");
const FRAGMENT: Body = Body::Text("application/trickle-ice-sdpfrag");
const RESUME: (&str, &str) = ("Onrecord-Resume", "The stream's secret, from the answer to its first image.");
const IMAGE: &[&str] = &[
    "bad_name",
    "bad_blob",
    "timeout",
    "stream_busy",
    "resume_expired",
    "too_large",
    "bad_type",
    "limit_reached",
    "disk_full",
];
const STATUS: &[(u16, &str, Option<Body>)] = &[
    (200, "It has ended; with its recording.", Some(Body::Json("Status"))),
    (202, "It ends; its file is not sealed yet.", Some(Body::Json("Status"))),
];
const PICTURES: &[(u16, &str, Option<Body>)] = &[(
    200,
    "Every picture from the newest on, until the stream ends; before it begins, none.",
    Some(Body::Bytes("multipart/x-mixed-replace")),
)];

/// All of them; a test compares them with the router.
pub(in crate::http) const OPERATIONS: &[Operation] = &[
    Operation {
        path: "/api/streams",
        tag: "streams",
        summary: "All live streams, by name",
        about: "`bytes`, `frames`, `video.frames` and `lost` are running totals: who looks twice has the rates.",
        answers: &[(200, "Those that are live.", Some(Body::List("StreamInfo")))],
        ..NONE
    },
    Operation {
        method: "DELETE",
        path: "/api/streams/{name}",
        tag: "streams",
        summary: "End a stream",
        about: "Its publisher is told `kicked`; its file is sealed in the background.",
        answers: &[(204, "It ends.", None)],
        errors: &["bad_name", "stream_not_found"],
        ..NONE
    },
    Operation {
        method: "POST",
        path: "/api/streams/{name}/recording",
        tag: "streams",
        summary: "From now on a new file",
        about: "Begins to record a stream that isn't recorded. One that is goes on in a new file at its next \
                keyframe, which is asked for at once: the file before is sealed with `rotated`, its hook \
                runs, and no frame falls between the two.",
        answers: &[
            (201, "A recording begins.", Some(Body::Json("File"))),
            (
                202,
                "The new file begins with the next keyframe; a stream that ends before leaves none.",
                Some(Body::Json("File")),
            ),
        ],
        errors: &["bad_name", "stream_not_found", "unsupported_codec", "disk_full"],
        ..NONE
    },
    Operation {
        method: "DELETE",
        path: "/api/streams/{name}/recording",
        tag: "streams",
        summary: "Stop recording a stream that goes on",
        about: "The file is sealed with `stopped` in the background, and its hook runs.",
        answers: &[(202, "What came up to now is in this file.", Some(Body::Json("Stopped")))],
        errors: &["bad_name", "stream_not_found", "recording_not_found", "unsupported_codec"],
        ..NONE
    },
    Operation {
        path: "/api/events",
        tag: "events",
        summary: "What happens to streams and recordings",
        about: "`stream` events: `live`, `ended`. `recording` events: `started`, `sealed`, `hook`, `deleted`, \
                `quarantined`. `reset`: read the lists.",
        query: &[("stream", "Only this stream's.")],
        headers: &[("Last-Event-ID", "Goes on behind this event.")],
        answers: &[(200, "Events, until the server stops.", Some(Body::Text("text/event-stream")))],
        errors: &["bad_request", "limit_reached"],
        ..NONE
    },
    Operation {
        path: "/api/recordings",
        tag: "recordings",
        summary: "All recordings but the deleted ones, newest first",
        query: &[
            ("stream", "Only this stream's."),
            ("limit", "At most so many: 1000 if it is left out, 10000 at most."),
            ("before", "Only those that began before this recording: the last one of the page before."),
        ],
        answers: &[(200, "A page of them.", Some(Body::List("Recording")))],
        errors: &["bad_request"],
        ..NONE
    },
    Operation {
        path: "/api/recordings/{id}",
        tag: "recordings",
        summary: "One recording; of a deleted one its manifest",
        answers: &[(200, "The manifest, and where its file is.", Some(Body::Json("Recording")))],
        errors: &["recording_not_found"],
        ..NONE
    },
    Operation {
        method: "DELETE",
        path: "/api/recordings/{id}",
        tag: "recordings",
        summary: "Remove a recording's file; its manifest says `deleted`",
        answers: &[(204, "It is gone.", None)],
        errors: &["recording_not_found", "stream_busy"],
        ..NONE
    },
    Operation {
        method: "POST",
        path: "/api/recordings/{id}/hook",
        tag: "recordings",
        summary: "Run a recording's hook again",
        answers: &[(202, "It is queued.", Some(Body::Json("Recording")))],
        errors: &["bad_request", "recording_not_found", "stream_busy", "gone", "limit_reached"],
        ..NONE
    },
    Operation {
        path: "/recordings/{file}",
        tag: "recordings",
        summary: "Download a sealed file",
        about: "Takes ranges and validators.",
        query: &[("inline", "To be shown rather than saved; of any value.")],
        headers: &[("Range", "One range of bytes.")],
        answers: &[
            (200, "The file.", Some(Body::Bytes("video/webm"))),
            (206, "The part of it that was asked for.", Some(Body::Bytes("video/webm"))),
            (304, "It is the one the client has.", None),
        ],
        errors: &["recording_not_found", "gone", "stale_etag", "no_range"],
        ..NONE
    },
    Operation {
        path: "/recordings/{file}/pictures",
        tag: "recordings",
        summary: "Look at a recording of JPEG pictures",
        about: "No browser plays its file. Each part says in `Onrecord-Time` when it is, in milliseconds, and in \
                `Onrecord-Damaged` that the file is damaged before it. Where the file can't be read on, the last \
                part is the error, as JSON.",
        query: &[("from", "Where to begin, in milliseconds.")],
        answers: &[(200, "Every picture at its time.", Some(Body::Bytes("multipart/x-mixed-replace")))],
        errors: &["bad_request", "recording_not_found", "gone", "limit_reached"],
        ..NONE
    },
    Operation {
        path: "/signal",
        tag: "publish",
        summary: "Signalling over a WebSocket",
        answers: &[UPGRADED],
        errors: &["upgrade", "limit_reached"],
        ..NONE
    },
    Operation {
        path: "/chunks",
        tag: "publish",
        summary: "MediaRecorder's chunks over a WebSocket",
        answers: &[UPGRADED],
        errors: &["upgrade", "limit_reached"],
        ..NONE
    },
    Operation {
        method: "POST",
        path: "/whip/{name}",
        tag: "publish",
        summary: "Publish over WHIP (RFC 9725)",
        takes: Some(SDP),
        answers: &[(201, "The answer; `Location` is the session, `Link` names ICE servers.", Some(SDP))],
        errors: &[
            "bad_name",
            "bad_sdp",
            "timeout",
            "stream_busy",
            "too_large",
            "bad_type",
            "unsupported_codec",
            "limit_reached",
            "disk_full",
        ],
        ..NONE
    },
    Operation {
        method: "OPTIONS",
        path: "/whip/{name}",
        tag: "publish",
        summary: "What a WHIP endpoint takes",
        answers: &[(204, "`Accept-Post` says it.", None)],
        ..NONE
    },
    Operation {
        method: "PATCH",
        path: "/whip/{name}/{session}",
        tag: "publish",
        summary: "Add candidates, or restart ICE",
        takes: Some(FRAGMENT),
        headers: &[("If-Match", "The session's ETag, or `*` to restart ICE.")],
        answers: &[
            (200, "ICE restarts; with the server's fragment and the new ETag.", Some(FRAGMENT)),
            (204, "The candidates are taken.", None),
        ],
        errors: &[
            "bad_sdp",
            "session_not_found",
            "timeout",
            "stale_etag",
            "too_large",
            "bad_type",
            "no_etag",
        ],
        ..NONE
    },
    Operation {
        method: "DELETE",
        path: "/whip/{name}/{session}",
        tag: "publish",
        summary: "Stop publishing",
        answers: &[(200, "It ends; its file is sealed in the background.", None)],
        errors: &["session_not_found"],
        ..NONE
    },
    Operation {
        method: "OPTIONS",
        path: "/whip/{name}/{session}",
        tag: "publish",
        summary: "What a WHIP session takes",
        answers: &[(204, "`Accept-Patch` says it.", None)],
        ..NONE
    },
    Operation {
        method: "POST",
        path: "/upload",
        tag: "publish",
        summary: "One JPEG image of the stream `default`",
        takes: Some(Body::Bytes("image/jpeg")),
        headers: &[RESUME],
        answers: &[(204, "Every reader of the stream has it.", None)],
        errors: IMAGE,
        ..NONE
    },
    Operation {
        method: "DELETE",
        path: "/upload",
        tag: "publish",
        summary: "Stop the stream `default`",
        headers: &[RESUME],
        answers: STATUS,
        errors: &["stream_not_found", "stream_busy"],
        ..NONE
    },
    Operation {
        method: "POST",
        path: "/upload/{name}",
        tag: "publish",
        summary: "One JPEG image, or some behind each other",
        about: "The answer to the first one has the stream's secret in `Onrecord-Resume`, which the others show.",
        takes: Some(Body::Bytes("image/jpeg")),
        headers: &[RESUME],
        answers: &[(204, "Every reader of the stream has it.", None)],
        errors: IMAGE,
        ..NONE
    },
    Operation {
        method: "DELETE",
        path: "/upload/{name}",
        tag: "publish",
        summary: "Stop a JPEG stream",
        headers: &[RESUME],
        answers: STATUS,
        errors: &["bad_name", "stream_not_found", "stream_busy"],
        ..NONE
    },
    Operation {
        path: "/live/{name}",
        tag: "watch",
        summary: "A stream as WebM while it happens",
        about: "As a WebSocket, or without an upgrade as an endless file under `/live/{name}.webm`.",
        answers: &[UPGRADED, (200, "The file, until the stream ends.", Some(Body::Bytes("video/webm")))],
        errors: &["bad_name", "stream_not_found", "upgrade", "limit_reached"],
        ..NONE
    },
    Operation {
        path: "/stream",
        tag: "watch",
        summary: "The JPEG stream `default`",
        answers: PICTURES,
        errors: &["stream_not_found", "limit_reached"],
        ..NONE
    },
    Operation {
        path: "/stream/{name}",
        tag: "watch",
        summary: "A JPEG stream",
        answers: PICTURES,
        errors: &["bad_name", "stream_not_found", "limit_reached"],
        ..NONE
    },
    Operation {
        path: "/snapshot/{file}",
        tag: "watch",
        summary: "The newest picture of a JPEG stream, as `{name}.jpg`",
        answers: &[(200, "The picture.", Some(Body::Bytes("image/jpeg")))],
        errors: &["bad_request", "bad_name", "stream_not_found"],
        ..NONE
    },
    Operation {
        path: "/login",
        tag: "pages",
        summary: "Where people show their token",
        answers: HTML,
        ..NONE
    },
    Operation {
        method: "POST",
        path: "/login",
        tag: "server",
        summary: "Trade a token for a session's cookie",
        about: "A form with `token` and `next` is answered with the way to `next`.",
        takes: Some(Body::Object),
        answers: &[
            (200, "Who one is; the cookie is set.", Some(Body::Object)),
            (303, "To a form: the way there; the cookie is set.", None),
        ],
        errors: &[
            "bad_request",
            "unauthorized",
            "forbidden",
            "rate_limited",
            "too_large",
            "bad_type",
            "timeout",
        ],
        ..NONE
    },
    Operation {
        method: "POST",
        path: "/logout",
        tag: "server",
        summary: "Forget the session's cookie",
        answers: &[(204, "The browser forgets it.", None)],
        ..NONE
    },
    Operation {
        path: "/api/session",
        tag: "server",
        summary: "Who the caller is, and what it may do",
        answers: &[(
            200,
            "`asked`: whether anybody has to be somebody; `who` is null for nobody.",
            Some(Body::Object),
        )],
        errors: &["unauthorized", "rate_limited"],
        ..NONE
    },
    Operation {
        path: "/metrics",
        tag: "server",
        summary: "Counts and present values, for Prometheus",
        answers: &[(
            200,
            "OpenMetrics for who accepts it, else Prometheus' text.",
            Some(Body::Text("text/plain")),
        )],
        ..NONE
    },
    Operation {
        path: "/healthz",
        tag: "server",
        summary: "The process answers",
        answers: &[(200, "It does.", Some(Body::Json("Health")))],
        ..NONE
    },
    Operation {
        path: "/readyz",
        tag: "server",
        summary: "Publishers are taken",
        answers: &[(200, "They are.", Some(Body::Json("Health")))],
        errors: &["limit_reached"],
        ..NONE
    },
    Operation {
        path: "/api/openapi.json",
        tag: "server",
        summary: "This document",
        answers: &[(200, "OpenAPI 3.1.", Some(Body::Object))],
        ..NONE
    },
    Operation {
        path: "/",
        tag: "pages",
        summary: "Live streams and newest recordings",
        answers: HTML,
        ..NONE
    },
    Operation {
        path: "/publish",
        tag: "pages",
        summary: "Publish camera and microphone",
        answers: HTML,
        ..NONE
    },
    Operation { path: "/record", tag: "pages", summary: "Record in chunks", answers: HTML, ..NONE },
    Operation { path: "/camera", tag: "pages", summary: "Send JPEG pictures", answers: HTML, ..NONE },
    Operation { path: "/recordings", tag: "pages", summary: "All recordings", answers: HTML, ..NONE },
    Operation { path: "/watch/{name}", tag: "pages", summary: "Watch a stream", answers: HTML, ..NONE },
    Operation {
        path: "/js/{*path}",
        tag: "pages",
        summary: "Scripts; `/js/onrecord.js` is the library",
        answers: &[(200, "A script.", Some(Body::Text("text/javascript")))],
        errors: &["not_found"],
        ..NONE
    },
    Operation {
        path: "/css/{*path}",
        tag: "pages",
        summary: "Styles",
        answers: &[(200, "A style sheet.", Some(Body::Text("text/css")))],
        errors: &["not_found"],
        ..NONE
    },
    Operation {
        path: "/img/{*path}",
        tag: "pages",
        summary: "Pictures",
        answers: &[(200, "A picture.", Some(Body::Bytes("image/svg+xml")))],
        errors: &["not_found"],
        ..NONE
    },
    Operation {
        path: "/dev/reload",
        tag: "pages",
        summary: "Tells open pages that a file has changed; only with --dev",
        answers: &[(200, "`change` events.", Some(Body::Text("text/event-stream")))],
        errors: &["not_found", "limit_reached"],
        ..NONE
    },
];
