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
// `mode` chooses the way: "auto" (if left out), "webrtc", "chunks" or "mjpeg". The rooms of client/:
//   session.js  the server, and its signalling socket      stream.js  one stream, whatever its way
//   ladder.js   which way is tried after which             way.js     what a way is
//   credential.js  what the server is shown
//   webrtc.js, whip.js, chunks.js, mjpeg.js: the ways; the other files serve one of them.
//
// Pages with classic scripts load onrecord.classic.js instead, and find the same under `Onrecord`.
// What a session and a stream can do, and the events beside their statuses, stands with them.

import { releaseLocalMedia } from "./client/capture.js";
import { OnrecordError, RecordInfo, SESSION_STATUS, STREAM_STATUS } from "./client/model.js";
import { Session } from "./client/session.js";
import { Stream } from "./client/stream.js";

export { OnrecordError, RecordInfo, SESSION_STATUS, STREAM_STATUS, Session, Stream, releaseLocalMedia };

/**
 * Connects to a server. `urlServer` is `wss://host`, `https://host`, or with the path in full,
 * `wss://host/signal`; if left out, the server that this file came from. `token` is for servers that ask
 * who is there: a string, or a function that gives a fresh one, at once or by a promise.
 * @param {{urlServer?: string, token?: import("./client/credential.js").TokenSource}} [options]
 */
export function createSession(options) {
  return new Session(options);
}

/** The same for scripts that import nothing, in the manner of older libraries. */
export const Onrecord = {
  /** Nothing has to be prepared. */
  init() {},
  createSession,
  releaseLocalMedia,
  constants: { SESSION_STATUS, STREAM_STATUS },
};

Object.assign(globalThis, { Onrecord });
