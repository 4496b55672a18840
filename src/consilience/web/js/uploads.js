/* Files on their way into the knowledge base: one row each, from the first byte to the last passage.

   Two files are sent at a time; what a server says about one is shown at that one. */

import { address, headers, problemIn, Problem, send } from "./api.js";
import { tell } from "./connection.js";
import { duration, number, percent } from "./format.js";
import { isActive, listenToJobs, noteJobs } from "./jobs.js";
import { button, fill, icon, make } from "./making.js";
import { problemLines } from "./problems.js";
import { label, listed, say, t } from "./words.js";

const AT_ONCE = 2;
const list = document.getElementById("uploads");
const rows = new Map();
const queue = [];
const unclaimed = new Map();
let sending = 0;
let changed = () => {};

/** Show the jobs of documents; `added` is told when a document was added. */
export function startUploads({ added }) {
  changed = added;
  listenToJobs((job) => job.kind === "document" && showJob(job));
}

/** Add files: each gets a row at once and is sent when it is its turn. */
export function upload(files, fields) {
  clearDone();
  for (const file of files) enqueue(rowOf(file.name), file, fields);
  sendNext();
}

function enqueue(row, file, fields) {
  row.retry = () => (enqueue(row, file, fields), sendNext());
  row.cancel = () => drop(row);
  showState(row, { state: "waiting" });
  queue.push({ row, file, fields });
}

function drop(row) {
  const at = queue.findIndex((one) => one.row === row);
  if (at >= 0) queue.splice(at, 1);
  showState(row, { state: "cancelled" });
}

function sendNext() {
  while (sending < AT_ONCE && queue.length) {
    sending += 1;
    sendOne(queue.shift()).finally(() => {
      sending -= 1;
      showUnclaimed();
      sendNext();
    });
  }
}

async function sendOne({ row, file, fields }) {
  try {
    const { jobs } = await posted(row, file, fields);
    for (const job of jobs) adopt(row, job);
    noteJobs(jobs);
    for (const job of jobs) claim(job.id);
  } catch (problem) {
    showState(row, { state: problem.kind === "cancelled" ? "cancelled" : "failed", error: problem });
  }
}

/** Post a file; `fetch` does not tell how much has been sent, so this is the older way. */
function posted(row, file, { access = [], contributor = "" }) {
  const form = new FormData();
  form.append("files", file, file.name);
  for (const one of access) form.append("access", one);
  if (contributor) form.append("contributor", contributor);
  return new Promise((resolve, reject) => {
    const sent = new XMLHttpRequest();
    sent.open("POST", address("v1/documents"));
    for (const [name, value] of Object.entries(headers())) sent.setRequestHeader(name, value);
    const show = (done, total) => showState(row, { state: "uploading", done_bytes: done, total_bytes: total });
    sent.upload.onprogress = ({ loaded, total }) => show(loaded, total);
    sent.onload = () => {
      if (sent.status < 300) resolve(JSON.parse(sent.responseText));
      else reject(problemIn(sent.responseText, sent.status));
    };
    sent.onerror = () => reject(new Problem({ kind: "unreachable", message: t("unreachable") }));
    sent.onabort = () => reject(new Problem({ kind: "cancelled" }));
    row.cancel = () => sent.abort();
    show(0, file.size);
    sent.send(form);
  });
}

/** Show what was told of a job before its row was known. */
function claim(id) {
  const job = unclaimed.get(id);
  unclaimed.delete(id);
  if (job) showJob(job);
}

/** From now on a row is about a job of the server. */
function adopt(row, job) {
  rows.delete(row.key);
  row.key = job.id;
  rows.set(job.id, row);
}

/** Jobs that turned out not to be of a file sent from here. */
function showUnclaimed() {
  if (sending > 0) return;
  const jobs = [...unclaimed.values()];
  unclaimed.clear();
  jobs.forEach(showJob);
}

function showJob(job) {
  // A job is told of before its file's own request is answered, which says whose row it is.
  if (!rows.has(job.id) && sending > 0) return unclaimed.set(job.id, job);
  const row = rows.get(job.id) ?? (isActive(job) || job.state === "failed" ? rowOf(job.name, job.id) : null);
  if (row === null) return;
  const path = `v1/jobs/${encodeURIComponent(job.id)}`;
  row.cancel = () => act(row, `${path}/cancel`);
  row.retry = () => act(row, `${path}/retry`);
  if (row.state !== job.state) announce(job, row);
  showState(row, job);
}

async function act(row, path) {
  try {
    noteJobs([await send("POST", path)]);
  } catch (problem) {
    fill(row.problem, problemLines(problem));
  }
}

function announce(job, row) {
  if (job.state === "done") {
    tell(t("added", { name: row.name }));
    changed(job);
  }
  if (job.state === "failed") tell(t("not_added", { name: row.name, message: job.error?.message ?? "" }));
}

function rowOf(name, key = Symbol(name)) {
  const row = {
    key,
    name,
    text: make("p", { class: "state" }),
    bar: make("progress", { max: "1" }),
    problem: make("div"),
    buttons: make("span", { class: "row" }),
  };
  row.bar.setAttribute("aria-label", name);
  const line = make("div", { class: "line" }, make("span", { class: "name", title: name }, name), row.buttons);
  row.node = make("li", { class: "job" }, line, row.bar, row.text, row.problem);
  rows.set(key, row);
  list.prepend(row.node);
  return row;
}

function showState(row, job) {
  row.state = job.state;
  row.node.dataset.state = job.state;
  showBar(row.bar, job);
  fill(row.text, stateOf(job));
  fill(row.problem, job.error && job.state === "failed" ? problemLines(explained(job.error)) : null);
  showButtons(row, job);
}

/** The error of a job as a problem; one that comes from sending already is one. */
function explained(error) {
  return error instanceof Problem ? error : new Problem(error);
}

function showBar(bar, job) {
  bar.hidden = !isActive(job);
  if (job.total_bytes > 0 && job.state !== "waiting") bar.value = Math.min(1, job.done_bytes / job.total_bytes);
  else bar.removeAttribute("value");
}

const STATES = { reading: "reading_file" };

function stateOf(job) {
  const sent = job.total_bytes ? job.done_bytes / job.total_bytes : 0;
  if (job.state === "uploading") return say(make("span"), "uploading", { percent: () => percent(sent) });
  const passages = () => t("passages", { n: job.passages });
  if (job.state === "done") return say(make("span"), `done_${job.outcome || "added"}`, { passages });
  const facts = [[STATES[job.state] ?? job.state]];
  if (isActive(job) && job.rate > 0) facts.push(["rate", { rate: () => number(job.rate, 2) }]);
  if (isActive(job) && job.seconds_left > 0) facts.push(["left", { time: () => duration(job.seconds_left) }]);
  return listed(facts);
}

function showButtons(row, job) {
  const active = isActive(job);
  const has = [
    active && ["cancel", "close", () => row.cancel()],
    ["failed", "cancelled"].includes(job.state) && ["retry", "retry", () => row.retry?.()],
    !active && ["dismiss", "close", () => dismiss(row)],
  ].filter(Boolean);
  const names = has.map(([name]) => name).join();
  // The same buttons stay, so that the focus does not leave them while figures change.
  if (row.names === names) return;
  row.names = names;
  fill(row.buttons, has.map(([name, picture, onclick]) => buttonOf(name, picture, onclick, row.name)));
}

function buttonOf(name, picture, onclick, of) {
  const node = button("quiet small square", onclick, icon(picture));
  node.title = of;
  return label(node, name);
}

function dismiss(row) {
  rows.delete(row.key);
  row.node.remove();
}

function clearDone() {
  for (const row of [...rows.values()]) if (row.state === "done") dismiss(row);
}

