// What the library shows a server that asks who is there.

import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";
import { answers, asked, FakeRecorder, media, settle, sockets } from "./fakes.js";
import { protocolsOf } from "../../www/lib/client/credential.js";
import { createSession } from "../../www/lib/onrecord.js";

globalThis.MediaRecorder = FakeRecorder;

beforeEach(() => {
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout"] });
  sockets.length = asked.length = 0;
  answers.clear();
});

const SESSION = "GET /api/session";
const of = (path) => sockets.filter(({ url }) => url.endsWith(path));

/** A session of this token, and what becomes of it. */
function session(token) {
  const made = createSession({ urlServer: "wss://host", token });
  const heard = [];
  for (const event of ["ESTABLISHED", "FAILED", "DISCONNECTED", "reconnecting"]) made.on(event, () => heard.push(event));
  return { made, heard };
}

test("a token travels as a subprotocol, in letters that one may have", () => {
  assert.deepEqual(protocolsOf("a.b-c_d"), ["onrecord", "bearer.a.b-c_d"]);
  assert.deepEqual(protocolsOf("a/b==(c) é"), ["onrecord", "bearer.a%2Fb%3D%3D%28c%29%20%C3%A9"]);
  assert.deepEqual(protocolsOf(""), []);
});

test("without a token sockets are opened as ever", () => {
  session(undefined);
  assert.equal(sockets[0].protocols, undefined);
});

test("every socket shows the token, the one of chunks too", async () => {
  const { made, heard } = session("secret");
  await settle();
  assert.deepEqual(sockets[0].protocols, ["onrecord", "bearer.secret"]);
  sockets[0].opened();
  assert.deepEqual(heard, ["ESTABLISHED"]);
  const stream = made.createStream({ namePrefix: "t", mode: "chunks", mediaStream: media });
  stream.publish().catch(() => {});
  await settle();
  assert.deepEqual(of("/chunks")[0].protocols, ["onrecord", "bearer.secret"]);
  of("/chunks")[0].opened();
  assert.equal(of("/chunks")[0].sent[0].event, "register");
});

test("a function is asked for a fresh token for each socket", async () => {
  let count = 0;
  const { made } = session(async () => `token-${++count}`);
  made.createStream({ name: "t", mediaStream: media }).publish().catch(() => {});
  await settle();
  assert.equal(sockets.length, 1, "one socket though a stream came while its token was awaited");
  sockets[0].opened();
  await settle();
  sockets[0].lost();
  mock.timers.tick(1000);
  await settle();
  assert.deepEqual(sockets.map(({ protocols }) => protocols[1]), ["bearer.token-1", "bearer.token-2"]);
});

test("a page that has no token fails with its own reason, at the latest after 10 s", async () => {
  const broken = session(() => Promise.reject(new Error("the shop is closed")));
  await settle();
  assert.deepEqual(broken.heard, ["FAILED"]);
  assert.equal(broken.made.getError().code, "unauthorized");
  assert.match(broken.made.getError().message, /the shop is closed/);
  const silent = session(() => new Promise(() => {}));
  await settle();
  mock.timers.tick(10_000);
  await settle();
  assert.deepEqual(silent.heard, ["FAILED"]);
  assert.equal(sockets.length, 0);
});

const refusals = [
  ["a token that is not good", "old", { status: 401, code: "unauthorized", message: "this token has expired" }, "unauthorized", /expired/],
  ["no token at all", undefined, { asked: true, who: null, permissions: [] }, "unauthorized", /createSession/],
  ["a token for something else", "viewer", { asked: true, who: "v", permissions: ["view"] }, "forbidden", /publish/],
];
for (const [what, token, answer, code, words] of refusals) {
  test(`${what} fails in words that say so`, async () => {
    answers.set(SESSION, answer);
    const { made, heard } = session(token);
    await settle();
    sockets[0].lost();
    await settle();
    assert.deepEqual(heard, ["FAILED"]);
    assert.equal(made.getError().code, code);
    assert.match(made.getError().message, words);
    assert.equal(asked.at(-1).authorization, token && `Bearer ${token}`);
  });
}

test("a token that may publish and nothing else publishes over plain HTTP too", async () => {
  answers.set(SESSION, { asked: true, who: "p", permissions: ["publish"] });
  const { heard } = session("secret");
  await settle();
  sockets[0].lost();
  await settle();
  assert.deepEqual(heard, ["ESTABLISHED"]);
});
