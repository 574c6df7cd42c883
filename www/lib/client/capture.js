// Camera and microphone: asking for them, showing them, giving them back.

import { OnrecordError } from "./model.js";

/** @typedef {import("./model.js").StreamOptions} StreamOptions */

/** Why browsers hide the camera from a page, and the three ways out. */
export const INSECURE =
  "Browsers give camera and microphone only to secure pages. Open this page as http://localhost on " +
  "the server's own machine, or give the server a TLS certificate and use https://, or put a proxy " +
  "that speaks https:// in front of it.";

/** By `DOMException.name`: a code of ours, and what to do. @type {Record<string, [string, string]>} */
const REASONS = {
  NotAllowedError: [
    "not_allowed",
    "The browser doesn't let this page use the camera or microphone. Click the icon beside the " +
      "address, allow both, and start again. If they are allowed there, look into the privacy " +
      "settings of the operating system.",
  ],
  NotFoundError: [
    "no_device",
    "There is no such camera or microphone. Plug one in, or record without it.",
  ],
  NotReadableError: [
    "device_busy",
    "The camera or microphone is used by another program, or doesn't answer. Close that program " +
      "(or plug the device in again) and start again.",
  ],
  OverconstrainedError: [
    "overconstrained",
    "The chosen device is gone, or can't give the wanted picture. Choose another device, or ask " +
      "for a smaller size.",
  ],
};
REASONS.SecurityError = REASONS.NotAllowedError;
REASONS.AbortError = REASONS.NotReadableError;
REASONS.DevicesNotFoundError = REASONS.NotFoundError;

/**
 * Media kept by `cacheLocalResources`, by the element that shows it, with the constraints it was
 * asked with.
 * @type {WeakMap<HTMLElement, {media: MediaStream, key: string}>}
 */
const kept = new WeakMap();

/**
 * What `getUserMedia` is asked for.
 * @param {StreamOptions} options
 * @returns {MediaStreamConstraints}
 */
export function constraintsOf({ constraints = { audio: true, video: true }, width, height, frameRate }) {
  if (!constraints.video) return constraints;
  const wanted = Object.entries({ width, height, frameRate }).filter(([, value]) => value);
  const video = Object.fromEntries(wanted.map(([key, value]) => [key, { ideal: value }]));
  return { ...constraints, video: { ...video, ...(constraints.video === true ? {} : constraints.video) } };
}

/**
 * Gets the media of a stream: its own, what is kept for its display, or the devices'.
 * @param {StreamOptions} options
 * @returns {Promise<MediaStream>}
 */
export async function captureMedia(options) {
  if (options.mediaStream) return options.mediaStream;
  const constraints = constraintsOf(options);
  const key = JSON.stringify(constraints);
  const cached = options.display && kept.get(options.display);
  if (cached && cached.key === key && cached.media.getTracks().every((t) => t.readyState === "live")) {
    return cached.media;
  }
  if (options.display) releaseLocalMedia(options.display);
  if (!navigator.mediaDevices) throw new OnrecordError("insecure_context", INSECURE);
  try {
    const media = await navigator.mediaDevices.getUserMedia(constraints);
    if (options.display && options.cacheLocalResources) kept.set(options.display, { media, key });
    return media;
  } catch (error) {
    const { name, message } = /** @type {DOMException} */ (error);
    const [code, advice] = REASONS[name] ?? ["capture_failed", `The browser gave no media: ${message}.`];
    throw new OnrecordError(code, advice);
  }
}

/**
 * Shows media in an element and returns the video, or null if there is nowhere to show it.
 * @param {HTMLElement | null | undefined} display
 * @param {MediaStream} media
 */
export function showMedia(display, media) {
  if (!display) return null;
  const video = display instanceof HTMLVideoElement ? display : videoIn(display);
  video.muted = true; // or the microphone howls
  video.autoplay = true;
  video.playsInline = true; // or iPhones open it full screen
  video.srcObject = media;
  video.play().catch(() => {}); // a page that hides it may stop it
  return video;
}

/** @param {HTMLElement} element */
function videoIn(element) {
  const found = element.querySelector("video");
  if (found) return found;
  const video = document.createElement("video");
  // Through the object model, which a strict style policy of the page allows.
  Object.assign(video.style, { width: "100%", height: "100%", objectFit: "contain" });
  return element.appendChild(video);
}

/**
 * Gives a stream's media back at its end, unless they are kept or the page's own.
 * @param {StreamOptions} options
 * @param {MediaStream | null} media
 */
export function release({ display, mediaStream }, media) {
  if (!media || media === mediaStream || (display && kept.get(display)?.media === media)) return;
  for (const track of media.getTracks()) track.stop();
  const video = display instanceof HTMLVideoElement ? display : display?.querySelector("video");
  if (video?.srcObject === media) video.srcObject = null;
}

/**
 * Switches off what `cacheLocalResources` kept for an element.
 * @param {HTMLElement} display
 */
export function releaseLocalMedia(display) {
  const media = kept.get(display)?.media ?? null;
  kept.delete(display);
  release({ name: "", display }, media);
}
