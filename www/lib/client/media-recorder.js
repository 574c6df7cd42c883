// One MediaRecorder: which codec, and what comes of it.

/** What each word of the option `codec` asks for. @type {Record<string, string[]>} */
const CODECS = {
  vp9: ["video/webm;codecs=vp9,opus"],
  vp8: ["video/webm;codecs=vp8,opus"],
  av1: ["video/webm;codecs=av01,opus"],
  h264: ["video/webm;codecs=h264,opus", "video/x-matroska;codecs=avc1,opus", "video/mp4;codecs=avc1.42E01E,mp4a.40.2", "video/mp4"],
};
/** Without a choice, and if the chosen one isn't there; the empty one is the browser's own. */
const PREFERRED = [...CODECS.vp9, ...CODECS.vp8, "video/webm", "", "video/mp4"];

/** The first data come after so long, whatever a chunk's length: the server then says that it records. */
const FIRST_MS = 250;
/** The longest time between two keyframes: as for WebRTC, so that every file seeks. */
const KEYFRAME_MS = 4000;
/** What MediaRecorder is asked for where the page says nothing: good for 720p, and for most uplinks. */
const VIDEO_BITRATE = 2_500_000;

/** Words of the option `codec` that this browser has. */
export function recorderCodecs() {
  return Object.keys(CODECS).filter((codec) => CODECS[codec].some(supported));
}

/** @param {string} mime */
function supported(mime) {
  return globalThis.MediaRecorder?.isTypeSupported(mime) ?? false;
}

/**
 * The first type that this browser records, of those for the codec and then of all.
 * @param {string} [codec]
 * @param {boolean} [video]  Whether there is a picture.
 */
export function mimeFor(codec = "", video = true) {
  const wanted = [...(CODECS[codec] ?? (codec.includes("/") ? [codec] : [])), ...PREFERRED];
  if (video) return wanted.find((mime) => !mime || supported(mime)) ?? "";
  // A track that isn't there must not be named: some browsers then refuse to start.
  return ["audio/webm;codecs=opus", "audio/webm", "", "audio/mp4"].find((mime) => !mime || supported(mime)) ?? "";
}

export class Recorder {
  #recorder;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #first;
  #ended = /** @type {() => void} */ (() => {});

  /**
   * Starts at once.
   * @param {MediaStream} media
   * @param {{mime: string, chunkTime: number, maxBitrate?: number, blob: (blob: Blob) => void, broken: (error: Error) => void}} options
   */
  constructor(media, { mime, chunkTime, maxBitrate = VIDEO_BITRATE, blob, broken }) {
    const wanted = { videoBitsPerSecond: maxBitrate, videoKeyFrameIntervalDuration: KEYFRAME_MS };
    const recorder = new MediaRecorder(media, { ...(mime && { mimeType: mime }), ...wanted });
    this.#recorder = recorder;
    /** Settled when the last blob was handed out. @type {Promise<void>} */
    this.ended = new Promise((resolve) => { this.#ended = resolve; });
    recorder.ondataavailable = ({ data }) => blob(data);
    recorder.onerror = (event) => broken(/** @type {any} */ (event).error ?? new Error("MediaRecorder reports an error"));
    recorder.onstop = () => {
      clearTimeout(this.#first);
      this.#ended();
      if (!this.stopping) broken(new Error("MediaRecorder stopped by itself"));
    };
    this.stopping = false;
    recorder.start(chunkTime);
    // Asks for the first data before their time.
    this.#first = setTimeout(() => recorder.state === "recording" && recorder.requestData(), FIRST_MS);
  }

  /** What it records; empty as long as the browser hasn't decided. */
  get mime() {
    return this.#recorder.mimeType;
  }

  /** Ends it; the last blob comes before `ended`. */
  stop() {
    if (!this.stopping) {
      this.stopping = true;
      if (this.#recorder.state === "inactive") this.#ended();
      else this.#recorder.stop();
    }
    return this.ended;
  }

  /** Ends it, and nothing of it matters any more. */
  close() {
    this.#recorder.ondataavailable = null;
    this.stop();
  }
}
