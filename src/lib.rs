//! A self-hosted WebRTC ingest server: a browser publishes, a seekable file comes out, a hook runs.
//!
//! ```text
//!  browser ── WS /signal ──┐
//!  any WHIP client ────────┴─ ingest::webrtc ─ RTP ──▶ rtp::Pipeline ─┐
//!  MediaRecorder ─ WS /chunks ─ ingest::chunks ─ WebM ─▶ container::webm ─┤
//!  camera ─ POST /upload ────── ingest::mjpeg ── JPEG ─────────────────┤ Frame (one vocabulary for everything)
//!                                                                      ▼
//!                                 live::Stream ──▶ record::Recorder ─▶ file ─▶ manifest ─▶ hook
//!                                      └──▶ live::Viewer ─▶ WebM, or JPEG, over HTTP and WebSocket
//! ```
//!
//! Frames are the middle: every way in ends in [`media::Frame`]s on a [`live::Stream`], every way
//! out reads them.
//!
//! # Layers
//!
//! A module imports only from layers below its own; `tests/layers.rs` has the whole table and fails on any other
//! import.
//!
//! | layer | modules | what |
//! | --- | --- | --- |
//! | 6 | `main` `app` `config` | assembly: the only place that knows everything (and `fuzzing`, entries for `tests/fuzz`) |
//! | 5 | `http` | axum handlers: parse, authorise, call, map the error |
//! | 4 | `ingest` on `webrtc` on `publish` | the ways in; one engine for all peers; publications and their names |
//! | 3 | `record`, `hook` | frames to files; scripts. Neither knows the other |
//! | 2 | `catalog` on `disk`; `live`; `auth` | manifests, files kept durably; fan-out; permissions |
//! | 1 | `media` below `rtp`, `container` | pure: no tokio, no files, no sockets; time is an argument |
//! | 0 | `base` | ids, units, clock, metrics, tasks |
//!
//! # Where to look
//!
//! By what moves:
//!
//! - A datagram: [`webrtc`] (`engine` reads the `socket`, and what `tcp` has read; `route` finds the session; media is
//!   opened and counted by `packet_path`, anything else is `peer`'s; `sources` picks what is recorded) → [`rtp`]
//!   (`reorder`, `codec`, `sync`) → [`publish`] (`publication`, `timeline`) → [`live`] (`stream`, `tap`) → [`record`] (`recorder`,
//!   `interleave`, `writer`, `file`, `close`) → [`catalog`] → [`hook`] (`hooks`, `queue`, `worker`, `attempt`,
//!   `process`).
//! - A chunk: `http/publish/chunks` → `ingest/chunks` (`protocol`, `upload`, `demux`, `clock`) → [`publish`].
//! - A JPEG: `http/publish/upload` → `ingest/mjpeg` → [`publish`].
//! - A signalling message: `http/publish/signal`, `http/publish/whip` → `ingest/webrtc` → `webrtc/offer`,
//!   `webrtc/session/negotiation`, `webrtc/peer` (`paths`, `dtls`).
//! - A viewer: `http/watch` → [`live`] (`viewer` reads clusters that `mux` makes, and says where one that lags goes on;
//!   `frames` is for viewers that are sent packets).
//! - Any request before that: `http/listen` (connections, TLS), `http/gate` (proxies, origins, permissions), then its
//!   row in `http/routes`.
//! - A start of the server: `app`, `record/recover` (what the last run left) → `record/repair` (one file) →
//!   `container/webm/repair`, and `hook/hooks` (what is due); then `record/retention`, again and again.
//!
//! By what is to change:
//!
//! - A codec: its row in `media/codec`; over WebRTC a file in `rtp/codec` and a variant of its `PayloadFormat` (so far VP8
//!   and Opus), what answers say of it in `webrtc/offer/formats`; in chunks `ingest/chunks/demux`.
//! - A file format: a `container::Muxer` and a `container::Repair`, and a variant of `container::Container`; of MP4 there is
//!   only what cuts a browser's recording behind its last whole fragment. Where WebM is sought: `container/webm/cues`.
//! - A route: `http/routes`, a handler, its description in `http/api/openapi/operations`; an error: `base/error_code`
//!   and its status in `http/error`, where all errors of the layers below get theirs.
//! - A message of a WebSocket: `http/publish/signal/wire`, `http/publish/chunks`, `http/watch/live`, each with its part of
//!   `src/http/PROTOCOL.md`.
//! - A limit: `publish/limits` (section `limits`), counted for a client, which is an address or an IPv6 /64, by
//!   `base/quota`. What a token must say: `auth/jwt`; who may do what with one: `auth/grant`, `auth/permission`.
//! - When a keyframe is asked for: `rtp/keyframe`. When an attempt of a hook is repeated: `hook/attempt`; in which
//!   order: `hook/schedule`.
//! - The browser library: `www/lib` (`fallback.js` says which transport is tried after which); the pages: `www/pages`.
//! - A setting: the `Config` of its module; what settings have to fit each other: `config/validate`.
//! - A shared catalogue or queue of jobs: the traits `catalog::Catalog` (`store`) and `hook::jobs::Jobs`, each with a
//!   `contract` that every implementation is tested by.
//!
//! # Invariants
//!
//! Comments cite them by their code; in brackets the files that hold them.
//!
//! Storage:
//! - S1: a file under a final name is whole: sealed with its duration and index, flushed to the disk, then renamed.
//!   Anything else is a `.part`. (`record/file`)
//! - S2: what left the reorder window is handed to the operating system within `record.flush_interval`, in whole
//!   clusters, so killing the process costs at most that; every `record.sync_interval` it is synced, so a power cut
//!   costs at most that. (`record/recorder`)
//! - S3: at start every `.part`, and every final file whose manifest is missing or says `recording`, is cut back to
//!   its last whole cluster, sealed, and goes on to its hook; what can't be repaired moves to `quarantine/` byte
//!   for byte. Nothing is deleted but by retention or request, and then the manifest says `deleted` durably before
//!   the file goes. (`record/recover`)
//! - S4: a manifest is replaced atomically. The catalogue is what the manifests say; there is no second truth.
//!   (`catalog/folder`)
//! - S5: the hook's job is durable before the recording is announced. It is delivered at least once, with the same
//!   `ONRECORD_ID`; a restart ends what an earlier attempt left before it tries again. (`hook/jobs`)
//! - S6: a write error seals the file with what it has and goes on in a new one. On a full disk open recordings are
//!   sealed, for which space is kept back, new ones are refused with `disk_full`, and the server recovers by
//!   itself. What fails while sealing is tried again with growing pauses. (`record/recorder/failover`,
//!   `disk/space`, `record/backoff`)
//!
//! Time:
//! - T1: timestamps of a track strictly increase; sound and pictures are aligned by RTCP sender reports once both
//!   have one that is believed, before that by the smallest difference of arrival and RTP time; the switch moves a
//!   track by at most 5 ms a frame, never backwards. (`rtp/sync`, `publish/timeline`)
//! - T2: no frame is written that can't be decoded: after a loss that was not repaired video waits for the next
//!   keyframe, which is asked for at once, and the manifest has the gap. (`rtp/codec`)
//! - T3: a change of the pictures' size goes on in the same file. (`container/webm/write`)
//! - T4: while a WebRTC stream is recorded or watched, a keyframe is asked for whenever the newest is older than
//!   `webrtc.keyframe_interval`, so that every file seeks. (`rtp/keyframe`)
//!
//! Live:
//! - L1: a slow viewer slows nobody: it goes on at the newest keyframe and learns how many frames it missed.
//!   (`live/viewer`, `live/frames`)
//! - L2: memory per stream is bounded in bytes; each queue's comment says what happens when it is full.
//!   (`live/tap`)
//!
//! Doors:
//! - D1: a `StreamName` is valid by construction: UTF-8, 1 to 128 bytes, no control characters, no `/` or `\`, no
//!   leading `.` or `-`. One encoder makes file names of it. (`base/id`, `catalog/names`)
//! - D2: a peer that never finishes its handshake is dropped after 15 s; one from which no authenticated packet
//!   came for 10 s is gone; silence with a live ICE is a gap, and ended after `webrtc.idle_timeout`.
//!   (`webrtc/session/lifetime`)
//! - D3: one publisher a name; a second one gets `stream_busy`, unless it holds the resume secret.
//!   (`publish/registry`)
//! - D4: every STUN request is routed by its user fragment, the rest by address; an address is bound to a session,
//!   or moved, only after a STUN exchange that only that session's peer could have made. (`webrtc/route`,
//!   `webrtc/paths`) A TCP connection begins with a STUN request for a session, is authenticated by one within 5 s, and
//!   ends with its session. (`webrtc/tcp`)
//!
//! # Glossary
//!
//! - *publication*: one name's claim by one publisher, from its first offer until its file is sealed;
//!   it outlives a session, so that a publisher that reconnects goes on in the same recording.
//! - *session*: one WebRTC peer connection, or one upload's connection: what brings media for a publication.
//! - *tap*: the lossless reader of a stream (the recorder); a *viewer* may lose frames.
//! - *cluster*: the unit of a WebM file; written whole or not at all.
//! - *sealing*: giving a `.part` its index, duration and final name.

/// The fuzz targets, which are replayed as unit tests, call it by its name.
#[cfg(test)]
extern crate self as onrecord;

pub mod app;
pub mod auth;
pub mod base;
pub mod catalog;
pub mod config;
pub mod container;
pub mod disk;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
pub mod hook;
pub mod http;
pub mod ingest;
pub mod live;
pub mod media;
pub mod publish;
pub mod record;
pub mod rtp;
pub mod webrtc;
