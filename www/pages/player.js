// Plays WebM as it arrives, at the live edge: Media Source Extensions around one <video>.

import { Joiner } from "./clusters.js";

/** What is played again is never older than this, in seconds; older media is thrown away. */
const KEPT_S = 30;
/** Seconds behind the newest media that is aimed at, beyond the longest pause between two arrivals. */
const RESERVE_S = 0.3;
/** The least and the most that is aimed at, in seconds: MediaRecorder's chunks are 10 s long at the most. */
const TARGET_S = { min: 0.4, max: 11 };
/** So far off the aim the page jumps, in seconds; up to there it only plays a little faster. What the last jump took comes on top. */
const JUMP_S = 0.55;
/** How fast it plays to come nearer: a little off the aim, and further than that where a jump isn't worth it. */
const CATCH_UP = { little: 1.08, far: 1.25 };
/** How long a pause between arrivals is remembered, in ms: one that was an accident, and one of several. */
const MEMORY_MS = { once: 10_000, again: 30_000 };
/** Clusters that wait for the decoder; a page that gets no time at all begins anew. */
const QUEUE = 200;

/** Media Source Extensions, also as iPhones have them. @type {typeof MediaSource | undefined} */
const Source = /** @type {any} */ (globalThis).ManagedMediaSource ?? globalThis.MediaSource;

/** Whether a stream of that type can be played by `Player`. @param {string} mime */
export const canPlay = (mime) => Source?.isTypeSupported(mime) ?? false;

/** One <video> at the live edge. Over changes of the stream the last picture stays, on a canvas below it. */
export class Player {
  /** @type {MediaSource | null} */
  #source = null;
  /** @type {SourceBuffer | null} */
  #buffer = null;
  /** @type {BufferSource[]} */
  #queue = [];
  #joiner = new Joiner();
  #arrived = 0;
  /** @type {{at: number, ms: number}[]} */
  #pauses = [];
  /** Since when it jumps. @type {number | null} */
  #jumping = null;
  /** What the last jump took. */
  #jump = { at: -Infinity, ms: 0 };

  /**
   * @param {HTMLVideoElement} video
   * @param {HTMLCanvasElement} poster  Below the video, of the same size.
   * @param {(error: Error) => void} failed  It can't go on with this stream.
   */
  constructor(video, poster, failed) {
    this.video = video;
    this.poster = poster;
    this.failed = failed;
    video.disableRemotePlayback = true; // iPhones demand it
    video.addEventListener("seeked", () => this.#jumped());
    setInterval(() => this.#follow(), 100);
  }

  /** Seconds between what is shown and the newest that has arrived. */
  get delay() {
    const { buffered, currentTime } = this.video;
    return buffered.length ? buffered.end(buffered.length - 1) - currentTime : 0;
  }

  /** Begins a stream. @param {string} mime */
  begin(mime) {
    this.freeze();
    this.#queue = [];
    this.#joiner.reset();
    this.#pauses = [];
    this.#arrived = 0;
    this.#jumping = null;
    const source = (this.#source = new /** @type {typeof MediaSource} */ (Source)());
    this.#buffer = null;
    const url = URL.createObjectURL(source);
    this.video.src = url;
    source.addEventListener(
      "sourceopen",
      () => {
        URL.revokeObjectURL(url);
        if (source !== this.#source) return;
        try {
          this.#buffer = source.addSourceBuffer(mime);
          this.#buffer.addEventListener("updateend", () => this.#feed());
          this.#buffer.addEventListener("error", () => source === this.#source && this.failed(new Error("the stream can't be decoded")));
          this.#feed();
        } catch (error) {
          this.failed(/** @type {Error} */ (error));
        }
      },
      { once: true },
    );
  }

  /** Takes the next part of the stream. @param {ArrayBuffer} bytes */
  append(bytes) {
    const now = performance.now();
    if (this.#arrived) this.#pauses.push({ at: now, ms: now - this.#arrived });
    this.#arrived = now;
    while (this.#pauses.length && this.#pauses[0].at < now - MEMORY_MS.again) this.#pauses.shift();
    this.#queue.push(this.#joiner.join(bytes));
    if (this.#queue.length > QUEUE) return this.failed(new Error("this device is too slow for the stream"));
    this.#feed();
  }

  /**
   * Keeps the picture that is shown while something else is loaded.
   * @param {HTMLImageElement} [image]  Where it is shown, if not in the video.
   */
  freeze(image) {
    const { videoWidth, videoHeight, readyState } = this.video;
    const drawable = image ? image.complete : readyState >= HTMLMediaElement.HAVE_CURRENT_DATA;
    const [width, height] = image ? [image.naturalWidth, image.naturalHeight] : [videoWidth, videoHeight];
    if (!width || !drawable) return;
    Object.assign(this.poster, { width, height });
    this.poster.getContext("2d")?.drawImage(image ?? this.video, 0, 0, width, height);
  }

  /** Lets go of the stream; the next one may be shown by something else. */
  clear() {
    this.freeze();
    this.#source = this.#buffer = null;
    this.#queue = [];
    this.video.removeAttribute("src");
    this.video.load();
  }

  #feed() {
    const buffer = this.#buffer;
    if (!buffer || buffer.updating || this.#source?.readyState !== "open") return;
    const { buffered, currentTime } = this.video;
    try {
      if (buffered.length && buffered.start(0) < currentTime - 2 * KEPT_S) return buffer.remove(0, currentTime - KEPT_S);
      const next = this.#queue.shift();
      if (next) buffer.appendBuffer(next);
    } catch (error) {
      this.failed(/** @type {Error} */ (error));
    }
  }

  /** The pause that is to be expected, in ms: chunks come in bursts, and all that is between them is one. */
  #expected(now = performance.now()) {
    const [, again = 0] = this.#pauses.map(({ ms }) => ms).sort((a, b) => b - a);
    return this.#pauses.reduce((most, { at, ms }) => (at > now - MEMORY_MS.once ? Math.max(most, ms) : most), again);
  }

  #jumped() {
    if (this.#jumping === null) return;
    const at = performance.now();
    this.#jump = { at, ms: at - this.#jumping };
    this.#jumping = null;
  }

  /**
   * How far off the aim a jump is worth it, in seconds. It makes the decoder begin at the keyframe before, and by
   * what that takes the page is behind once more: a slow device would do nothing but jump.
   */
  #worthAJump(now = performance.now()) {
    const { at, ms } = this.#jump;
    return JUMP_S + (at > now - MEMORY_MS.again ? ms / 1000 : 0);
  }

  /** Stays at the live edge. */
  #follow() {
    const { video } = this;
    const { buffered } = video;
    if (!this.#source || !buffered.length || video.seeking) return;
    const last = buffered.length - 1;
    const [start, end] = [buffered.start(last), buffered.end(last)];
    const expected = this.#expected();
    const target = Math.min(Math.max(expected / 1000 + RESERVE_S, TARGET_S.min), TARGET_S.max);
    // What has been played since the last arrival is no nearness to the edge: the next burst brings it back.
    const delay = end - video.currentTime + Math.min(performance.now() - this.#arrived, expected) / 1000;
    if (video.currentTime < start || delay > target + this.#worthAJump()) {
      // Nothing can be drawn of a video that seeks, should another stream begin meanwhile.
      this.freeze();
      // Never back to what was shown: after a hole, on to what follows it.
      this.#jumping = performance.now();
      video.currentTime = Math.max(start, Math.min(video.currentTime + Math.max(delay - target, 0), end));
      video.playbackRate = 1;
    } else if (delay > target + JUMP_S) video.playbackRate = CATCH_UP.far;
    else if (delay > target + 0.15) video.playbackRate = CATCH_UP.little;
    else if (delay < target - 0.15) video.playbackRate = 0.94;
    else if (Math.abs(delay - target) < 0.08) video.playbackRate = 1;
    if (video.paused && !video.ended) video.play().catch(() => {}); // the page shows a button
  }
}
