// A recording of JPEG pictures, which no browser plays: the server sends them at their times, as it does live.

import { NOT_PUBLISHED, readPictures } from "./jpeg-view.js";
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
/** @typedef {(title: string | null, problem?: string) => void} Report  `null` takes it back. */
/** @type {Report} */
let report = () => {};

/**
 * Plays a recording from its beginning.
 * @param {{url: string, duration_ms: number}} recording
 * @param {Report} problem
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
  report(null);
  const url = new URL(address, location.href);
  url.pathname += "/pictures";
  url.searchParams.set("from", String(from));
  let any = false;
  const reason = await readPictures(url, mine.signal, ({ picture, time, damaged }) => {
    if (playing !== mine) return;
    any = true;
    const old = shown;
    image.src = shown = URL.createObjectURL(picture);
    URL.revokeObjectURL(old);
    move(time);
    if (damaged) report("Some of it is missing.", `The file is damaged before ${formatDuration(time)}.`);
  });
  if (playing !== mine) return;
  playing = null;
  if (reason === NOT_PUBLISHED && (any || from > 0)) move(length);
  else report(any ? "It can't be played any further." : "It can't be played.", reason);
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
