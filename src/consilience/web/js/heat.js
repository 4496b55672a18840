/* Where each word of an answer comes from: every token in the hue of the passage that carried most
   of it, the deeper the larger that share, underlined in the pattern of the passage.

   Tokens are found again in the answer, so that it is read as it is written; where a generator
   spells its tokens in another way, the tokens themselves are shown. */

import { exactPercent } from "./format.js";
import { button, fill, make } from "./making.js";
import { colours } from "./passages.js";
import { label, say, t } from "./words.js";

const MOST_SHARES = 8;

/** Pieces of a text, each with the token that it is, or null for what lies between.

    Returns null when the tokens are not those of the text, in order. */
export function aligned(text, tokens) {
  const points = [...text];
  const small = points.map((one) => one.toLowerCase());
  const pieces = [];
  let at = 0;
  for (const token of tokens) {
    const wanted = [...token.text.trim()].map((one) => one.toLowerCase());
    const from = placeOf(small, wanted, at);
    if (from === null) return null;
    if (from > at) pieces.push({ text: points.slice(at, from).join(""), token: null });
    at = from + wanted.length;
    if (wanted.length) pieces.push({ text: points.slice(from, at).join(""), token });
  }
  if (points.slice(at).join("").trim()) return null;
  return pieces;
}

/** Where a word begins, nothing but spaces before it; null when something else comes first. */
function placeOf(points, wanted, from) {
  let at = from;
  while (at < points.length && wanted.length && points[at] !== wanted[0] && points[at].trim() === "") at += 1;
  return wanted.every((one, i) => points[at + i] === one) ? at : null;
}

function spelled(tokens) {
  return tokens.flatMap((token) => [{ text: token.text.trim() || "␣", token }, { text: " ", token: null }]);
}

/** The passage that carried most of a token. */
export function strongest(posterior) {
  return Object.entries(posterior).reduce((best, one) => (one[1] > best[1] ? one : best), ["", 0])[0];
}

/** The coloured answer.

    `numbers` gives each passage id its number, `open(id)` shows a passage. Returns `{node, readout,
    only(id)}`; `only` colours by one passage, or by the strongest again with null. */
export function heatMap({ text, tokens, numbers, open }) {
  const readout = make("p", { class: "readout" });
  const node = label(make("p", { class: "answer heat", role: "toolbar" }), "heat_label");
  const pieces = aligned(text, tokens) ?? spelled(tokens);
  const made = pieces.map((piece) => (piece.token ? tokenOf(piece, { numbers, open, readout }) : piece.text));
  const words = made.filter((one) => typeof one !== "string");
  fill(node, made.map((one) => one.node ?? one));
  words.forEach((one, i) => (one.node.tabIndex = i === 0 ? 0 : -1));
  node.addEventListener("keydown", (event) => step(event, words.map((one) => one.node)));
  const only = (id) => {
    words.forEach((one) => one.paint(id));
    rest(readout, id === null ? null : numbers.get(id));
  };
  only(null);
  return { node, readout, only };
}

function tokenOf({ text, token }, { numbers, open, readout }) {
  const best = strongest(token.posterior);
  const found = [...numbers].map(([id, n]) => ({ n, share: token.posterior[id] ?? 0 }));
  const ranked = found.sort((a, b) => b.share - a.share).slice(0, MOST_SHARES);
  const node = button("token", () => open(best), text);
  const said = ({ n, share }) => t("token_share", { n, share: exactPercent(share) });
  const shares = () => ranked.map(said).join(", ");
  label(node, "token_label", { text, shares });
  const tell = () => fill(readout, make("b", {}, text), ranked.map(shareOf));
  node.addEventListener("pointerenter", tell);
  node.addEventListener("focus", tell);
  const paint = (id) => {
    const shown = id ?? best;
    const share = token.posterior[shown] ?? 0;
    node.className = `token ${colours(numbers.get(shown) ?? 1)}${share < 0.02 ? " faint" : ""}`;
    node.style.setProperty("--share", share.toFixed(4));
  };
  return { node, paint };
}

function shareOf({ n, share }) {
  return make("span", { class: `one ${colours(n)}` }, `[${n}] ${exactPercent(share)}`);
}

function rest(readout, number) {
  if (number === null) fill(readout, say(make("span"), "heat_rest"));
  else fill(readout, say(make("span"), "heat_one", { n: number }));
}

/** Arrow keys, Home and End go from word to word. */
function step(event, nodes) {
  const at = nodes.indexOf(event.target);
  const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  const to = { Home: 0, End: nodes.length - 1 }[event.key] ?? at + by;
  if (at < 0 || !nodes[to]) return;
  event.preventDefault();
  nodes[at].tabIndex = -1;
  nodes[to].tabIndex = 0;
  nodes[to].focus();
}
