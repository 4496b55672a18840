/* One question and what came of it, as it comes: the passages, the words, the finished answer, or
   why there is none. Knows how a turn looks and nothing of how it is asked. */

import { duration, exactPercent, languageOf, percent } from "./format.js";
import { heatMap } from "./heat.js";
import { button, fill, icon, make } from "./making.js";
import { colours, passageList, titleOf, walk } from "./passages.js";
import { problemBox } from "./problems.js";
import { label, say } from "./words.js";

/** A turn on the page, which is told what happens to it in the order in which it happens: `found`,
    `wrote`, then one of `answered`, `failed` and `stopped`.

    `open(passage, quotes, button)` shows a source; `again()` asks the question once more. */
export class Turn {
  constructor(question, { open, again }) {
    Object.assign(this, { question, open, again, heat: null, chosen: null });
    this.lookedUp = make("p", { class: "looked-up", hidden: true });
    this.body = make("div", {}, say(make("p", { class: "waiting" }), "searching"));
    this.tools = make("div", { class: "turn-tools", hidden: true });
    this.below = make("div");
    this.list = passageList({ open, pick: (id) => this.pick(id) });
    const heading = make("h2", { lang: languageOf(question) }, question);
    const parts = [heading, this.lookedUp, this.body, this.tools, this.below, this.list.node];
    this.node = make("li", { class: "turn", "aria-busy": "true" }, parts);
  }

  found({ question, hits }) {
    showLookedUp(this.lookedUp, this.question, question);
    const text = hits.length ? "reading" : "searching";
    fill(this.body, say(make("p", { class: "waiting" }), text, { n: hits.length }));
    this.list.found(hits);
  }

  wrote({ text, posterior }) {
    writeOn(this.body, text);
    this.list.move(posterior);
  }

  answered(answer) {
    this.end();
    showLookedUp(this.lookedUp, this.question, answer.question);
    if (answer.abstained) showAbstention(this, answer);
    else showAnswer(this, answer);
  }

  failed(problem) {
    this.end();
    this.below.append(problemBox(problem, this.again));
  }

  stopped() {
    this.end();
    if (!this.node.querySelector(".answer")) fill(this.body);
    this.below.append(say(make("p", { class: "waiting" }), "stopped"));
  }

  end() {
    this.node.setAttribute("aria-busy", "false");
    this.node.querySelector(".writing")?.classList.remove("writing");
    this.node.querySelector(".waiting")?.remove();
  }

  /** Show one passage's share of each word; the strongest of each when it is picked again. */
  pick(id) {
    this.chosen = this.chosen === id ? null : id;
    this.heat.show(true);
    this.heat.map.only(this.chosen);
    this.list.press(this.chosen);
  }
}

function showAnswer(turn, answer) {
  const order = ordered(answer);
  turn.list.settle(order.passages, order.cited, answer.posterior);
  const plain = plainAnswer(answer, turn);
  fill(turn.body, plain);
  if (answer.tokens?.length) addHeat(turn, answer, order, plain);
  showFigures(turn.tools, answer);
}

function showLookedUp(node, question, asked) {
  node.hidden = !asked || asked.trim() === question.trim();
  if (!node.hidden) say(node, "looked_up", { question: asked });
}

function writeOn(body, text) {
  let written = body.querySelector(".answer");
  if (!written) {
    written = make("p", { class: "answer writing" });
    fill(body, written);
  }
  written.textContent = text;
  written.lang = languageOf(text);
}

/** The passages with the cited first and then by share, the quotes of the cited, and the numbers. */
function ordered(answer) {
  const cited = new Map(answer.citations.map((one) => [one.passage_id, one.quotes]));
  const places = new Map(answer.citations.map((one, i) => [one.passage_id, i]));
  const all = new Map(answer.citations.map((one) => [one.passage_id, { ...one, id: one.passage_id }]));
  for (const hit of answer.hits) if (!all.has(hit.id)) all.set(hit.id, hit);
  const share = (one) => answer.posterior[one.id] ?? 0;
  const place = (one) => places.get(one.id) ?? Infinity;
  const before = (a, b) => (place(a) === place(b) ? share(b) - share(a) : place(a) - place(b));
  const passages = [...all.values()].sort(before);
  return { passages, cited, numbers: new Map(passages.map((one, i) => [one.id, i + 1])) };
}

function plainAnswer(answer, turn) {
  const marks = answer.citations.map((one, i) => citeMark(one, i + 1, turn));
  const cites = make("span", { class: "cites" }, marks);
  cites.addEventListener("keydown", (event) => walk(event, cites));
  return make("p", { class: "answer", lang: languageOf(answer.answer) }, answer.answer, cites);
}

function citeMark(citation, number, { list, open }) {
  const passage = { ...citation, id: citation.passage_id };
  const node = button(`cite-mark ${colours(number)}`, () => open(passage, citation.quotes, node), `[${number}]`);
  const hint = (is) => list.rows.get(passage.id)?.node.classList.toggle("open", is);
  node.addEventListener("pointerenter", () => hint(true));
  node.addEventListener("pointerleave", () => hint(false));
  return label(node, "cite", { n: number, title: titleOf(citation) });
}

/** A button that puts the coloured answer in the place of the plain one, and back. */
function addHeat(turn, answer, { passages, cited, numbers }, plain) {
  const byId = new Map(passages.map((one) => [one.id, one]));
  const open = (id) => turn.open(byId.get(id), cited.get(id) ?? [], document.activeElement);
  const map = heatMap({ text: answer.answer, tokens: answer.tokens, numbers, open });
  map.node.lang = languageOf(answer.answer);
  const node = button("quiet", () => toggle(node.getAttribute("aria-pressed") !== "true"));
  node.append(icon("heat"), say(make("span"), "heat"));
  const show = (on) => {
    node.setAttribute("aria-pressed", String(on));
    turn.node.classList.toggle("heated", on);
    fill(turn.body, on ? [map.node, map.readout] : plain);
  };
  const toggle = (on) => {
    if (!on && turn.chosen !== null) turn.pick(turn.chosen);
    show(on);
  };
  show(false);
  turn.tools.append(node);
  turn.heat = { map, show };
  turn.list.enable(true);
}

function showFigures(tools, answer) {
  const figures = make("span", { class: "figures" });
  figures.append(say(make("span"), "confidence", { confidence: () => percent(answer.confidence) }));
  const total = answer.timings_ms?.total;
  if (total) figures.append(" · ", say(make("span"), "took", { seconds: () => duration(total / 1000) }));
  tools.append(figures);
  tools.hidden = false;
}

function showAbstention(turn, answer) {
  const box = make(
    "div",
    { class: "abstained" },
    say(make("h3"), "not_in_documents"),
    say(make("p"), "not_in_documents_more", { confidence: () => exactPercent(answer.confidence) }),
  );
  const near = say(make("p", { class: "nearest" }), answer.hits.length ? "nearest" : "nothing_near");
  fill(turn.body, box, near);
  turn.list.found(answer.hits, { bars: false });
}
