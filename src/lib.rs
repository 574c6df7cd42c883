//! A self-hosted WebRTC ingest server: a browser publishes, a seekable file comes out, a hook runs.
//!
//! ```text
//!  browser ── WS /signal ──┐
//!  any WHIP client ────────┴─ ingest::webrtc ─ RTP ──▶ rtp::Pipeline ─┐
//!  MediaRecorder ─ WS /chunks ─ ingest::chunks ─ WebM ─▶ webm::Reader ─┤
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
//! A module imports only from layers below its own; a test fails on any other import.
//!
//! | layer | modules | what |
//! | --- | --- | --- |
//! | L6 | `main` `app` `config` | assembly: the only place that knows everything (and `fuzzing`, doors for `tests/fuzz`) |
//! | L5 | `http` | axum handlers: parse, authorise, call, map the error |
//! | L4 | `ingest` | who pushes frames in |
//! | L3 | `record` | frames → files → catalogue; emits events, knows no hook |
//! | L2 | `live` `hook` `auth` | fan-out, scripts, permissions (none imports another) |
//! | L1 | `media` ← `rtp`, `webm` | pure: no tokio, no files, no sockets; time is an argument |
//! | L0 | `base` | ids, units, clock, metrics, tasks |
//!
//! # Glossary
//!
//! - *publication*: one name's claim by one publisher, from its first offer until its file is sealed;
//!   it outlives a session, so that a publisher who reconnects goes on in the same recording.
//! - *session*: one WebRTC peer connection.
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
