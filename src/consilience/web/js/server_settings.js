/* The config file of the server as a form: every setting with its help, its value in force, and what
   was wrong with it. Only what was changed is sent. */

import { number } from "./format.js";
import { fill, make } from "./making.js";
import { problemLines } from "./problems.js";
import { language, listed, say, t } from "./words.js";

/** The form; `put({values})` sends changes and gives back the settings as they are then. */
export function serverFields(found, put) {
  const place = make("form", { novalidate: true, autocomplete: "off" });
  show(place, found, put);
  return place;
}

function show(place, { path, settings }, put, said = null) {
  const changes = new Map();
  const counter = make("span", {}, said);
  const save = say(make("button", { class: "primary", disabled: true }), "save");
  const fields = settings.map((one) => fieldOf(one, (value) => note(one, value)));
  const problem = make("div");

  function note(one, value) {
    if (same(value, inFile(one))) changes.delete(one.key);
    else changes.set(one.key, value);
    save.disabled = changes.size === 0;
    if (changes.size) say(counter, "unsaved", { n: changes.size });
    else fill(counter);
  }

  const file = say(make("p", { class: "why" }), "config_file", { path });
  fill(place, file, fields.map((one) => one.node), problem, make("div", { class: "saving" }, save, counter));
  place.onsubmit = async (event) => {
    event.preventDefault();
    if (changes.size) await store(place, { put, changes, fields, problem, save });
  };
}

async function store(place, { put, changes, fields, problem, save }) {
  save.disabled = true;
  fields.forEach((one) => one.wrong(null));
  fill(problem);
  try {
    const found = await put({ values: Object.fromEntries(changes) });
    show(place, found, put, savedText(found, changes));
    place.querySelector(".primary").focus();
  } catch (error) {
    const told = fields.filter((one) => one.wrong(mistakeOf(error.message, one.key)));
    if (told.length) told[0].input.focus();
    else fill(problem, make("div", { class: "failed", role: "alert" }, problemLines(error)));
    save.disabled = false;
  }
}

function savedText({ settings }, changes) {
  const late = settings.filter((one) => one.restart && changes.has(one.key)).map((one) => one.key);
  const said = make("span", { role: "status" });
  return late.length ? say(said, "saved_restart", { names: late.join(", ") }) : say(said, "saved");
}

/** What a message says about one key; it lists its mistakes one after the other. */
export function mistakeOf(message, key) {
  const [, list] = /^[^:]*: (.*)$/s.exec(message) ?? [null, message];
  return list.split("; ").find((one) => one.startsWith(`${key} `)) ?? null;
}

const inFile = (one) => one.file ?? null;
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

function fieldOf(one, changed) {
  const id = `setting-${one.key}`;
  const input = inputOf(one, id);
  const wrong = make("p", { class: "error", id: `${id}-wrong`, hidden: true });
  const label = say(make("label", { for: id }), "as_is", { text: () => one.help[language()] });
  const notes = make("p", { class: "note", id: `${id}-note` }, notesOf(one));
  input.setAttribute("aria-describedby", `${id}-note ${id}-wrong`);
  input.addEventListener("input", () => changed(valueOf(one, input)));
  const node = make("div", { class: "field" }, label, make("code", {}, one.key), input, wrong, notes);
  return { key: one.key, node, input, wrong: (text) => showWrong(wrong, input, text) };
}

function showWrong(node, input, text) {
  node.textContent = text ?? "";
  node.hidden = text === null;
  input.toggleAttribute("aria-invalid", text !== null);
  return text !== null;
}

const isNumber = (one) => /^an? (whole )?number/.test(one.allowed);
const choicesOf = (one) => (one.allowed.includes(" | ") ? one.allowed.replace(/, or none$/, "").split(" | ") : null);

function inputOf(one, id) {
  const value = one.file ?? null;
  const placeholder = one.value === null ? t("none") : String(one.value);
  if (choicesOf(one)) return selectOf(one, id, value);
  if (!isNumber(one)) return make("input", { id, value, placeholder, spellcheck: "false" });
  const step = one.allowed.startsWith("a whole") ? 1 : "any";
  return make("input", { id, type: "number", value, placeholder, min: one.least, max: one.most, step });
}

function selectOf(one, id, value) {
  const chosen = String(value ?? "");
  const option = (choice) => make("option", { value: choice, selected: choice === chosen }, choice || `(${one.value})`);
  return make("select", { id }, ["", ...choicesOf(one)].map(option));
}

/** What a field holds, as the server wants it; an empty one goes back to its default. */
function valueOf(one, input) {
  const text = input.value.trim();
  if (text === "") return null;
  if (isNumber(one)) return Number(text);
  return { true: true, false: false }[text] ?? text;
}

function notesOf(one) {
  const notes = [["in_force", { value: shown(one.value) }], ["default_is", { value: shown(one.default) }]];
  const [least, most] = [shown(one.least), shown(one.most)];
  if (one.least !== null) notes.push(one.most === null ? ["at_least", { least }] : ["bounds", { least, most }]);
  if (one.flag) notes.push(["by_flag"]);
  if (one.restart) notes.push(["restart"]);
  return listed(notes);
}

/** A value as people read it, in the language of the moment. */
function shown(value) {
  return () => (value === null ? t("none") : typeof value === "number" ? number(value, 12) : String(value));
}
