// A page in TypeScript: what it can say by the declarations of the library.

import { createSession, OnrecordError, RecordInfo, Session, Stream, STREAM_STATUS } from "../../target/declarations/onrecord.js";
import type { SessionOptions, StreamMode, StreamOptions, StreamStats, StreamStatus } from "../../target/declarations/onrecord.js";

const server: SessionOptions = { urlServer: "wss://host", token: async () => "secret" };
const options: StreamOptions = { name: "interview", mode: "auto", chunkTime: 500 };
const session: Session = createSession(server).on("reconnecting", (_, { attempt }) => attempt.toFixed());
const stream: Stream = session.createStream(options);

for (const status of Object.values(STREAM_STATUS)) stream.on(status, (self) => self.getRecordInfos());
stream
  .on("mode", (self, mode: StreamMode) => [self.name(), mode.reason])
  .on("restarted", (_, { lost_ms, recording }) => [lost_ms.toFixed(), recording?.url])
  .on("warning", (_, error: OnrecordError) => error.code);
// @ts-expect-error there is no such event
stream.on("finished", () => {});

export const status: StreamStatus | null = stream.status();
export const stats: Promise<StreamStats> = stream.stats();
export const recording: Promise<RecordInfo | null> = stream.stop();
