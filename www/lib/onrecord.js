// The browser library: records camera and microphone on an onrecord server, from any page.
//
//   import { createSession, SESSION_STATUS, STREAM_STATUS } from "https://host/js/onrecord.js";
//
//   const session = createSession({ urlServer: "wss://host" });
//   session.on(SESSION_STATUS.ESTABLISHED, () => {
//     const stream = session.createStream({ name: "interview", display: document.querySelector("video") });
//     stream.on(STREAM_STATUS.UNPUBLISHED, (s) => console.log(`${s.getRecordInfo()}`, s.getRecordInfo().url));
//     stream.publish(); // later: stream.stop()
//   });
//
// This file is all that a page imports. In client/:
//   session.js     the server, and its signalling socket      stream.js     one stream, whatever its transport
//   fallback.js    which transport is tried after which       transport.js  what a transport is
//   credential.js  what the server is shown                   model.js      options, statuses, events
//   webrtc.js, whip.js, chunks.js, mjpeg.js: the transports; the other files serve one of them.
//
// Pages with classic scripts load onrecord.classic.js instead, and find the same under `Onrecord`.

import { captureMedia, releaseLocalMedia, showMedia } from "./client/capture.js";
import { CHUNK_TIME } from "./client/chunks.js";
import { recorderCodecs } from "./client/media-recorder.js";
import { OnrecordError, RecordInfo, SESSION_STATUS, STREAM_STATUS } from "./client/model.js";
import { Session } from "./client/session.js";
import { Stream } from "./client/stream.js";

export { CHUNK_TIME, OnrecordError, RecordInfo, SESSION_STATUS, STREAM_STATUS, Session, Stream };
export { captureMedia, recorderCodecs, releaseLocalMedia, showMedia };

/** @typedef {import("./client/credential.js").TokenSource} TokenSource */
/** @typedef {import("./client/model.js").Progress} Progress */
/** @typedef {import("./client/model.js").SessionEvents} SessionEvents */
/** @typedef {import("./client/model.js").SessionOptions} SessionOptions */
/** @typedef {import("./client/model.js").SessionStatus} SessionStatus */
/** @typedef {import("./client/model.js").StreamEvents} StreamEvents */
/** @typedef {import("./client/model.js").StreamMode} StreamMode */
/** @typedef {import("./client/model.js").StreamOptions} StreamOptions */
/** @typedef {import("./client/model.js").StreamStats} StreamStats */
/** @typedef {import("./client/model.js").StreamStatus} StreamStatus */
/** @typedef {import("./client/model.js").TransportName} TransportName */

/**
 * Connects to a server.
 * @param {SessionOptions} [options]
 */
export function createSession(options) {
  return new Session(options);
}

/** The same under one name, in the manner of older libraries. */
export const Onrecord = {
  /** Nothing has to be prepared. */
  init() {},
  createSession,
  releaseLocalMedia,
  constants: { SESSION_STATUS, STREAM_STATUS },
};
