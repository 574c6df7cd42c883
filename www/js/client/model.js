// The words and shapes that pages and the library share. src/http/PROTOCOL.md has the messages.

/** What a session can be. */
export const SESSION_STATUS = Object.freeze({
  ESTABLISHED: "ESTABLISHED",
  DISCONNECTED: "DISCONNECTED",
  FAILED: "FAILED",
});

/** What a stream can be: `PENDING → PUBLISHING → UNPUBLISHED | FAILED`. */
export const STREAM_STATUS = Object.freeze({
  PENDING: "PENDING",
  PUBLISHING: "PUBLISHING",
  UNPUBLISHED: "UNPUBLISHED",
  FAILED: "FAILED",
});

/**
 * @typedef {object} StreamOptions
 * @property {string} [name]  The stream's name: 1 to 128 bytes, no `/`, `\` or control character, no
 *   leading `.` or `-`.
 * @property {string} [namePrefix]  In place of it: the stream is called `<prefix>-<6 random>`, so that
 *   two visitors never collide.
 * @property {HTMLElement | null} [display]  A `<video>`, or any element: a muted video is put in.
 * @property {boolean} [record]  Whether the server records it; true if left out.
 * @property {"auto" | "webrtc" | "chunks" | "mjpeg"} [mode]  The way to the server; `auto` if left
 *   out: the best of them that gets through, said by the event `mode`.
 * @property {MediaStream} [mediaStream]  Media of one's own; its tracks are never stopped.
 * @property {MediaStreamConstraints} [constraints]  For `getUserMedia`; audio and video if left out.
 * @property {number} [width]  Wanted picture width, in pixels, unless `constraints.video` says more.
 * @property {number} [height]  Wanted picture height, in pixels.
 * @property {number} [frameRate]  Wanted pictures a second; an upper limit for the encoder too.
 * @property {number} [maxBitrate]  Upper limit of video, in bits a second.
 * @property {string} [contentHint]  `motion`, `detail` or `text`: what the encoder should keep.
 * @property {RTCIceServer[]} [iceServers]  In addition to those the server names.
 * @property {number} [chunkTime]  Chunks: how many milliseconds each has, 100 to 10000; 1000 if left out.
 * @property {string} [codec]  Chunks: `vp9`, `vp8`, `h264`, `av1` or a MIME type of MediaRecorder; the
 *   first of VP9, VP8, plain WebM, the browser's own choice and MP4 if left out or not there.
 * @property {number} [maxHeldBytes]  Chunks: how much is held for a slow network before recording
 *   pauses; 64 MiB if left out.
 * @property {number} [fps]  JPEG: pictures a second; 10 if left out.
 * @property {number} [quality]  JPEG: 0 to 1; 0.8 if left out.
 * @property {boolean} [cacheLocalResources]  Keep camera and preview for the next stream with the
 *   same `display`, until `releaseLocalMedia(display)`.
 * @property {boolean} [receiveVideo]  Accepted for pages written for other libraries; no effect.
 * @property {boolean} [receiveAudio]  As above.
 */

/**
 * One message of the server; which fields it has depends on `type`.
 * @typedef {object} ServerMessage
 * @property {string} type
 * @property {string} [stream]
 * @property {string} [sdp]
 * @property {string} [resume]
 * @property {RTCIceServer[]} [ice_servers]
 * @property {RTCIceCandidateInit | string} [candidate]
 * @property {string} [status]
 * @property {RecordingFields | null} [recording]
 * @property {string} [reason]
 * @property {string} [code]
 * @property {string} [message]
 * @property {string} [warning]  With a status: what the server misses of the media.
 */

/** @typedef {{id: string, stream: string, file: string, url: string, bytes: number, duration_ms: number}} RecordingFields */

/** An error with a `code` to test for and a `message` that says what to do. */
export class OnrecordError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   */
  constructor(code, message) {
    super(message);
    this.name = "OnrecordError";
    this.code = code;
  }
}

/** A sealed recording. In a string it reads as the file's name. */
export class RecordInfo {
  /**
   * @param {RecordingFields} fields
   * @param {string} base  The server's address, which makes `url` whole for pages of other hosts.
   */
  constructor(fields, base) {
    this.id = fields.id;
    this.stream = fields.stream;
    this.file = fields.file;
    /** Where to download it. */
    this.url = new URL(fields.url, base).href;
    /** Size of the file. */
    this.bytes = fields.bytes;
    /** Length, in milliseconds. */
    this.duration_ms = fields.duration_ms;
  }

  toString() {
    return this.file;
  }
}

/**
 * The pause before the next attempt, in milliseconds: 0.5 s, doubling to 8 s, spread by a quarter
 * both ways so that the pages of a restarted server don't all return in the same instant.
 * @param {number} attempt  Counted from 0.
 */
export function pause(attempt, random = Math.random) {
  return Math.min(8000, 500 * 2 ** Math.min(attempt, 10)) * (0.75 + random() / 2);
}
