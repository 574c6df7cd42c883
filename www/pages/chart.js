// What all streams together bring, over the last minutes: a small SVG without a library.

import { el, formatBitrate } from "./ui.js";

const WINDOW_MS = 5 * 60_000;
/** Without a sample for this long there is a hole, not a line. */
const HOLE_MS = 15_000;
const [WIDTH, HEIGHT] = [600, 100];
const SVG = "http://www.w3.org/2000/svg";

export class Chart {
  /** @type {{at: number, rate: number}[]} */
  #samples = [];
  #area = shape("path", { class: "area" });
  #line = shape("path", { class: "line" });
  #top = el("span", { className: "top-value" });
  #svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });

  #box;

  /** @param {HTMLElement} box  Hidden while there is nothing to show. */
  constructor(box) {
    this.#box = box;
    const grid = [0, 0.5, 1].map((share) => shape("line", { class: "grid", x1: 0, x2: WIDTH, y1: y(share), y2: y(share) }));
    this.#svg.append(...grid, this.#area, this.#line);
    const axis = el("p", { className: "axis small muted tabular" }, el("span", {}, "5 min ago"), el("span", {}, "now"));
    box.replaceChildren(el("div", { className: "plot" }, this.#svg, this.#top), axis);
  }

  /**
   * @param {number} rate  In bits a second.
   * @param {number} [at]
   */
  add(rate, at = performance.now()) {
    this.#samples.push({ at, rate });
    this.#samples = this.#samples.filter((sample) => sample.at > at - WINDOW_MS - HOLE_MS);
    this.#box.hidden = this.#samples.every((sample) => sample.rate === 0);
    if (!this.#box.hidden) this.#draw(at);
  }

  /** @param {number} now */
  #draw(now) {
    const most = nice(Math.max(...this.#samples.map(({ rate }) => rate), 100_000));
    const x = (/** @type {number} */ at) => (WIDTH * (1 - (now - at) / WINDOW_MS)).toFixed(1);
    let [line, area] = ["", ""];
    for (const run of runs(this.#samples)) {
      const points = run.map(({ at, rate }) => `${x(at)},${y(rate / most).toFixed(1)}`);
      line += `M${points.join("L")}`;
      area += `M${x(run[0].at)},${y(0)}L${points.join("L")}L${x(run[run.length - 1].at)},${y(0)}Z`;
    }
    this.#line.setAttribute("d", line);
    this.#area.setAttribute("d", area);
    this.#top.textContent = formatBitrate(most);
    const newest = this.#samples[this.#samples.length - 1]?.rate ?? 0;
    this.#svg.setAttribute("aria-label", `Bitrate of all streams over five minutes; now ${formatBitrate(newest)}`);
  }
}

/** @param {number} share */
const y = (share) => HEIGHT - 2 - share * (HEIGHT - 4);

/**
 * Samples without a hole between them.
 * @param {{at: number, rate: number}[]} samples
 */
function runs(samples) {
  /** @type {{at: number, rate: number}[][]} */
  const found = [];
  for (const sample of samples) {
    const last = found[found.length - 1];
    if (last && sample.at - last[last.length - 1].at < HOLE_MS) last.push(sample);
    else found.push([sample]);
  }
  return found;
}

/** The next 1, 2 or 5 with zeros. @param {number} value */
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((digit) => digit * power).find((step) => step >= value) ?? value;
}

/**
 * @template {keyof SVGElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, string | number>} attributes
 */
function shape(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  return made;
}
