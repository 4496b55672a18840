/* The pane beside the conversation: a document's text around a place, the exact characters marked,
   and the page as it was printed when the server has it.

   Long documents are read a window at a time. */

import { get, request } from "./api.js";
import { cutAt } from "./codepoints.js";
import { count, languageOf } from "./format.js";
import { closer } from "./key.js";
import { button, fill, make } from "./making.js";
import { titleOf } from "./passages.js";
import { problemLines } from "./problems.js";
import { label, listed, say, t } from "./words.js";

const WINDOW = 4000;
const MOST_MARKS = 8;
const pane = document.getElementById("source");
const panes = document.getElementById("panes");
let shown = null;

/** Show a passage where it stands, its quotes marked; `opener` gets the focus back. */
export function openPassage(passage, quotes, opener) {
  const { source, start, end, page } = passage;
  const around = { from: start - WINDOW / 2, to: end + WINDOW / 2 };
  return show({ source, title: titleOf(passage), passage: { start, end }, quotes, page, opener, ...around });
}

/** Show a document from its beginning. */
export function openDocument(one, opener) {
  const whole = { passage: null, quotes: [], page: null, from: 0, to: WINDOW };
  return show({ source: one.source, title: titleOf(one), opener, ...whole });
}

/** Close the pane and go back to where it was opened from. */
export function closeSource() {
  if (shown === null) return false;
  forgetPage();
  const { opener } = shown;
  shown = null;
  pane.hidden = true;
  panes.classList.remove("with-source");
  if (opener?.isConnected) opener.focus();
  return true;
}

/** Close the pane if it shows a document that is no more. */
export function closeIfShown(source) {
  if (shown?.source === source) closeSource();
}

async function show(wanted) {
  forgetPage();
  const now = { ...wanted, page: null, image: null, loaded: null };
  shown = now;
  const heading = make("h2", { id: "source-heading", tabindex: "-1" }, wanted.title);
  const facts = make("p", { class: "facts" }, factsOf(wanted));
  const text = say(make("div", { class: "text" }), "opening");
  now.text = text;
  now.reading = label(make("div", { class: "reading scroll", tabindex: "0", role: "region" }, text), "source");
  fill(pane, make("div", { class: "pane-head" }, make("div", {}, heading, facts), closer(closeSource)), now.reading);
  pane.hidden = false;
  panes.classList.add("with-source");
  heading.focus();
  await load(now, Math.max(0, wanted.from), wanted.to);
  if (shown !== now || now.loaded === null) return;
  goToMark(now);
  await showPage(now, wanted.page ?? now.loaded.pages[0]?.number ?? null);
}

function factsOf({ source, passage, page }) {
  const facts = [["as_is", { text: source }]];
  if (page !== null && page !== undefined) facts.push(["source_page", { page }]);
  if (passage) facts.push(["source_passage", { start: () => count(passage.start), end: () => count(passage.end) }]);
  return listed(facts);
}

async function load(now, start, end) {
  try {
    const found = await get("v1/documents/text", { source: now.source, start, end });
    if (shown !== now) return;
    now.loaded = joined(now.loaded, found);
    drawText(now);
  } catch (problem) {
    if (shown === now) fill(now.text, make("div", { class: "failed", role: "alert" }, problemLines(problem)));
  }
}

/** What was read before with what was read now beside it. */
function joined(old, found) {
  if (old === null) return found;
  if (found.end === old.start) return { ...old, start: found.start, text: found.text + old.text };
  return { ...old, end: found.end, text: old.text + found.text };
}

function drawText(now) {
  const { start, end, total, text } = now.loaded;
  delete now.text.dataset.say;
  fill(now.text, pieces(now));
  const earlier = start > 0 && moreButton("earlier", () => reload(now, Math.max(0, start - WINDOW), start));
  const later = end < total && moreButton("later", () => reload(now, end, Math.min(total, end + WINDOW)));
  fill(now.reading, earlier, now.text, later);
  now.text.lang = languageOf(text);
}

function moreButton(name, onclick) {
  return say(button("more", onclick), name);
}

/** Read more, and keep in sight what was in sight. */
async function reload(now, start, end) {
  const { scrollHeight, scrollTop } = now.reading;
  const before = end <= now.loaded.start;
  await load(now, start, end);
  now.reading.scrollTop = before ? scrollTop + now.reading.scrollHeight - scrollHeight : scrollTop;
  now.reading.focus();
}

/** The text as nodes: quotes marked, or the whole passage where nothing is quoted. */
function pieces(now) {
  const { start, text, pages } = now.loaded;
  const marks = marksOf(now);
  const begins = new Map(pages.map((one) => [one.start - start, one.number]));
  const edges = [...marks, now.passage].filter(Boolean).flatMap((one) => [one.start - start, one.end - start]);
  return cutAt(text, [...edges, ...begins.keys()]).flatMap((piece) => {
    const inside = (one) => one && one.start - start <= piece.start && piece.end <= one.end - start;
    const page = begins.get(piece.start);
    const shown = node(piece.text, marks.some(inside), inside(now.passage));
    return page === undefined ? [shown] : [pageLabel(now, page), shown];
  });
}

function marksOf({ quotes, passage }) {
  // An answer may repeat a word; its place is marked once.
  if (quotes.length) return [...new Map(quotes.map((one) => [`${one.start}-${one.end}`, one])).values()];
  return passage ? [passage] : [];
}

function node(text, marked, cited) {
  if (marked) return make("mark", {}, text);
  return cited ? make("span", { class: "cited" }, text) : text;
}

function pageLabel(now, page) {
  return say(button("page-start", () => showPage(now, page)), "page_start", { page });
}

function goToMark(now) {
  const mark = now.text.querySelector("mark");
  const top = (one) => one.getBoundingClientRect().top;
  if (mark) now.reading.scrollTop += top(mark) - top(now.reading) - now.reading.clientHeight * 0.3;
}

/** The page as printed, below the text; nothing when the server has no original of it. */
async function showPage(now, page) {
  if (page === null || page === undefined) return;
  const found = await imageOf(now.source, page);
  if (shown !== now || found === null) return;
  forgetPage();
  now.image = URL.createObjectURL(found);
  await drawPage(now, page);
  await markPage(now, page);
}

async function imageOf(source, page) {
  try {
    return await (await request("v1/documents/page", { query: { source, page, width: 900 } })).blob();
  } catch {
    return null;
  }
}

function drawPage(now, page) {
  const open = pane.querySelector("figure button")?.getAttribute("aria-expanded") ?? String(window.innerHeight > 700);
  const image = make("img", { src: now.image, alt: t("page_image_alt", { page, title: now.title }) });
  const sheet = make("div", { class: "sheet", id: "sheet", tabindex: "0", role: "region" });
  label(sheet, "page_image", { page }).append(make("div", { class: "paper" }, image));
  const toggle = say(make("button", { type: "button", "aria-controls": "sheet" }), "page_image", { page });
  const set = (is) => {
    toggle.setAttribute("aria-expanded", String(is));
    sheet.hidden = !is;
  };
  toggle.addEventListener("click", () => set(toggle.getAttribute("aria-expanded") !== "true"));
  set(open === "true");
  pane.querySelector("figure")?.remove();
  pane.append(make("figure", {}, toggle, sheet));
  // Only a picture that has its height can be scrolled to a place on it.
  return image.decode().catch(() => {});
}

/** The marked characters on the picture of their page, where the server finds them there. */
async function markPage(now, page) {
  const [first, last] = edgesOf(now, page);
  const paper = pane.querySelector(".paper");
  if (shown !== now) return;
  for (const mark of marksOf(now).slice(0, MOST_MARKS)) {
    const [start, end] = [Math.max(mark.start, first), Math.min(mark.end, last)];
    if (start >= end) continue;
    const boxes = await boxesOf({ source: now.source, page, start, end });
    if (!paper.isConnected) return;
    paper.append(...boxes.map(boxNode));
  }
  const [sheet, box] = [paper.parentElement, paper.querySelector(".box")];
  if (box) sheet.scrollTop = box.offsetTop - sheet.clientHeight / 3;
}

function edgesOf(now, page) {
  const found = now.loaded.pages.find((one) => one.number === page);
  return found ? [found.start, found.end] : [0, Infinity];
}

async function boxesOf(query) {
  try {
    return (await get("v1/documents/page/boxes", query)).boxes;
  } catch {
    return [];
  }
}

function boxNode([left, top, right, bottom]) {
  const node = make("div", { class: "box" });
  const place = { left, top, width: right - left, height: bottom - top };
  for (const [name, part] of Object.entries(place)) node.style[name] = `${100 * part}%`;
  return node;
}

function forgetPage() {
  if (shown?.image) URL.revokeObjectURL(shown.image);
}
