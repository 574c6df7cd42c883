// The small parts of the library and the pages, each by itself.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { settle, sockets } from "./fakes.js";
import { constraintsOf } from "../../www/lib/client/capture.js";
import { Emitter } from "../../www/lib/client/emitter.js";
import { OnrecordError, backoff, RecordInfo, SESSION_STATUS, STREAM_STATUS } from "../../www/lib/client/model.js";
import { preferred } from "../../www/lib/client/peer.js";
import { signalUrl } from "../../www/lib/client/session.js";
import { formatBitrate, formatBytes, formatDuration, nameProblem } from "../../www/pages/ui.js";

test("a server may be named in every usual way", () => {
  const library = "https://host/base/js/client/session.js";
  for (const [given, expected] of [
    ["wss://host", "wss://host/signal"],
    ["wss://host:8443/", "wss://host:8443/signal"],
    ["ws://host/signal", "ws://host/signal"],
    ["https://host", "wss://host/signal"],
    ["http://host:8080/base/", "ws://host:8080/base/signal"],
    ["https://host/signal?x#y", "wss://host/signal"],
    [undefined, "wss://host/base/signal"],
  ]) {
    assert.equal(signalUrl(given, library), expected, String(given));
  }
});

test("pauses grow from half a second to eight and are spread", () => {
  assert.deepEqual([0, 1, 2, 3, 4, 5, 99].map((n) => backoff(n, () => 0.5)), [500, 1000, 2000, 4000, 8000, 8000, 8000]);
  assert.deepEqual([backoff(0, () => 0), backoff(0, () => 1)], [375, 625]);
});

test("preferred codecs come first and none is lost", () => {
  const codecs = ["video/H264", "video/rtx", "video/VP8", "video/red"].map((mimeType) => ({ mimeType }));
  const names = preferred(codecs, ["video/VP8", "video/red"]).map(({ mimeType }) => mimeType);
  assert.deepEqual(names, ["video/VP8", "video/red", "video/H264", "video/rtx"]);
});

test("a recording reads as its file's name and is plain data otherwise", () => {
  const fields = { id: "1", stream: "s", file: "s.webm", url: "/recordings/s.webm", bytes: 1, duration_ms: 2 };
  const info = new RecordInfo(fields, "http://host:8080/signal");
  assert.equal("UNPUBLISHED " + info, "UNPUBLISHED s.webm");
  assert.deepEqual(JSON.parse(JSON.stringify(info)), { ...fields, url: "http://host:8080/recordings/s.webm" });
});

test("sizes are wishes added to what the page asks of the camera", () => {
  assert.deepEqual(constraintsOf({ name: "s" }), { audio: true, video: {} });
  assert.deepEqual(constraintsOf({ name: "s", width: 640, constraints: { audio: false, video: { deviceId: "x" } } }), {
    audio: false,
    video: { width: { ideal: 640 }, deviceId: "x" },
  });
  assert.deepEqual(constraintsOf({ name: "s", width: 640, constraints: { audio: true } }), { audio: true });
});

class Traffic extends Emitter {
  turn(status) {
    this.enter(status);
  }
}

test("a handler registered after the fact is called too, once, and later", async () => {
  const light = new Traffic();
  light.turn("GREEN");
  const heard = [];
  assert.equal(light.on("GREEN", (self) => heard.push(self)), light);
  light.on("RED", () => heard.push("red"));
  assert.deepEqual(heard, []);
  await settle();
  assert.deepEqual(heard, [light]);
});

test("a handler that throws stops no other", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] }); // where the error surfaces
  const light = new Traffic();
  const heard = [];
  light.on("GREEN", () => {
    throw new Error("the page's");
  });
  light.on("GREEN", () => heard.push("second"));
  light.turn("GREEN");
  assert.deepEqual(heard, ["second"]);
  assert.throws(() => t.mock.timers.runAll(), /the page's/);
});

test("errors can be told apart and read", () => {
  const error = new OnrecordError("no_device", "Plug one in.");
  assert.ok(error instanceof Error);
  assert.deepEqual([error.code, error.message], ["no_device", "Plug one in."]);
});

test("the module puts nothing into the page's global scope", async () => {
  const before = Object.keys(globalThis);
  const library = await import("../../www/lib/onrecord.js");
  assert.equal(typeof library.createSession, "function");
  assert.deepEqual(Object.keys(globalThis), before);
});

test("the classic script has the library's words and passes handlers on to its session", { timeout: 10_000 }, async () => {
  const source = new URL("../../www/lib/onrecord.classic.js", import.meta.url);
  new Function("document", readFileSync(source, "utf8"))({ currentScript: { src: source.href } });
  const { Onrecord } = globalThis;
  assert.deepEqual(Onrecord.constants, { SESSION_STATUS: { ...SESSION_STATUS }, STREAM_STATUS: { ...STREAM_STATUS } });
  const established = new Promise((resolve) => {
    Onrecord.init();
    Onrecord.createSession({ urlServer: "wss://classic" })
      .on(Onrecord.constants.SESSION_STATUS.ESTABLISHED, resolve)
      .on(Onrecord.constants.SESSION_STATUS.FAILED, assert.fail);
  });
  while (!sockets.some(({ url }) => url.includes("classic"))) await new Promise(setImmediate); // the import
  sockets.find(({ url }) => url.includes("classic")).opened();
  const session = await established;
  assert.equal(session.createStream({ name: "s" }).name(), "s");
});

test("sizes, lengths and rates read well", () => {
  assert.deepEqual([0, 999, 1000, 11824013, 999_600, 5e12].map(formatBytes), ["0 B", "999 B", "1.0 kB", "12 MB", "1.0 MB", "5.0 TB"]);
  assert.deepEqual([0, 499, 62360, 3_602_000].map(formatDuration), ["0:00", "0:00", "1:02", "1:00:02"]);
  assert.deepEqual([64_000, 1_540_000].map(formatBitrate), ["64 kbit/s", "1.5 Mbit/s"]);
});

test("the page refuses the names that the server refuses", () => {
  for (const bad of ["", "../../etc/passwd", "a/b", "a\\b", ".hidden", "-rf", "a\nb", "x".repeat(129), "я".repeat(65)]) {
    assert.ok(nameProblem(bad), `${JSON.stringify(bad)} was taken`);
  }
  for (const good of ["interview 7", "$HOME \"x\" 'y'", "собеседование", "a..b", "x".repeat(128)]) {
    assert.equal(nameProblem(good), null);
  }
});
