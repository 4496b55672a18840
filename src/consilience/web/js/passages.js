/* The passages that an answer rests on: one row each with its number, place, share and quote.

   While an answer is written the bars move and the order stands still; when it is finished the
   passages are numbered by their share, and those that are not cited step back. */

import { slice, length } from "./codepoints.js";
import { exactPercent, languageOf, percent } from "./format.js";
import { button, fill, make } from "./making.js";
import { label, say, t } from "./words.js";

const AROUND = 70;
const EXCERPT = 180;

/** The classes that give a passage of a number its hue and its underline. */
export const colours = (number) => `hue-${((number - 1) % 8) + 1} pattern-${((number - 1) % 5) + 1}`;

/** How a passage is called: its title, else the end of its source. */
export const titleOf = (passage) => passage.title || passage.source.split("/").pop();

/** The list of passages of a turn.

    `open(passage, quotes, button)` shows a passage where it stands; `pick(id)` asks for its share of
    each word. */
export function passageList({ open, pick }) {
  const node = make("div");
  const rows = new Map();

  function draw(passages, { cited = new Map(), bars = true } = {}) {
    rows.clear();
    const made = passages.map((passage, place) => {
      const row = rowOf(passage, place + 1, { open, pick, quotes: cited.get(passage.id), bars });
      rows.set(passage.id, row);
      return row.node;
    });
    return made;
  }

  return {
    node,
    rows,
    /** The passages found, in the order they were found in. */
    found(passages, options = {}) {
      fill(node, listed(draw(passages, options)));
      this.enable(false);
    },
    /** The shares as they are now. */
    move(posterior) {
      for (const [id, row] of rows) row.share(posterior[id] ?? 0);
    },
    /** The passages as the finished answer weighs them; `cited` are shown, the others folded. */
    settle(passages, cited, posterior) {
      const made = draw(passages, { cited });
      const shown = made.slice(0, cited.size);
      fill(node, listed(shown), others(made.slice(cited.size), cited.size));
      this.move(posterior);
      this.enable(false);
    },
    /** Whether the bars can be pressed: not before there are words that they have shares of. */
    enable(is) {
      for (const row of rows.values()) row.enable(is);
    },
    /** Mark the one passage whose share of each word is shown. */
    press(id) {
      for (const [name, row] of rows) row.press(name === id);
    },
  };
}

function listed(rows, start = 1) {
  const list = make("ol", { class: "evidence", start: start === 1 ? null : start }, rows);
  list.addEventListener("keydown", (event) => walk(event, list));
  return label(list, "evidence");
}

function others(rows, before) {
  if (!rows.length) return null;
  const summary = say(make("summary"), "other_passages", { n: rows.length });
  return make("details", { class: "others" }, summary, listed(rows, before + 1));
}

/** Arrow keys go from citation to citation. */
export function walk(event, list) {
  const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
  const all = [...list.querySelectorAll(".chip, .cite-mark")];
  const at = all.indexOf(event.target);
  if (!step || at < 0) return;
  event.preventDefault();
  all[(at + step + all.length) % all.length].focus();
}

function rowOf(passage, number, { open, pick, quotes, bars }) {
  const chip = chipOf(passage, number);
  chip.addEventListener("click", () => open(passage, quotes ?? [], chip));
  const bar = bars ? barOf(number, () => pick(passage.id)) : null;
  const line = make("div", { class: "line" }, chip, bar?.node);
  const excerpt = make("p", { class: "excerpt", lang: languageOf(passage.text) }, excerptOf(passage, quotes ?? []));
  const node = make("li", { class: `passage ${colours(number)}` }, line, excerpt);
  const press = (is) => bar?.node.setAttribute("aria-pressed", String(is));
  const enable = (is) => bar?.node.toggleAttribute("disabled", !is);
  return { node, share: (value) => bar?.share(value), press, enable };
}

function chipOf(passage, number) {
  const place = passage.page === null || passage.page === undefined ? null : passage.page;
  const chip = make(
    "button",
    { type: "button", class: "chip", title: passage.source },
    make("span", { class: "number" }, String(number)),
    make("span", { class: "title", lang: languageOf(titleOf(passage)) }, titleOf(passage)),
    place === null ? null : say(make("span", { class: "place" }), "page", { page: place }),
  );
  const where = () => (place === null ? "" : t("page_long", { page: place }));
  return label(chip, "evidence_row", { n: number, title: titleOf(passage), place: where });
}

function barOf(number, onclick) {
  const fillNode = make("span", { class: "fill" });
  const text = make("span", { class: "percent" });
  const node = button("share", onclick, make("span", { class: "track" }, fillNode), text);
  node.setAttribute("aria-pressed", "false");
  const share = (value) => {
    fillNode.style.setProperty("--share", value);
    text.textContent = percent(value);
    label(node, "share_row", { n: number, share: () => exactPercent(value) });
  };
  share(0);
  return { node, share };
}

/** What is quoted of a passage with the words around it, else how the passage begins. */
export function excerptOf(passage, quotes) {
  const [first] = quotes;
  if (!first) return slice(passage.text, 0, EXCERPT) + (length(passage.text) > EXCERPT ? " …" : "");
  const [start, end] = [first.start - passage.start, first.end - passage.start];
  const from = Math.max(0, start - AROUND);
  return [
    (from > 0 ? "… " : "") + slice(passage.text, from, start),
    make("mark", {}, slice(passage.text, start, end)),
    slice(passage.text, end, end + AROUND * 2) + (end + AROUND * 2 < length(passage.text) ? " …" : ""),
  ];
}
