//! What the tests stand on: an independent WebRTC publisher, a network in virtual time, and judges
//! of what was recorded.
//!
//! ```text
//!  media ─ source ─▶ publisher (str0m) ─▶ network ─▶ the server's end ─▶ frames or a file ─▶ judge
//! ```
//!
//! Nothing in `publisher` or `network` touches a socket or a clock; `live` drives the same publisher
//! over real UDP against a server started by `server`, and `browser` does so with a real one, past
//! what `web` puts in between.

#![allow(dead_code, reason = "every test binary and bench uses its own part")]

pub mod browser;
pub mod bucket;
pub mod certificate;
pub mod chunks;
pub mod coturn;
pub mod events;
pub mod faults;
pub mod judge;
pub mod live;
pub mod media;
pub mod namespaces;
pub mod network;
pub mod nginx;
pub mod openmetrics;
pub mod peer;
pub mod proof;
pub mod publisher;
pub mod receiver;
pub mod sdp;
pub mod server;
pub mod session;
pub mod signalling;
pub mod source;
pub mod tracer;
pub mod user;
pub mod viewer;
pub mod web;
pub mod wire;
