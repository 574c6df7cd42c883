// The transport by MediaRecorder chunks, and the fallbacks that lead to it.

import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";
import { answers, FakeRecorder, media, peers, recorders, settle, sockets } from "./fakes.js";
import { Backlog } from "../../www/lib/client/backlog.js";
import { clampChunkTime } from "../../www/lib/client/chunks.js";
import { createSession } from "../../www/lib/onrecord.js";

const RECORDING = { id: "1", stream: "t-1", file: "t_1.webm", url: "/recordings/t_1.webm", bytes: 10, duration_ms: 2000 };
const EVENTS = ["PENDING", "PUBLISHING", "UNPUBLISHED", "FAILED", "mode", "reconnecting", "reconnected", "restarted", "paused", "resumed", "warning"];

globalThis.MediaRecorder = FakeRecorder; // each test file has a process of its own

beforeEach(() => {
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout"] });
  sockets.length = peers.length = recorders.length = 0;
  answers.clear();
});

const upload = () => sockets.findLast(({ url }) => url.endsWith("/chunks"));
const words = (heard) => heard.map((said) => (Array.isArray(said) ? said[0] : said));

function stream(options) {
  const session = createSession({ urlServer: "wss://host/base" });
  const made = session.createStream({ namePrefix: "t", mode: "chunks", mediaStream: media, ...options });
  const heard = [];
  for (const event of EVENTS) made.on(event, (_, detail) => heard.push(detail ? [event, detail] : event));
  made.publish().catch(() => {});
  return { session, stream: made, heard };
}

/** A stream of which the server has the first five bytes. */
async function recording(options) {
  const all = stream(options);
  await settle();
  upload().opened();
  upload().says({ event: "registered", uid: "secret", name: "t-1", offset: 0 });
  recorders[0].gives("first");
  upload().says({ event: "ack", offset: 5 });
  await settle();
  return all;
}

test("what is held begins where the server's bytes end, in the middle of a blob too", async () => {
  const backlog = new Backlog();
  const texts = async () => {
    const pieces = [];
    for (let piece = backlog.next(); piece; piece = backlog.next()) pieces.push(await piece.text());
    return pieces;
  };
  for (const text of ["abc", "", "defg", "h"]) backlog.push(new Blob([text]), 1);
  assert.deepEqual(await texts(), ["abc", "defg", "h"]);
  assert.ok(backlog.ack(3) && backlog.drained);
  assert.deepEqual([backlog.produced, backlog.acked, backlog.unacked], [8, 3, 5]);
  assert.ok(backlog.rewind(5), "a byte of the second blob was acknowledged by nobody");
  assert.deepEqual(await texts(), ["fg", "h"]);
  assert.ok(!backlog.rewind(2), "what was acknowledged is held no more");
  assert.ok(!backlog.rewind(9), "never recorded");
  assert.ok(!backlog.ack(9) && backlog.ack(8));
  assert.deepEqual([backlog.unacked, backlog.since], [0, null]);
});

test("large blobs go out in pieces", () => {
  const backlog = new Backlog();
  backlog.push(new Blob([new Uint8Array(150_000)]), 1);
  const sizes = [];
  for (let piece = backlog.next(); piece; piece = backlog.next()) sizes.push(piece.size);
  assert.deepEqual(sizes, [65_536, 65_536, 18_928]);
});

test("a chunk has 100 to 10000 ms", () => {
  assert.deepEqual([undefined, NaN, 0, 1, 99, 500, 1e9].map(clampChunkTime), [1000, 1000, 1000, 100, 100, 500, 10_000]);
});

test("chunks are registered with their prefix, started, sent, stopped with their size, and sealed", async () => {
  const { stream, heard } = await recording({ chunkTime: 500 });
  assert.equal(recorders[0].timeslice, 500);
  assert.equal(upload().url, "wss://host/base/chunks");
  const [register, start] = upload().sent;
  assert.deepEqual(register, { event: "register", name_prefix: "t", mime: "audio/webm;codecs=opus" });
  assert.deepEqual(start, { event: "START_REC_BLOB" });
  assert.equal(stream.name(), "t-1");
  const stopped = stream.stop();
  await settle();
  assert.deepEqual(upload().sent.at(-1), { event: "STOP_REC_BLOB", bytes: 10 });
  assert.equal(await upload().bytes(), "firsttail!");
  assert.equal(stream.unsentBytes, 5);
  upload().says({ event: "ack", offset: 10 });
  upload().says({ event: "stopped", recording: RECORDING, reason: "stopped" });
  assert.equal(`${await stopped}`, "t_1.webm");
  assert.deepEqual(words(heard), ["PENDING", "mode", "PUBLISHING", "UNPUBLISHED"]);
});

test("a file that the disk refuses to finish is waited for, with a word why", async () => {
  const { stream, heard } = await recording();
  const stopped = stream.stop();
  await settle();
  upload().says({ event: "sealing", message: "Input/output error" });
  mock.timers.tick(100_000);
  const [word, { code, message }] = heard.at(-1);
  assert.deepEqual([word, code], ["warning", "sealing"]);
  assert.match(message, /Input\/output error/);
  upload().says({ event: "stopped", recording: RECORDING, reason: "stopped" });
  assert.equal(`${await stopped}`, "t_1.webm");
});

test("after a lost socket the bytes go on where the server is", async () => {
  const { heard } = await recording();
  recorders[0].gives("second");
  upload().lost();
  recorders[0].gives("third");
  mock.timers.tick(1000);
  upload().opened();
  assert.equal(upload().sent[0].uid, "secret");
  upload().says({ event: "registered", uid: "secret", name: "t-1", offset: 8 });
  assert.equal(await upload().bytes(), "ondthird");
  assert.ok(!upload().sent.some(({ event }) => event === "START_REC_BLOB"));
  assert.deepEqual(words(heard).slice(-2), ["reconnecting", "reconnected"]);
});

test("a socket on which nothing is acknowledged any more is replaced", async () => {
  await recording();
  const dead = upload();
  recorders[0].gives("second");
  mock.timers.tick(20_000);
  assert.equal(dead.readyState, 3);
  mock.timers.tick(1000);
  assert.notEqual(upload(), dead);
  upload().opened();
  upload().says({ event: "registered", uid: "secret", name: "t-1", offset: 5 });
  assert.equal(await upload().bytes(), "second");
});

test("a silence in which nothing is owed is none", async () => {
  await recording();
  mock.timers.tick(60_000);
  assert.equal(sockets.filter(({ url }) => url.endsWith("/chunks")).length, 1);
});

test("a stop said before a new recording is registered waits for it", async () => {
  const { stream } = await recording();
  upload().says({ event: "error", code: "resume_expired", message: "over" });
  recorders.at(-1).gives("anew");
  stream.stop();
  await settle();
  mock.timers.tick(1000);
  upload().opened();
  upload().says({ event: "registered", uid: "other", name: "t-1", offset: 0 });
  assert.equal(await upload().bytes(), "anewtail!");
  assert.deepEqual(upload().sent.at(-1), { event: "STOP_REC_BLOB", bytes: 9 });
});

test("a stop said while the socket is away is said with everything before it", async () => {
  const { stream } = await recording();
  upload().lost();
  recorders[0].gives("second");
  stream.stop();
  await settle();
  mock.timers.tick(1000);
  upload().opened();
  upload().says({ event: "registered", uid: "secret", name: "t-1", offset: 5 });
  assert.equal(await upload().bytes(), "secondtail!");
  assert.deepEqual(upload().sent.at(-1), { event: "STOP_REC_BLOB", bytes: 16 });
});

for (const [says, reason] of [
  [{ event: "error", code: "resume_expired", message: "over" }, "server_crashed"],
  [{ event: "stopped", recording: RECORDING, reason: "server_stopped" }, "server_stopped"],
]) {
  test(`after ${reason} a new recording begins by itself`, async () => {
      const { stream, heard } = await recording();
    recorders[0].gives("lost");
    upload().says(says);
    await settle();
    mock.timers.tick(1000);
    upload().opened();
    const register = upload().sent[0];
    assert.deepEqual([register.uid, register.resume, register.name], [undefined, undefined, "t-1"]);
    upload().says({ event: "registered", uid: "other", name: "t-1", offset: 0 });
    recorders.at(-1).gives("anew");
    assert.equal(await upload().bytes(), "anew", "bytes of the old recording in the new one");
    upload().says({ event: "ack", offset: 4 });
    const [event, detail] = heard.at(-1);
    assert.deepEqual([event, detail.reason, stream.status()], ["restarted", reason, "PUBLISHING"]);
  });
}

test("other media get a MediaRecorder of their own and the same upload", async () => {
  const { stream } = await recording();
  const other = { ...media };
  stream.replaceMedia(other);
  await settle();
  assert.deepEqual([recorders.length, recorders[1].stream], [2, other]);
  recorders[1].gives("other");
  assert.equal(await upload().bytes(), "firsttail!other", "the last blob of the old one comes first");
  assert.equal(sockets.filter(({ url }) => url.endsWith("/chunks")).length, 1);
});

test("recording waits when too much is held, and says what that cost", async () => {
  const { heard } = await recording({ maxHeldBytes: 100 });
  recorders[0].gives("x".repeat(101));
  await settle();
  assert.equal(recorders[0].state, "inactive");
  assert.equal(words(heard).at(-1), "paused");
  upload().says({ event: "ack", offset: 111 });
  await settle();
  assert.deepEqual([words(heard).at(-1), recorders.length, recorders[1].state], ["resumed", 2, "recording"]);
});

test("bytes that are no recording end it with what came before", async () => {
  const { stream, heard } = await recording();
  upload().says({ event: "error", code: "bad_blob", message: "rubbish" });
  assert.equal(stream.status(), "PUBLISHING");
  upload().says({ event: "stopped", recording: RECORDING, reason: "bad_media" });
  await settle();
  assert.deepEqual([stream.status(), stream.getEndReason(), `${stream.getRecordInfo()}`], ["UNPUBLISHED", "bad_media", "t_1.webm"]);
  assert.equal(heard.at(-2)[1].code, "bad_blob");
});

test("without a path for WebRTC, auto goes on by chunks, with the same secret and the same camera", async () => {
  const { stream: made, heard } = stream({ name: "t", mode: "auto" });
  sockets[0].opened();
  await settle();
  sockets[0].says({ type: "answer", stream: "t", sdp: "answer", resume: "secret", ice_servers: [] });
  mock.timers.tick(5000);
  await settle();
  assert.deepEqual([made.mode().mode, peers[0].connectionState], ["chunks", "closed"]);
  assert.match(made.mode().reason, /UDP is blocked/);
  upload().opened();
  assert.deepEqual([upload().sent[0].resume, upload().sent[0].name], ["secret", "t"]);
  assert.equal(recorders[0].stream, media);
  sockets[0].says({ type: "status", stream: "t", status: "FAILED", code: "no_media", message: "late" });
  upload().says({ event: "registered", uid: "secret", name: "t", offset: 0 });
  recorders[0].gives("first");
  upload().says({ event: "ack", offset: 5 });
  sockets[0].lost();
  mock.timers.tick(60_000);
  assert.deepEqual(words(heard), ["PENDING", "mode", "mode", "PUBLISHING"]);
});

test("a browser that may not use UDP at all is waited for only if the server takes TCP", async () => {
  const udp = "a=candidate:1 1 udp 2130706431 192.0.2.1 8189 typ host\r\n";
  const tcp = "a=candidate:2 1 tcp 2124414975 192.0.2.1 8189 typ host tcptype passive\r\n";
  for (const [sdp, mode] of [[udp, "chunks"], [udp + tcp, "webrtc"]]) {
    const { stream: made } = stream({ name: "t", mode: "auto" });
    const [socket, peer] = [sockets.at(-1), () => peers.at(-1)];
    socket.opened();
    await settle();
    peer().found("candidate:3 1 tcp 1518280447 192.0.2.9 9 typ host tcptype active");
    peer().found(null);
    socket.says({ type: "answer", stream: "t", sdp, resume: "secret" });
    await settle();
    assert.equal(made.mode().mode, mode, sdp);
    mock.timers.tick(5000);
    await settle();
    assert.equal(made.mode().mode, "chunks", "the connection doesn't come about either");
  }
});

test("relays that the answer names are tried before the next way, if nothing else has connected", async () => {
  for (const [urls, connected, restarts] of [["turn:192.0.2.1", false, 1], ["turn:192.0.2.1", true, 0], ["stun:192.0.2.1", false, 0]]) {
    const { stream: made } = stream({ name: "t", mode: "auto" });
    sockets.at(-1).opened();
    await settle();
    sockets.at(-1).says({ type: "answer", stream: "t", sdp: "answer", resume: "secret", ice_servers: [{ urls, username: "u", credential: "c" }] });
    await settle();
    if (connected) peers.at(-1).is("connected");
    mock.timers.tick(2500);
    await settle();
    assert.deepEqual([made.mode().mode, peers.at(-1).restarts], ["webrtc", restarts], urls);
    assert.equal(peers.at(-1).configuration.iceServers[0].urls, urls);
  }
});

test("what another way wouldn't change isn't tried another way", async () => {
  for (const code of ["stream_busy", "disk_full", "unauthorized", "origin_denied"]) {
    const { stream: made } = stream({ name: code, mode: "auto" });
    sockets.at(-1).opened();
    await settle();
    sockets.at(-1).says({ type: "error", stream: code, code, message: "no" });
    assert.deepEqual([made.status(), made.getError().code, made.getError().message], ["FAILED", code, "no"]);
  }
  assert.equal(recorders.length, 0);
});

test("where sockets are refused the session is established by HTTP and WHIP is tried", async () => {
  answers.set("GET /base/api/session", { asked: false });
  const { session, stream: made } = stream({ name: "t", mode: "auto" });
  await settle();
  sockets[0].lost();
  await settle();
  assert.deepEqual([session.status(), made.mode().mode], ["ESTABLISHED", "whip"]);
  assert.match(made.mode().reason, /refuses WebSockets/);
});

test("a way that was asked for is the only one", async () => {
  const { stream: made } = stream({ mode: "chunks" });
  await settle();
  mock.timers.tick(15_000);
  assert.deepEqual([made.status(), made.getError().code, peers.length], ["FAILED", "unreachable", 0]);
});
