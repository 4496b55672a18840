/* The documents of the knowledge base: adding, finding, opening and deleting them. */

import { get, send } from "./api.js";
import { confirmBox } from "./confirming.js";
import { tell } from "./connection.js";
import { count, languageOf } from "./format.js";
import { readJobs } from "./jobs.js";
import { button, fill, icon, make } from "./making.js";
import { titleOf } from "./passages.js";
import { closeIfShown, openDocument } from "./source.js";
import { problemLines } from "./problems.js";
import { startUploads, upload } from "./uploads.js";
import { label, say, t } from "./words.js";

const PAGE = 100;
const PAUSE = 200;
const by = (id) => document.getElementById(id);
let listed = [];
let total = 0;
let asked = 0;
let counted = () => {};

/** Wire the pane; `changed(total)` is told how many documents there are. */
export function startDocuments({ changed }) {
  counted = changed;
  startUploads({ added: refresh });
  startChoosing();
  startDropping();
  startFinding();
  by("more-documents").addEventListener("click", () => read(listed.length));
}

/** Read the list again, and what the server is doing with new documents. */
export async function refresh() {
  await read(0);
}

/** Read everything at the beginning. */
export async function readDocuments() {
  await Promise.all([refresh(), readJobs().catch(() => {})]);
}

/** Open the dialog of the system that chooses files. */
export function chooseFiles() {
  by("files").click();
}

function startChoosing() {
  by("adding").addEventListener("submit", (event) => event.preventDefault());
  by("choose").addEventListener("click", chooseFiles);
  by("files").addEventListener("change", (event) => {
    add(event.target.files);
    event.target.value = "";
  });
}

function add(files) {
  const access = by("access").value.split(/[,，、]/).map((one) => one.trim()).filter(Boolean);
  upload([...files], { access, contributor: by("contributor").value.trim() });
}

function startDropping() {
  const veil = by("dropping");
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  const over = (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    veil.hidden = false;
  };
  document.addEventListener("dragenter", over);
  document.addEventListener("dragover", over);
  document.addEventListener("dragleave", (event) => event.relatedTarget === null && (veil.hidden = true));
  document.addEventListener("drop", (event) => {
    veil.hidden = true;
    if (!holdsFiles(event)) return;
    event.preventDefault();
    document.dispatchEvent(new CustomEvent("consilience:documents"));
    add(event.dataTransfer.files);
  });
}

function startFinding() {
  let timer = null;
  by("find-document").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(refresh, PAUSE);
  });
}

async function read(offset) {
  const turn = (asked += 1);
  const query = by("find-document").value.trim();
  try {
    const found = await get("v1/documents", { offset, limit: PAGE, query });
    if (turn !== asked) return;
    listed = offset ? [...listed, ...found.documents] : found.documents;
    total = found.total;
    show(query);
  } catch (problem) {
    if (turn === asked) fill(by("listing"), make("li", { class: "failed" }, problemLines(problem)));
  }
}

function show(query) {
  fill(by("listing"), listed.map(rowOf));
  by("more-documents").hidden = listed.length >= total;
  by("no-documents").hidden = total > 0;
  say(by("no-documents"), query ? "none_found" : "no_documents");
  by("finding").hidden = total === 0 && !query;
  if (query) return;
  by("documents-count").textContent = total ? count(total) : "";
  counted(total, listed);
}

function rowOf(one) {
  const row = make("li", { class: "document" });
  showRow(row, one);
  return row;
}

function showRow(row, one) {
  const title = titleOf(one);
  const about = { source: one.source, passages: () => t("passages", { n: one.passages }) };
  const facts = say(make("span", { class: "facts" }), "document_facts", about);
  const heading = make("span", { class: "title", lang: languageOf(title) }, title);
  const open = button("open", () => openDocument(one, open), heading, facts);
  open.title = one.source;
  const remove = button("quiet small square", () => confirm(row, one), icon("delete"));
  fill(row, open, label(remove, "delete_document", { title }));
}

function confirm(row, one) {
  const [yes, no] = [() => remove(one), () => leave(row, one)];
  const box = confirmBox({ key: "delete_question", values: { title: titleOf(one) }, yes, no });
  fill(row, box.node);
  box.focus();
}

function leave(row, one) {
  showRow(row, one);
  row.querySelector(".square").focus();
}

async function remove(one) {
  await send("DELETE", "v1/documents", { query: { source: one.source } });
  closeIfShown(one.source);
  tell(t("deleted", { title: titleOf(one) }));
  await refresh();
  by("documents-heading").focus();
}
