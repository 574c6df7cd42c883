// A JPEG stream in an <img>, which comes back by itself.
//
// The parts are read here rather than by the browser: given `multipart/x-mixed-replace`, Chromium shows
// a picture only when the next one begins, and none tells when the stream has ended.

import { address, headers } from "./access.js";

/** `loading` before the first picture, `live`, `away` while it isn't published or the server is silent. */
/** @typedef {"loading" | "live" | "away"} ViewState */

/** Between two attempts. */
const AGAIN_MS = 1000;
/** The server repeats a picture after 5 s of silence. */
const SILENCE_MS = 15_000;
/** A stream that is there shows a picture at once; before that the server waits for it. */
const FIRST_MS = 3000;
const OFFLINE = "The server can't be reached. This page goes on by itself when it is back.";
/** What a stream that has come to its end leaves. */
export const NOT_PUBLISHED = "Nobody is publishing at the moment.";

/**
 * Shows `/stream/{name}` in an image. The last picture stays while the stream is away.
 * @param {HTMLImageElement} image
 * @param {string} name
 * @param {(state: ViewState, message: string) => void} [onState]
 * @returns {() => void}  Ends it.
 */
export function viewJpeg(image, name, onState = () => {}) {
  const url = address(`stream/${encodeURIComponent(name)}`);
  const end = new AbortController();
  let shown = "";
  /** @param {Picture} newest */
  const show = ({ picture }) => {
    const old = shown;
    image.src = shown = URL.createObjectURL(picture);
    if (old) URL.revokeObjectURL(old);
    onState("live", "");
  };
  const watch = async () => {
    while (!end.signal.aborted) {
      const message = await readPictures(url, end.signal, show, FIRST_MS);
      if (end.signal.aborted) return;
      onState("away", message);
      await new Promise((done) => setTimeout(done, AGAIN_MS));
    }
  };
  onState("loading", "");
  watch();
  return () => {
    end.abort();
    if (shown) URL.revokeObjectURL(shown);
  };
}

/** @typedef {{picture: Blob, time: number, damaged: boolean}} Picture  With its time in a recording, in ms, and whether that is damaged before it. */

/**
 * Reads one stream to its end.
 * @param {URL} url
 * @param {AbortSignal} signal
 * @param {(newest: Picture) => void} show
 * @param {number} [patience]  For the first picture, in ms.
 * @returns {Promise<string>}  Why there is no more.
 */
export async function readPictures(url, signal, show, patience = SILENCE_MS) {
  const silence = new AbortController();
  const first = setTimeout(() => silence.abort(NOT_PUBLISHED), patience);
  let timer = setTimeout(() => silence.abort(), SILENCE_MS);
  const stop = () => silence.abort();
  signal.addEventListener("abort", stop);
  try {
    const response = await fetch(url, { headers, signal: silence.signal, cache: "no-store" });
    if (!response.ok || !response.body) {
      const body = await response.json().catch(() => null);
      return body?.code === "stream_not_found" ? NOT_PUBLISHED : (body?.message ?? OFFLINE);
    }
    const reader = response.body.getReader();
    const parts = new Parts();
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      clearTimeout(timer);
      timer = setTimeout(stop, SILENCE_MS);
      const newest = parts.add(next.value);
      if (newest) {
        clearTimeout(first);
        show(newest);
      }
      if (parts.error) return JSON.parse(await parts.error.text()).message;
    }
    return parts.closed ? NOT_PUBLISHED : OFFLINE;
  } catch {
    return silence.signal.reason === NOT_PUBLISHED ? NOT_PUBLISHED : OFFLINE;
  } finally {
    clearTimeout(first);
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
  }
}

/** Takes the stream apart, by each part's Content-Length. */
class Parts {
  /** The last part, if it is no picture but the reason why there are no more. @type {Blob | null} */
  error = null;
  #bytes = new Uint8Array(0);

  /** Whether the server head that there are no more. */
  get closed() {
    return new TextDecoder().decode(this.#bytes).endsWith("--frame--\r\n");
  }

  /**
   * @param {Uint8Array} bytes  What came next.
   * @returns {Picture | null}  The newest that is whole by now.
   */
  add(bytes) {
    const all = new Uint8Array(this.#bytes.length + bytes.length);
    all.set(this.#bytes);
    all.set(bytes, this.#bytes.length);
    /** @type {Picture | null} */
    let newest = null;
    let damaged = false;
    let at = 0;
    for (;;) {
      const head = headEnd(all, at);
      if (head < 0) break;
      const text = new TextDecoder().decode(all.subarray(at, head));
      /** @param {RegExp} header */
      const number = (header) => Number(header.exec(text)?.[1] ?? 0);
      const length = number(/content-length: *(\d+)/i);
      if (head + length > all.length) break;
      const part = new Blob([all.subarray(head, head + length)], { type: "image/jpeg" });
      at = head + length;
      if (/content-type: *application\/json/i.test(text)) {
        this.error = part;
        break;
      }
      damaged ||= /onrecord-damaged:/i.test(text);
      newest = { picture: part, time: number(/onrecord-time: *(\d+)/i), damaged };
    }
    this.#bytes = all.slice(at);
    return newest;
  }
}

/**
 * Where the blank line ends that ends a part's head; -1 if it has not come.
 * @param {Uint8Array} bytes
 * @param {number} from
 */
function headEnd(bytes, from) {
  for (let at = from; at + 3 < bytes.length; at += 1) {
    if (bytes[at] === 13 && bytes[at + 1] === 10 && bytes[at + 2] === 13 && bytes[at + 3] === 10) return at + 4;
  }
  return -1;
}
