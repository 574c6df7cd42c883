// What the watch page makes of the clusters that come.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Joiner } from "../../www/pages/clusters.js";

/** @param {number[]} id @param {number[]} body */
const element = (id, body) => [...id, 0x40 | (body.length >> 8), body.length & 0xff, ...body];
/** @param {number} ms */
const two = (ms) => [ms >> 8, ms & 0xff];
/** @param {number} ms */
const sound = (ms) => element([0xa3], [0x81, ...two(ms), 0x80, 1]);
/** @param {number} ms @param {boolean} [keyframe] */
const picture = (ms, keyframe = false) =>
  element([0xa0], [...element([0xa1], [0x82, ...two(ms), 0, 2]), ...element([0x9b], [33]), ...(keyframe ? [] : element([0xfb], [0xff]))]);
/** @param {number} start @param {number[][]} blocks */
const cluster = (start, ...blocks) => {
  const timestamp = [0xe7, 0x88, 0, 0, 0, 0, 0, start >> 16, (start >> 8) & 0xff, start & 0xff];
  return new Uint8Array(element([0x1f, 0x43, 0xb6, 0x75], [...timestamp, ...blocks.flat()]));
};

/** @param {Joiner} joiner @param {Uint8Array} bytes */
const joined = (joiner, bytes) => {
  const given = joiner.join(/** @type {ArrayBuffer} */ (bytes.slice().buffer));
  return [...(given instanceof Uint8Array ? given : new Uint8Array(/** @type {ArrayBuffer} */ (given)))];
};

/** A cluster as it was, but for its size, which is unknown. @param {Uint8Array} bytes */
const open = (bytes) => [...bytes.slice(0, 4), 0x7f, 0xff, ...bytes.slice(6)];

test("a keyframe opens a cluster, and what refers to it goes on in it", () => {
  const joiner = new Joiner();
  const first = cluster(70_000, picture(0, true), sound(5), picture(33));
  assert.deepEqual(joined(joiner, first), open(first));
  assert.deepEqual(joined(joiner, cluster(70_100, sound(2), picture(4))), [...sound(102), ...picture(104)]);
  assert.deepEqual(joined(joiner, cluster(70_300, picture(0), sound(1))), [...picture(300), ...sound(301)]);
  const next = cluster(74_000, picture(0, true));
  assert.deepEqual(joined(joiner, next), open(next));
  assert.deepEqual(joined(joiner, cluster(74_050, picture(0))), picture(50));
});

test("a cluster ends where a block's time would no longer fit", () => {
  const joiner = new Joiner();
  joined(joiner, cluster(1000, sound(0)));
  assert.deepEqual(joined(joiner, cluster(32_000, sound(100))), sound(31_100));
  const late = cluster(33_000, sound(0));
  assert.deepEqual(joined(joiner, late), open(late));
});

test("what follows nothing opens a cluster, and an init segment is left alone", () => {
  const joiner = new Joiner();
  joined(joiner, cluster(0, picture(0, true)));
  joiner.reset();
  const init = new Uint8Array([0x1a, 0x45, 0xdf, 0xa3, 0x80, 0x18, 0x53, 0x80, 0x67, 0x01, ...Array(7).fill(0xff)]);
  assert.deepEqual(joined(joiner, init), [...init]);
  const anywhere = cluster(500, sound(0));
  assert.deepEqual(joined(joiner, anywhere), open(anywhere));
});
