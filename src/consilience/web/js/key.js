/* Asking for the key of a server that has keys. However many requests wait, it is asked for once. */

import { hasKey, keepKey } from "./api.js";
import { button, fill, icon, make } from "./making.js";
import { label, say } from "./words.js";

const dialog = document.getElementById("key");
let waiting = null;

/** A key that someone types, or null when they would rather not. */
export function askForKey(wrong) {
  waiting ??= new Promise((resolve) => show(wrong, resolve)).finally(() => (waiting = null));
  return waiting;
}

function show(wrong, resolve) {
  const field = make("input", { type: "password", id: "key-field", autocomplete: "off", required: true });
  const form = make(
    "form",
    { method: "dialog" },
    say(make("label", { for: "key-field" }), "key"),
    field,
    wrong && say(make("p", { class: "error", role: "alert" }), "key_wrong"),
    say(make("p", { class: "why" }), "key_more"),
    buttons(),
  );
  fill(dialog, say(make("h2", { id: "key-heading" }), "key_heading"), form);
  dialog.onclose = () => resolve(dialog.returnValue === "given" && field.value.trim() ? field.value.trim() : null);
  dialog.returnValue = "";
  dialog.showModal();
  field.focus();
}

function buttons() {
  const enter = make("button", { class: "primary", value: "given" });
  const cancel = make("button", { class: "plain", value: "", formnovalidate: true });
  return make("div", { class: "row" }, say(enter, "key_enter"), say(cancel, "cancel"));
}

/** A line that says that a key is kept, with a button that forgets it; nothing without one. */
export function keptKey() {
  if (!hasKey()) return null;
  const forget = button("plain", () => {
    keepKey(null);
    location.reload();
  });
  return make("p", { class: "row why" }, say(make("span"), "key_is_kept"), say(forget, "key_forget"));
}

/** A round button that closes what it stands in. */
export function closer(onclick) {
  return label(button("quiet square", onclick, icon("close")), "close");
}
