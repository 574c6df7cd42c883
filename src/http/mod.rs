//! L5: axum handlers: parse, authorise, call, map the error. No media, no WebRTC types.
