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

/** @typedef {keyof typeof SESSION_STATUS} SessionStatus */
/** @typedef {keyof typeof STREAM_STATUS} StreamStatus */

/** How media get to the server. @typedef {"webrtc" | "whip" | "chunks" | "mjpeg"} TransportName */

/**
 * @typedef {object} SessionOptions
 * @property {string} [urlServer]  `wss://host`, `https://host`, or with the path in full,
 *   `wss://host/signal`; if left out, the server that the library came from.
 * @property {import("./credential.js").TokenSource} [token]  For servers that ask who is there.
 */

/**
 * What a session tells beside its statuses.
 * @typedef {object} SessionEvents
 * @property {{attempt: number, pause_ms: number}} reconnecting  Its socket is lost.
 * @property {undefined} reconnected
 * @property {OnrecordError} error  Something that concerns no stream.
 */

/**
 * @typedef {object} StreamOptions
 * @property {string} [name]  The stream's name: 1 to 128 bytes, no `/`, `\` or control character, no
 *   leading `.` or `-`.
 * @property {string} [namePrefix]  In place of it: the stream is called `<prefix>-<6 random>`, so that
 *   two visitors never collide.
 * @property {HTMLElement | null} [display]  A `<video>`, or any element: a muted video is put in.
 * @property {boolean} [record]  Whether the server records it; true if left out.
 * @property {"auto" | "webrtc" | "chunks" | "mjpeg"} [mode]  How it gets to the server; `auto` if left
 *   out: the best transport that gets through, said by the event `mode`.
 * @property {MediaStream} [mediaStream]  Media of one's own; its tracks are never stopped.
 * @property {MediaStreamConstraints} [constraints]  For `getUserMedia`; audio and video if left out.
 * @property {number} [width]  Wanted picture width, in pixels, unless `constraints.video` says more.
 * @property {number} [height]  Wanted picture height, in pixels.
 * @property {number} [frameRate]  Wanted pictures a second; an upper limit for the encoder too.
 * @property {number} [maxBitrate]  Upper limit of video, in bits a second.
 * @property {string} [contentHint]  `motion`, `detail` or `text`: what the encoder should keep.
 * @property {RTCIceServer[]} [iceServers]  In addition to those the server names.
 * @property {number} [chunkTime]  Chunks: how many milliseconds each has, within `CHUNK_TIME`.
 * @property {string} [codec]  Chunks: one of `recorderCodecs()` or a MIME type of MediaRecorder; the
 *   first of VP9, VP8, plain WebM, the browser's own choice and MP4 if left out or not there.
 * @property {number} [maxHeldBytes]  Chunks: how much is held for a slow network before recording
 *   pauses; 64 MiB if left out.
 * @property {number} [fps]  JPEG: pictures a second; 10 if left out.
 * @property {number} [quality]  JPEG: 0 to 1; 0.8 if left out.
 * @property {boolean} [persistent]  JPEG: whether a server that doesn't answer is tried again for as long
 *   as the page is open, as a camera wants that nobody attends; otherwise for two minutes.
 * @property {boolean} [cacheLocalResources]  Keep camera and preview for the next stream with the
 *   same `display`, until `releaseLocalMedia(display)`.
 * @property {boolean} [receiveVideo]  Accepted for pages written for other libraries; no effect.
 * @property {boolean} [receiveAudio]  As above.
 */

/**
 * What a stream tells beside its statuses.
 * @typedef {object} StreamEvents
 * @property {StreamMode} mode  By which transport it publishes from now on, and why.
 * @property {{attempt: number}} reconnecting  The server can't be reached any more.
 * @property {undefined} reconnected
 * @property {{reason: string, lost_ms: number, recording: RecordInfo | null}} restarted  The server ended
 *   the recording (it was restarted, or the network was away for long) and a new one has begun;
 *   `lost_ms` are in neither.
 * @property {{bytes: number}} paused  The network is too slow for long, so many bytes are held; nothing is
 *   recorded until they are through.
 * @property {{lost_ms: number}} resumed  What the pause cost.
 * @property {Progress} progress  By a transport that counts.
 * @property {{kind: string}} trackended  A camera or microphone was unplugged; the other one goes on.
 * @property {{sentence: string}} lacks  No picture or no sound reaches the server; empty once they do.
 * @property {OnrecordError} warning  Something went wrong that didn't end the stream.
 */

/** @typedef {{mode: TransportName, reason: string}} StreamMode */

/**
 * How far the recording has got to the server.
 * @typedef {object} Progress
 * @property {number} produced  Bytes recorded.
 * @property {number} acked  Bytes that the server has.
 * @property {number} unsent  Bytes that it lacks.
 * @property {number} [sent]  JPEG: pictures that the server has.
 * @property {number} [dropped]  JPEG: pictures not sent, because the one before was still on its way.
 */

/**
 * What a transport counts; 0 if it doesn't know.
 * @typedef {object} Counters
 * @property {number} bytes
 * @property {number} framesPerSecond
 * @property {number} packetsLost  So far.
 * @property {number} roundTripTime  In seconds.
 */

/**
 * How it goes: `bitrate` in bits a second since the last call, video and audio together, `seconds` since
 * PUBLISHING.
 * @typedef {Omit<Counters, "bytes"> & {bitrate: number, seconds: number}} StreamStats
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
 * The wait before the next attempt, in milliseconds: 0.5 s, doubling to 8 s, spread by a quarter
 * both ways so that the pages of a restarted server don't all return in the same instant.
 * @param {number} attempt  Counted from 0.
 */
export function backoff(attempt, random = Math.random) {
  return Math.min(8000, 500 * 2 ** Math.min(attempt, 10)) * (0.75 + random() / 2);
}
