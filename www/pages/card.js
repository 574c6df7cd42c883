// A live stream's card: what it is, how it goes, and what can be done about it.

import { badge } from "./list.js";
import { el, formatBitrate, formatDuration } from "./ui.js";

/**
 * A live stream, as the API lists it.
 * @typedef {object} LiveStream
 * @property {string} stream
 * @property {string} status
 * @property {string} started_at
 * @property {string | null} recording
 * @property {"webrtc" | "chunks" | "mjpeg" | null} via
 * @property {string[]} tracks
 * @property {{codec: string, width: number | null, height: number | null, frames: number} | null} video
 * @property {number} bytes
 * @property {number} frames
 * @property {number} lost
 * @property {number} viewers
 * @property {string[]} warnings
 */

/** @typedef {"cut" | "stop-recording" | "start-recording" | "end"} Action */

/** JPEG is said by the transport already. */
const CODECS = { vp8: "VP8", vp9: "VP9", av1: "AV1", h264: "H.264", opus: "Opus", aac: "AAC", mjpeg: "" };
const TRANSPORTS = { webrtc: "WebRTC", chunks: "chunks", mjpeg: "JPEG" };

/** In seconds: what came in less is no rate. */
const SHORTEST = 1;

export class Card {
  /** The list's element. */
  element;
  /** What a thumbnail goes to. @type {import("./thumbnails.js").Frame} */
  frame;
  /** Bits a second. */
  rate = 0;
  /** @type {{at: number, live: LiveStream} | null} */
  #before = null;
  /** @type {{bits: number, pictures: number} | null} */
  #rates = null;
  #age = el("span");
  #facts = el("p", { className: "facts tabular" });
  #warnings = el("p", { className: "warnings" });
  #state = el("p", { className: "state-badge" });
  #none = el("span", { className: "no-picture" });
  #cut;
  #record;
  #started = 0;

  /**
   * @param {LiveStream} live
   * @param {(action: Action, stream: string) => void} act
   */
  constructor(live, act) {
    const { stream } = live;
    const watch = `watch/${encodeURIComponent(stream)}`;
    const canvas = el("canvas", { width: 480, height: 270 });
    this.frame = { stream, jpeg: false, canvas, live: false };
    const button = (/** @type {Action} */ action, /** @type {string} */ text, /** @type {string} */ label) => {
      const made = el("button", { type: "button", className: "quiet", ariaLabel: `${label} ${stream}`, dataset: { action } }, text);
      made.addEventListener("click", () => act(/** @type {Action} */ (made.dataset.action), stream));
      return made;
    };
    this.#cut = button("cut", "Cut", "Begin a new file of");
    this.#cut.title = "Go on in a new file";
    this.#record = button("start-recording", "Record", "Record");
    const end = button("end", "End", "End");
    end.classList.add("danger");
    const view = el("a", { className: "button quiet", href: watch, ariaLabel: `Watch ${stream}`, dataset: { action: "watch" } }, "Watch");
    this.element = el(
      "li",
      { className: "stream", dataset: { stream } },
      el("a", { className: "thumb", href: watch, tabIndex: -1, ariaHidden: "true" }, canvas, this.#none, this.#state),
      el("p", { className: "name" }, stream),
      this.#facts,
      this.#warnings,
      el("div", { className: "actions" }, view, this.#cut, this.#record, end),
    );
    this.show(live);
  }

  /**
   * @param {LiveStream} live
   * @param {number} [now]
   */
  show(live, now = performance.now()) {
    const rates = this.#count(live, now);
    this.rate = rates?.bits ?? 0;
    this.#started = Date.parse(live.started_at);
    const { video, via, tracks, viewers, lost, warnings } = live;
    Object.assign(this.frame, { jpeg: via === "mjpeg", live: video !== null });
    const codecs = tracks.map((codec) => CODECS[/** @type {keyof typeof CODECS} */ (codec)] ?? codec).join(" + ");
    const facts = [
      via && TRANSPORTS[via],
      video?.width ? `${video.width}×${video.height}` : tracks.length && !video ? "sound only" : "",
      codecs,
      rates && formatBitrate(rates.bits),
      rates && video && `${rates.pictures.toFixed(rates.pictures < 10 ? 1 : 0)} fps`,
      viewers === 1 ? "1 viewer" : `${viewers} viewers`,
      lost && `${lost} lost`,
    ];
    this.#facts.replaceChildren(this.#age, ...facts.filter(Boolean).map((fact) => el("span", {}, String(fact))));
    this.#warnings.textContent = warnings.join(" ");
    this.#warnings.hidden = !warnings.length;
    this.element.dataset.rate = String(Math.round(this.rate));
    this.#none.textContent = video ? "" : tracks.length ? "Sound only" : "No picture yet";
    this.#none.hidden = video !== null;
    this.#showState(live);
    this.age();
  }

  /** @param {LiveStream} live */
  #showState({ status, recording, stream }) {
    const on = status === "PUBLISHING";
    const word = !on ? badge("waiting", "warn") : recording ? badge("recording", "live") : badge("not recorded");
    this.#state.replaceChildren(word);
    this.#cut.hidden = !recording;
    this.#record.dataset.action = recording ? "stop-recording" : "start-recording";
    this.#record.textContent = recording ? "Stop recording" : "Record";
    this.#record.ariaLabel = `${recording ? "Stop recording" : "Record"} ${stream}`;
  }

  /** It grows older between two looks. */
  age() {
    this.#age.textContent = formatDuration(Date.now() - this.#started);
  }

  /**
   * What came since a look before, in a second; null before the second one.
   * @param {LiveStream} live
   * @param {number} now
   */
  #count(live, now) {
    const before = this.#before;
    // One that has begun anew under the name counts from nothing.
    const anew = before && before.live.started_at !== live.started_at;
    const seconds = before ? (now - before.at) / 1000 : 0;
    // An event may make the page look twice in a moment, which says nothing.
    if (before && !anew && seconds < SHORTEST) return this.#rates;
    this.#before = { at: now, live };
    if (!before || anew) return (this.#rates = null);
    const came = (/** @type {(live: LiveStream) => number} */ of) => Math.max(0, of(live) - of(before.live)) / seconds;
    return (this.#rates = { bits: came(({ bytes }) => bytes * 8), pictures: came(({ video }) => video?.frames ?? 0) });
  }
}
