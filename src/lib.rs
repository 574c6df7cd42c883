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
//! - A datagram: [`webrtc`] (`engine` reads the `socket`, `route` finds the session, `session` decrypts, `sources`
//!   picks what is recorded) → [`rtp`] (`reorder`, `codec`, `sync`) → [`publish`] (`publication`, `timeline`) →
//!   [`live`] (`stream`, `tap`) → [`record`] (`recorder`, `interleave`, `writer`, `file`, `close`) → [`catalog`] →
//!   [`hook`] (`hooks`, `queue`, `worker`, `attempt`, `process`).
//! - Where a shared catalogue or job queue would go: the traits `catalog::Catalog` (`store`) and `hook::jobs::Jobs`, each
//!   with a `contract` that every implementation is tested by.
//! - A chunk: `http/publish/chunks` → `ingest/chunks` (`protocol`, `task`, `demux`, `clock`) → [`publish`].
//! - A JPEG: `http/publish/upload` → `ingest/mjpeg` → [`publish`].
//! - A signalling message: `http/publish/signal` → `ingest/webrtc` → [`webrtc`].
//! - A viewer: `http/watch` → [`live`] (`viewer`, `mux`).
//! - Before any of them: `http/listen` (connections, TLS), `http/gate` (proxies, origins, who may do what).
//! - What goes over the wire, for clients of others: `src/http/PROTOCOL.md`.
//!
//! # Invariants
//!
//! Comments cite them by their code.
//!
//! Storage:
//! - S1: a file under a final name is whole: sealed with its duration and index, flushed to the disk, then renamed.
//!   Anything else is a `.part`.
//! - S2: what left the reorder window is handed to the operating system within `record.flush_interval`, in whole
//!   clusters, so killing the process costs at most that; every `record.sync_interval` it is synced, so a power cut
//!   costs at most that.
//! - S3: at start every `.part`, and every final file whose manifest is missing or says `recording`, is cut back to its
//!   last whole cluster, sealed, and goes on to its hook; what can't be repaired moves to `quarantine/` byte for byte.
//!   Nothing is deleted but by retention or request, and then the manifest says `deleted` durably before the file goes.
//! - S4: a manifest is replaced atomically. The catalogue is what the manifests say; there is no second truth.
//! - S5: the hook's job is durable before the recording is announced. It is delivered at least once, with the same
//!   `ONRECORD_ID`; a restart ends what an earlier attempt left before it tries again.
//! - S6: a write error seals the file with what it has and goes on in a new one. On a full disk open recordings are
//!   sealed, for which room is kept back, new ones are refused with `disk_full`, and the server recovers by itself.
//!   What fails while sealing is tried again with growing pauses.
//!
//! Time:
//! - T1: timestamps of a track strictly increase; sound and pictures are aligned by RTCP sender reports once both have
//!   one that is believed, before that by the smallest difference of arrival and RTP time; the switch moves a track by
//!   at most 5 ms a frame, never backwards.
//! - T2: no frame is written that can't be decoded: after a loss that was not repaired video waits for the next
//!   keyframe, which is asked for at once, and the manifest has the gap.
//! - T3: a change of the pictures' size goes on in the same file.
//! - T4: while a WebRTC stream is recorded or watched, a keyframe is asked for whenever the newest is older than
//!   `webrtc.keyframe_interval`, so that every file seeks.
//!
//! Live:
//! - L1: a slow viewer slows nobody: it goes on at the newest keyframe and learns how many frames it missed.
//! - L2: memory per stream is bounded in bytes; each queue's comment says what happens when it is full.
//!
//! Doors:
//! - D1: a `StreamName` is valid by construction: UTF-8, 1 to 128 bytes, no control characters, no `/` or `\`, no
//!   leading `.` or `-`. One encoder makes file names of it.
//! - D2: a peer that never finishes its handshake is dropped after 15 s; one from which no authenticated packet came for
//!   10 s is gone; silence with a live ICE is a gap, and ended after `webrtc.idle_timeout`.
//! - D3: one publisher a name; a second one gets `stream_busy`, unless it holds the resume secret.
//! - D4: every STUN request is routed by its user fragment, the rest by address; an address is bound to a session, or
//!   moved, only after a STUN exchange that only that session's peer could have made.
//!
//! # Glossary
//!
//! - *publication*: one name's claim by one publisher, from its first offer until its file is sealed;
//!   it outlives a session, so that a publisher who reconnects goes on in the same recording.
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
