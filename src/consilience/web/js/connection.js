/* Whether the server answers: a notice when it does not, and when it does again.

   Asks for its health with longer and longer pauses, and at once when told to. */

import { get } from "./api.js";
import { button, fill, make } from "./making.js";
import { say, t } from "./words.js";

const notice = document.getElementById("notice");
const PAUSES = [2000, 4000, 8000, 15000, 30000];
let timer = null;
let tries = 0;
let back = () => {};

/** Say what to do when the server answers again. */
export function onReturn(listener) {
  back = listener;
}

/** The server did not answer. */
export function gone() {
  if (!notice.hidden && notice.dataset.kind === "gone") return;
  const retry = say(button("plain", tryNow), "retry");
  show("gone", say(make("strong"), "unreachable"), say(make("span"), "unreachable_more"), retry);
  tries = 0;
  later();
}

/** The server answered something. */
export function answers() {
  if (notice.dataset.kind !== "gone") return;
  clearTimeout(timer);
  hide();
  tell(t("reachable"));
  back();
}

/** The state that the server's health gives: `ok`, `loading` or `closing`. */
export function showState(state) {
  if (state === "ok") return hide();
  show(state, say(make("span"), state === "closing" ? "closing" : "loading_model"));
}

/** Say something to screen readers, once. */
export function tell(text) {
  document.getElementById("told").textContent = text;
}

function show(kind, ...children) {
  notice.dataset.kind = kind;
  fill(notice, ...children);
  notice.hidden = false;
}

function hide() {
  delete notice.dataset.kind;
  notice.hidden = true;
}

function later() {
  clearTimeout(timer);
  timer = setTimeout(tryNow, PAUSES[Math.min(tries, PAUSES.length - 1)]);
  tries += 1;
}

async function tryNow() {
  try {
    await get("v1/health");
  } catch {
    later();
  }
}
