// A recording of JPEG pictures, which no browser plays: the server sends them at their times, as it does live.

import { readPictures } from "./jpeg-view.js";
import { byId, formatDuration } from "./ui.js";

const box = byId("pictures", HTMLElement);
const image = byId("picture", HTMLImageElement);
const button = byId("picture-play", HTMLButtonElement);
const slider = byId("picture-time", HTMLInputElement);
const clock = byId("picture-clock", HTMLElement);

let shown = "";
/** The newest picture's time, and the whole length, in ms. */
let [position, length] = [0, 0];
let address = "";
/** Ends what plays. @type {AbortController | null} */
let playing = null;
/** @type {(problem: string) => void} */
let report = () => {};

/**
 * Plays a recording from its beginning.
 * @param {{url: string, duration_ms: number}} recording
 * @param {(problem: string) => void} problem
 */
export function playPictures({ url, duration_ms }, problem) {
  stopPictures();
  [address, length, report] = [url, duration_ms, problem];
  slider.max = String(duration_ms);
  box.hidden = false;
  play(0);
}

/** Ends it. */
export function stopPictures() {
  pause();
  box.hidden = true;
  image.removeAttribute("src");
  URL.revokeObjectURL(shown);
  shown = "";
}

function pause() {
  playing?.abort();
  playing = null;
  draw();
}

/** @param {number} from */
async function play(from) {
  playing?.abort();
  const mine = (playing = new AbortController());
  move(from);
  const url = new URL(address, location.href);
  url.pathname += "/pictures";
  url.searchParams.set("from", String(from));
  let any = false;
  const said = await readPictures(url, mine.signal, ({ picture, time }) => {
    if (playing !== mine) return;
    any = true;
    const old = shown;
    image.src = shown = URL.createObjectURL(picture);
    URL.revokeObjectURL(old);
    move(time);
  });
  if (playing !== mine) return;
  playing = null;
  if (any || from > 0) move(length);
  else report(said);
  draw();
}

/** @param {number} time */
function move(time) {
  position = time;
  draw();
}

function draw() {
  slider.value = String(position);
  slider.setAttribute("aria-valuetext", formatDuration(position));
  clock.textContent = `${formatDuration(position)} / ${formatDuration(length)}`;
  button.textContent = playing ? "Pause" : "Play";
}

button.addEventListener("click", () => {
  if (playing) pause();
  else play(position >= length ? 0 : position);
});
slider.addEventListener("input", () => {
  playing?.abort();
  playing = null;
  move(Number(slider.value));
});
slider.addEventListener("change", () => play(Number(slider.value)));
