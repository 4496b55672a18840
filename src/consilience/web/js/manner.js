/* How each question is answered: what goes along with it. Kept by the browser; what is not chosen
   here is left to the server. */

import { keep, kept } from "./keeping.js";
import { make } from "./making.js";
import { say, t } from "./words.js";

const KEY = "consilience.manner";
const NUMBERS = { k: [1, 1000], beams: [1, 16], max_new_tokens: [1, 100000] };
const CHECKS = { quote: false, abstain: true };
const CHOICES = {
  mode: ["bm25", "dense", "hybrid"],
  fusion: ["sequence", "token", "average", "fid", "attention", "concat"],
};

/** What was chosen, by the name that the server knows it by. */
export function mannerOf() {
  try {
    return cleaned(JSON.parse(kept(KEY) ?? "{}"));
  } catch {
    return {};
  }
}

function cleaned(found) {
  const manner = {};
  for (const [name, [least, most]] of Object.entries(NUMBERS)) {
    if (Number.isInteger(found[name]) && found[name] >= least && found[name] <= most) manner[name] = found[name];
  }
  for (const [name, choices] of Object.entries(CHOICES)) if (choices.includes(found[name])) manner[name] = found[name];
  for (const [name, plain] of Object.entries(CHECKS)) if (found[name] === !plain) manner[name] = !plain;
  return manner;
}

function choose(name, value) {
  const { [name]: _, ...rest } = mannerOf();
  keep(KEY, JSON.stringify(value === null ? rest : { ...rest, [name]: value }));
  showManner();
}

/** The button below the question says what was chosen. */
export function showManner() {
  const manner = mannerOf();
  const changes = Object.entries(manner).map(([name, value]) => `${name} ${value}`).join(" · ");
  say(document.getElementById("manner"), changes ? "manner_changed" : "manner", { changes });
}

/** The fields of the settings drawer. */
export function mannerFields() {
  const manner = mannerOf();
  return [
    numberField("k", manner),
    choiceField("fusion", manner),
    choiceField("mode", manner),
    numberField("beams", manner),
    numberField("max_new_tokens", manner),
    ...Object.keys(CHECKS).map((name) => checkField(name, manner)),
  ];
}

function numberField(name, manner) {
  const [least, most] = NUMBERS[name];
  const input = make("input", { type: "number", id: `manner-${name}`, min: least, max: most, step: 1 });
  input.value = manner[name] ?? "";
  input.dataset.placeholder = "as_server";
  input.placeholder = t("as_server");
  input.addEventListener("change", () => {
    if (input.checkValidity()) choose(name, input.value === "" ? null : Number(input.value));
  });
  return fieldOf(name, input);
}

function choiceField(name, manner) {
  const first = say(make("option", { value: "" }), "as_server");
  const others = CHOICES[name].map((value) => {
    const option = make("option", { value, selected: manner[name] === value });
    return say(option, `${name}_${value}`);
  });
  const select = make("select", { id: `manner-${name}` }, first, others);
  select.addEventListener("change", () => choose(name, select.value || null));
  return fieldOf(name, select);
}

function fieldOf(name, input) {
  return make("div", { class: "field" }, say(make("label", { for: input.id }), `option_${name}`), input);
}

function checkField(name, manner) {
  const plain = CHECKS[name];
  const input = make("input", { type: "checkbox", id: `manner-${name}`, checked: manner[name] ?? plain });
  input.addEventListener("change", () => choose(name, input.checked === plain ? null : input.checked));
  return make("div", { class: "field check" }, input, say(make("label", { for: input.id }), `option_${name}`));
}
