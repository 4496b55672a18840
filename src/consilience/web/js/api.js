/* Every request of the page: to its own server and no other, with the key when there is one.

   What goes wrong is a `Problem` with the kind, message and hint that the server gave. */

import { eventsOf } from "./events.js";
import { kept, keep } from "./keeping.js";
import { has, language, t } from "./words.js";

const KEY = "consilience.key";
let askForKey = async () => null;
let reached = () => {};
let lost = () => {};

/** Something that the server refused, or that did not reach it. */
export class Problem extends Error {
  constructor({ kind = "error", message = "", hint = "", explanation = "" }, status = 0) {
    super(message);
    Object.assign(this, { kind, hint, explanation, status });
  }

  /** What this kind of problem means, in the language of the page. */
  get meaning() {
    const key = `kind_${this.kind}`;
    return has(key) ? t(key) : this.explanation || t("kind_error");
  }
}

/** Say whom to ask for a key, and whom to tell when the server answers and when it does not. */
export function listenTo({ key, answers, gone }) {
  [askForKey, reached, lost] = [key, answers, gone];
}

/** Whether a key is kept for this tab. */
export const hasKey = () => kept(KEY, "sessionStorage") !== null;

/** Keep a key for this tab only; null forgets it. */
export const keepKey = (key) => keep(KEY, key, "sessionStorage");

/** An address of the API; the page may be served below any path. */
export function address(path, query = {}) {
  const url = new URL(path, document.baseURI);
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, value);
  }
  return url;
}

/** Headers that say which language is read and who asks. */
export function headers(more = {}) {
  const key = kept(KEY, "sessionStorage");
  const found = { "Accept-Language": language() === "zh" ? "zh-CN, zh" : "en", ...more };
  return key === null ? found : { ...found, Authorization: `Bearer ${key}` };
}

/** A response that is well; everything else is thrown as a `Problem`. */
export async function request(path, { method = "GET", query, json, form, signal, keepalive } = {}) {
  const body = json === undefined ? form : JSON.stringify(json);
  const type = json === undefined ? {} : { "Content-Type": "application/json" };
  for (;;) {
    const used = kept(KEY, "sessionStorage");
    const response = await sent(address(path, query), { method, body, signal, keepalive, headers: headers(type) });
    if (response.ok) return response;
    const problem = await problemOf(response);
    if (problem.status !== 401 || !(await newKey(used))) throw problem;
  }
}

/** The JSON of a response. */
export async function get(path, query = {}, options = {}) {
  return (await request(path, { ...options, query })).json();
}

/** Send JSON or a form, and give back the JSON that comes. */
export async function send(method, path, options = {}) {
  const response = await request(path, { ...options, method });
  return response.status === 204 ? {} : response.json();
}

/** The events that a request is answered with. */
export async function* follow(path, options = {}) {
  yield* eventsOf((await request(path, options)).body);
}

async function sent(url, options) {
  try {
    const response = await fetch(url, options);
    reached();
    return response;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    lost();
    throw new Problem({ kind: "unreachable", message: t("unreachable") });
  }
}

/** A key other than the one that was refused, or false when nobody gives one. */
async function newKey(used) {
  const now = kept(KEY, "sessionStorage");
  if (now !== used) return true;
  const given = await askForKey(used !== null);
  if (given === null) return false;
  keepKey(given);
  return true;
}

/** What a response that is not well says. */
export async function problemOf(response) {
  return problemIn(await response.text(), response.status);
}

/** The same of a text and a status. */
export function problemIn(text, status) {
  try {
    return new Problem(JSON.parse(text).error ?? {}, status);
  } catch {
    return new Problem({ message: t("failed_request", { status }) }, status);
  }
}
