// Plays WebM as it arrives, at the live edge: Media Source Extensions around one <video>.

/** What is played again is never older than this, in seconds; older media is thrown away. */
const KEPT_S = 30;
/** Seconds behind the newest media that is aimed at, beyond the longest pause between two arrivals. */
const RESERVE_S = 0.3;
/** The least and the most that is aimed at, in seconds. */
const TARGET_S = { min: 0.4, max: 4 };
/** So far off the aim the page jumps, in seconds; up to there it only plays a little faster. */
const JUMP_S = 0.55;
/** How long a pause between arrivals is remembered, in ms. */
const MEMORY_MS = 10_000;
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
  /** @type {ArrayBuffer[]} */
  #queue = [];
  #arrived = 0;
  /** @type {{at: number, ms: number}[]} */
  #pauses = [];
  #timer = setInterval(() => this.#follow(), 100);

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
    this.#pauses = [];
    this.#arrived = 0;
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
    while (this.#pauses.length && this.#pauses[0].at < now - MEMORY_MS) this.#pauses.shift();
    this.#queue.push(bytes);
    if (this.#queue.length > QUEUE) return this.failed(new Error("this device is too slow for the stream"));
    this.#feed();
  }

  /** Keeps the picture that is shown while something else is loaded. */
  freeze() {
    const { videoWidth: width, videoHeight: height } = this.video;
    if (!width || this.video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return;
    Object.assign(this.poster, { width, height });
    this.poster.getContext("2d")?.drawImage(this.video, 0, 0, width, height);
  }

  /** Ends all. */
  close() {
    clearInterval(this.#timer);
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

  /** What is aimed at, in seconds: media that comes in bursts needs more. */
  get #target() {
    const longest = Math.max(0, ...this.#pauses.map(({ ms }) => ms)) / 1000;
    return Math.min(Math.max(longest + RESERVE_S, TARGET_S.min), TARGET_S.max);
  }

  /** Stays at the live edge. */
  #follow() {
    const { video } = this;
    const { buffered } = video;
    if (!this.#source || !buffered.length || video.seeking) return;
    const last = buffered.length - 1;
    const [start, end] = [buffered.start(last), buffered.end(last)];
    const [delay, target] = [end - video.currentTime, this.#target];
    if (video.currentTime < start || delay > target + JUMP_S) {
      // Never back to what was shown: after a hole, on to what follows it.
      video.currentTime = Math.max(start, end - target, Math.min(video.currentTime, end));
      video.playbackRate = 1;
    } else if (delay > target + 0.15) video.playbackRate = 1.08;
    else if (delay < target - 0.25) video.playbackRate = 0.94;
    else if (Math.abs(delay - target) < 0.08) video.playbackRate = 1;
    if (video.paused && !video.ended) video.play().catch(() => {}); // the page shows a button
  }
}
