// The choice of camera and microphone: by name, up to date, kept across visits.

import { el, storage } from "./ui.js";

/** @typedef {"camera" | "microphone"} Kind */

/** The value of the entry that leaves one out. */
const NONE = "none";
const KINDS = /** @type {const} */ ({ camera: "videoinput", microphone: "audioinput" });
/** What a camera is asked for; it gives what it has. */
const PICTURE = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };

export class Devices {
  #selects;

  /** @param {Record<Kind, HTMLSelectElement>} selects */
  constructor(selects) {
    this.#selects = selects;
    for (const kind of /** @type {Kind[]} */ (["camera", "microphone"])) {
      selects[kind].addEventListener("change", () => storage.set(kind, selects[kind].value));
    }
  }

  /**
   * Lists what is plugged in. Before the first permission browsers hide names and ids; then there
   * is one entry that stands for whatever the browser gives.
   */
  async refresh() {
    const all = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
    for (const kind of /** @type {Kind[]} */ (["camera", "microphone"])) {
      this.#fill(kind, all.filter((device) => device.kind === KINDS[kind]));
    }
  }

  /**
   * @param {Kind} kind
   * @param {MediaDeviceInfo[]} devices
   */
  #fill(kind, devices) {
    const select = this.#selects[kind];
    const before = select.value || storage.get(kind);
    const named = devices.filter(({ deviceId }) => deviceId !== "");
    const title = `${kind[0].toUpperCase()}${kind.slice(1)}`;
    const entries = named.map(({ deviceId, label }, i) => new Option(label || `${title} ${i + 1}`, deviceId));
    if (devices.length && !named.length) entries.push(new Option(title, ""));
    entries.push(el("option", { value: NONE }, devices.length ? `No ${kind}` : `No ${kind} found`));
    select.replaceChildren(...entries);
    const kept = entries.find(({ value }) => value === before) ?? entries[0];
    kept.selected = true;
  }

  /**
   * What to ask the browser for; null if both are left out.
   * @param {boolean} [silent]  Whether sound is left out in any case.
   * @param {boolean} [exact]  Whether it must be the chosen devices.
   * @returns {MediaStreamConstraints | null}
   */
  constraints(silent = false, exact = true) {
    const { camera, microphone } = this.#selects;
    const video = camera.value !== NONE && { ...this.#device("camera", exact), ...PICTURE };
    const audio = !silent && microphone.value !== NONE && this.#device("microphone", exact);
    return video || audio ? { video, audio } : null;
  }

  /**
   * @param {Kind} kind
   * @param {boolean} exact
   * @returns {MediaTrackConstraints}
   */
  #device(kind, exact) {
    const chosen = this.#selects[kind].value;
    if (chosen && exact) return { deviceId: { exact: chosen } };
    const id = chosen || storage.get(kind);
    return id && id !== NONE ? { deviceId: { ideal: id } } : {};
  }

  /** Shows which devices the browser gave in the end. @param {MediaStream} media */
  settle(media) {
    const tracks = { camera: media.getVideoTracks()[0], microphone: media.getAudioTracks()[0] };
    for (const kind of /** @type {Kind[]} */ (["camera", "microphone"])) {
      const id = tracks[kind]?.getSettings().deviceId;
      const entry = [...this.#selects[kind].options].find(({ value }) => value === id);
      if (entry) entry.selected = true;
    }
  }
}
