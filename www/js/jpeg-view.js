// A JPEG stream in an <img>, which comes back by itself.

import { api } from "./ui.js";

/** `loading` before the first picture, `live`, `away` while nobody publishes or the server is silent. */
/** @typedef {"loading" | "live" | "away"} ViewState */

const LOOK_MS = 1000;

/**
 * Shows `/stream/{name}` in an image. The last picture stays while the stream is away.
 * @param {HTMLImageElement} image
 * @param {string} name
 * @param {(state: ViewState, message: string) => void} [tell]
 * @returns {() => void}  Ends it.
 */
export function viewJpeg(image, name, tell = () => {}) {
  const stream = new URL(`../stream/${encodeURIComponent(name)}`, import.meta.url).href;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  let ended = false;
  /** Which stream the image shows, by its start. */
  let shown = "";

  /** Browsers don't tell that a stream of pictures has ended, so the server is asked. */
  async function look() {
    try {
      /** @type {{stream: string, via: string, started_at: string}[]} */
      const streams = await api("streams");
      if (ended) return;
      const live = streams.find((one) => one.stream === name && one.via === "mjpeg");
      if (!live) tell("away", "Nobody is publishing at the moment.");
      else if (shown !== live.started_at) image.src = `${stream}?${live.started_at}`; // another address: no old picture
      shown = live?.started_at ?? "";
    } catch (error) {
      shown = "";
      tell("away", error instanceof Error ? error.message : String(error));
    }
    if (!ended) timer = setTimeout(look, LOOK_MS);
  }

  image.onload = () => tell("live", "");
  image.onerror = () => {
    shown = "";
  };
  tell("loading", "");
  look();
  return () => {
    ended = true;
    clearTimeout(timer);
    image.onload = image.onerror = null;
    image.removeAttribute("src"); // which ends the request
  };
}
