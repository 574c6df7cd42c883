// What the pages share: elements, formats, the server's API, lists that keep themselves up to date.

import { address, headers, logIn, token } from "./access.js";

/**
 * The element with that id.
 * @template {HTMLElement} T
 * @param {string} id
 * @param {{new (): T}} type
 * @returns {T}
 */
export function byId(id, type) {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`the page has no ${type.name} #${id}`);
  return found;
}

/**
 * Makes an element. Text is always text: names and script output come from strangers.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, unknown>} [properties]  Of the element; `dataset` is merged.
 * @param {(Node | string | null | undefined | false)[]} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function el(tag, { dataset, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  Object.assign(made.dataset, dataset);
  made.append(...children.filter((child) => child instanceof Node || typeof child === "string"));
  return made;
}

/** @param {number} bytes */
export function formatBytes(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit && value < 9.95 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** `1:02`, or `1:00:02` from an hour on. @param {number} ms */
export function formatDuration(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  const pad = (/** @type {number} */ part) => String(part).padStart(2, "0");
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return h ? `${h}:${pad(m)}:${pad(s)}` : `${m}:${pad(s)}`;
}

/** @param {number} bitsPerSecond */
export function formatBitrate(bitsPerSecond) {
  const kbit = bitsPerSecond / 1000;
  return kbit < 1000 ? `${Math.round(kbit)} kbit/s` : `${(kbit / 1000).toFixed(1)} Mbit/s`;
}

const dateFormat = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** @param {string} iso */
export function formatTime(iso) {
  const date = new Date(iso);
  return Number.isNaN(date.getTime()) ? "" : dateFormat.format(date);
}

/** What the server, or the way to it, has against a request. */
export class ApiError extends Error {
  /**
   * @param {string} code  The contract's, or `offline`.
   * @param {string} message
   */
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/**
 * Asks the server's API.
 * @param {string} path  Below `/api/`.
 * @param {string} [method]
 * @returns {Promise<any>}
 */
export async function api(path, method = "GET") {
  let response;
  try {
    response = await fetch(address(`api/${path}`), { method, headers, signal: AbortSignal.timeout(15_000) });
  } catch {
    throw new ApiError("offline", "The server can't be reached. This page goes on by itself when it is back.");
  }
  const body = await response.json().catch(() => null);
  if (response.ok) return body;
  // The log-in has ended, or never was. One that came with the page can't be renewed here.
  if (response.status === 401 && !token) logIn();
  throw new ApiError(body?.code ?? `http_${response.status}`, body?.message ?? `The server answers ${response.status} ${response.statusText}.`);
}

/**
 * Calls `task` now and then every `ms` after it ended, while the page is visible.
 * @param {() => Promise<void>} task
 * @param {number} ms
 * @returns {() => void} Calls it at once.
 */
export function repeat(task, ms) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  let running = false;
  const run = async () => {
    clearTimeout(timer);
    if (running || document.hidden) return;
    running = true;
    await task();
    running = false;
    timer = setTimeout(run, ms);
  };
  document.addEventListener("visibilitychange", run);
  run();
  return run;
}

/**
 * Makes a list show `items`, touching only what changed: focus, open details and selections stay.
 * @template T
 * @param {HTMLElement} list
 * @param {T[]} items
 * @param {(item: T) => string} key
 * @param {(item: T) => HTMLElement} render
 */
export function keyed(list, items, key, render) {
  const keys = new Set(items.map(key));
  /** @type {Map<string, HTMLElement>} */
  const old = new Map();
  for (const child of /** @type {HTMLElement[]} */ ([...list.children])) {
    const id = child.dataset.key ?? "";
    if (keys.has(id)) old.set(id, child);
    else child.remove(); // first, so that nothing that stays has to move around it
  }
  let next = list.firstElementChild;
  for (const item of items) {
    const version = JSON.stringify(item);
    let element = old.get(key(item));
    if (!element || versions.get(element) !== version) {
      const fresh = render(item);
      fresh.dataset.key = key(item);
      versions.set(fresh, version);
      if (element) replace(element, fresh);
      if (element && element === next) next = fresh;
      element = fresh;
    }
    if (element === next) next = next.nextElementSibling;
    else list.insertBefore(element, next);
  }
}

/** What each element of a list shows. @type {WeakMap<HTMLElement, string>} */
const versions = new WeakMap();

/**
 * @param {HTMLElement} old
 * @param {HTMLElement} fresh
 */
function replace(old, fresh) {
  const details = [...fresh.querySelectorAll("details")];
  old.querySelectorAll("details").forEach(({ open }, i) => details[i] && (details[i].open = open));
  const focused = old.contains(document.activeElement) ? /** @type {HTMLElement} */ (document.activeElement).dataset.action : null;
  old.replaceWith(fresh);
  if (focused) /** @type {HTMLElement | null} */ (fresh.querySelector(`[data-action="${focused}"]`))?.focus();
}

/**
 * Shows what is wrong, or that nothing is.
 * @param {HTMLElement} box
 * @param {string | null} title
 * @param {string} [text]
 */
export function showNotice(box, title, text = "") {
  box.hidden = title === null;
  box.replaceChildren(...(title === null ? [] : [el("strong", {}, title), el("span", {}, text)]));
}

/** What is kept across visits. Browsers may refuse; then it isn't. */
export const storage = {
  /** @param {string} key */
  get(key) {
    try {
      return localStorage.getItem(`onrecord.${key}`);
    } catch {
      return null;
    }
  },
  /**
   * @param {string} key
   * @param {string} value
   */
  set(key, value) {
    try {
      localStorage.setItem(`onrecord.${key}`, value);
    } catch {
      // Private windows of some browsers.
    }
  },
};

/**
 * What is wrong with a stream's name, by the server's rules; null if nothing is.
 * @param {string} name
 */
export function nameProblem(name) {
  const bytes = new TextEncoder().encode(name).length;
  if (bytes === 0) return "Give the recording a name.";
  if (bytes > 128) return `A name has at most 128 bytes, this one has ${bytes}.`;
  if (/[/\\]|\p{Cc}/u.test(name)) return "A name has no / and no \\.";
  if (/^[.-]/.test(name)) return `A name doesn't begin with “${name[0]}”.`;
  return null;
}
