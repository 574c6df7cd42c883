// How the watch page stays at the live edge, on a video that the test plays.

import assert from "node:assert/strict";
import { mock, test } from "node:test";

/** @type {Record<string, unknown>} */
const page = globalThis;
page.HTMLMediaElement = { HAVE_CURRENT_DATA: 2 };
page.MediaSource = class extends EventTarget {
  readyState = "open";
  addSourceBuffer = () => Object.assign(new EventTarget(), { updating: false, appendBuffer() {} });
};
/** @type {EventTarget[]} */
const sources = [];
URL.createObjectURL = (source) => `blob:${sources.push(/** @type {any} */ (source))}`;
const { Player } = await import("../../www/pages/player.js");

/** Plays at its rate what is buffered; a seek takes it some time. */
class FakeVideo extends EventTarget {
  /** @type {number[]} */
  jumps = [];
  seeking = false;
  playbackRate = 1;
  paused = false;
  videoWidth = 0;
  end = 1;
  #at = 0;

  /** @param {number} seekMs */
  constructor(seekMs) {
    super();
    this.seekMs = seekMs;
  }

  get buffered() {
    return { length: 1, start: () => 0, end: () => this.end };
  }

  get currentTime() {
    return this.#at;
  }

  set currentTime(at) {
    this.jumps.push(at - this.#at);
    this.#at = at;
    this.seeking = true;
    setTimeout(() => {
      this.seeking = false;
      this.dispatchEvent(new Event("seeked"));
    }, this.seekMs);
  }

  /** @param {number} ms */
  play(ms) {
    if (!this.seeking) this.#at = Math.min(this.#at + (ms / 1000) * this.playbackRate, this.end);
  }
}

/**
 * Watches a stream for so many seconds, of which so many were there at once.
 * @param {number} seekMs
 * @param {number} behind
 */
function watch(seekMs, behind, seconds = 25) {
  let now = 1000;
  mock.method(performance, "now", () => now);
  mock.timers.enable({ apis: ["setInterval", "setTimeout"] });
  const video = new FakeVideo(seekMs);
  const player = new Player(/** @type {any} */ (video), /** @type {any} */ ({}), assert.fail);
  player.begin("video/webm");
  sources.at(-1)?.dispatchEvent(new Event("sourceopen"));
  video.end = behind;
  for (let ms = 0; ms < seconds * 1000; ms += 50) {
    if (ms % 100 === 0) {
      video.end += 0.1;
      player.append(Uint8Array.of(0x1a, 0x45, 0xdf, 0xa3, 0x80).buffer);
    }
    video.play(50);
    now += 50;
    mock.timers.tick(50);
  }
  mock.timers.reset();
  mock.restoreAll();
  return { jumps: video.jumps, delay: player.delay };
}

test("a page that is behind jumps to the live edge, once", () => {
  const { jumps, delay } = watch(50, 5);
  assert.equal(jumps.length, 1, String(jumps));
  assert.ok(jumps[0] > 4 && delay < 0.7, `${jumps}, then ${delay} s behind`);
});

test("a jump that took long isn't followed by another, but caught up with", () => {
  const { jumps, delay } = watch(2500, 5);
  assert.equal(jumps.length, 1, String(jumps));
  assert.ok(delay < 1, `${delay} s behind`);
});
