/* Evaluations: which there are and what they measured, starting one, and opening its report. */

import { address, get, hasKey, Problem, send } from "./api.js";
import { confirmBox } from "./confirming.js";
import { count, duration, moment, number } from "./format.js";
import { isActive, listenToJobs, noteJobs } from "./jobs.js";
import { button, fill, icon, make } from "./making.js";
import { mannerOf } from "./manner.js";
import { problemLines } from "./problems.js";
import { label, listed, say } from "./words.js";

const body = document.getElementById("evaluations-body");
const problem = make("div");
const jobs = make("ul", { class: "jobs" });
const table = make("div", { class: "table" });
const rows = new Map();

/** Draw what never changes. */
export function startEvaluations() {
  fill(body, say(make("p", { class: "lead" }), "evaluations_more"), startForm(), problem, jobs, table);
  listenToJobs((job) => job.kind === "evaluation" && showJob(job));
}

/** Read the evaluations again. */
export async function showEvaluations() {
  try {
    const { evaluations } = await get("v1/evaluations");
    fill(table, evaluations.length ? tableOf(evaluations) : say(make("p", { class: "empty" }), "no_evaluations"));
  } catch (error) {
    fill(table, make("div", { class: "failed" }, problemLines(error)));
  }
}

function startForm() {
  const file = make("input", { type: "file", name: "data", id: "evaluation-data", required: true });
  const name = make("input", { name: "name", id: "evaluation-name", autocomplete: "off" });
  const limit = make("input", { name: "limit", id: "evaluation-limit", type: "number", min: 1, step: 1 });
  const fields = [["question_file", file], ["name", name], ["first_n", limit]].map(fieldOf);
  const form = make("form", { class: "starting" }, fields, say(make("button", { class: "primary" }), "start"));
  form.addEventListener("submit", (event) => (event.preventDefault(), begin(form)));
  return form;
}

function fieldOf([key, input]) {
  return make("div", { class: "field" }, say(make("label", { for: input.id }), key), input);
}

async function begin(form) {
  const given = new FormData(form);
  for (const [name, value] of [...given]) if (value === "") given.delete(name);
  // They are asked as questions are asked here.
  for (const [name, value] of Object.entries(mannerOf())) if (["k", "mode"].includes(name)) given.set(name, value);
  fill(problem);
  try {
    const job = await send("POST", "v1/evaluations", { form: given });
    form.reset();
    noteJobs([job]);
  } catch (error) {
    fill(problem, make("div", { class: "failed", role: "alert" }, problemLines(error)));
  }
}

function showJob(job) {
  const row = rows.get(job.id) ?? (isActive(job) || job.state === "failed" ? rowOf(job) : null);
  if (row === null) return;
  if (row.state !== "done" && job.state === "done") showEvaluations();
  row.state = job.state;
  row.bar.hidden = !isActive(job);
  if (job.total > 0) row.bar.value = job.done / job.total;
  fill(row.text, stateOf(job));
  fill(row.problem, job.error && job.state === "failed" ? problemLines(new Problem(job.error)) : null);
  row.cancel.hidden = !isActive(job);
  if (job.state === "done") row.node.remove();
}

function stateOf(job) {
  if (!isActive(job) || job.state === "waiting") return say(make("span"), job.state);
  const facts = [["asked_of", { done: () => count(job.done), total: () => count(job.total) }]];
  if (job.rate > 0) facts.push(["rate_questions", { rate: () => number(job.rate, 2) }]);
  if (job.seconds_left > 0) facts.push(["left", { time: () => duration(job.seconds_left) }]);
  return listed(facts);
}

function rowOf(job) {
  const bar = make("progress", { max: "1", "aria-label": job.name });
  const row = { bar, text: make("p", { class: "state" }), problem: make("div") };
  row.cancel = say(button("plain", () => cancel(job, row)), "cancel");
  const line = make("div", { class: "line" }, make("span", { class: "name" }, job.name), row.cancel);
  row.node = make("li", { class: "job" }, line, row.bar, row.text, row.problem);
  rows.set(job.id, row);
  jobs.append(row.node);
  return row;
}

async function cancel(job, row) {
  try {
    noteJobs([await send("POST", `v1/jobs/${encodeURIComponent(job.id)}/cancel`)]);
  } catch (error) {
    fill(row.problem, problemLines(error));
  }
}

function tableOf(evaluations) {
  const names = [...new Set(evaluations.flatMap((one) => Object.keys(one.metrics)))];
  const heads = ["name", "asked_when", "questions"].map((key) => say(make("th", { scope: "col" }), key));
  const columns = names.map((name) => make("th", { scope: "col" }, name));
  const head = make("thead", {}, make("tr", {}, heads, columns, make("td")));
  return make("table", {}, head, make("tbody", {}, evaluations.map((one) => lineOf(one, names))));
}

function lineOf(one, names) {
  const cell = (text) => make("td", { class: "number-cell" }, text);
  const values = names.map((name) => cell(valueOf(one.metrics[name])));
  const actions = make("td");
  actionsOf(one, actions);
  const name = make("th", { scope: "row" }, one.name);
  return make("tr", {}, name, cell(moment(one.created)), cell(count(one.questions)), values, actions);
}

const valueOf = (value) => (typeof value === "number" ? number(value, 3) : "–");

function actionsOf(one, cell) {
  const remove = button("quiet small square", () => confirm(one, cell), icon("delete"));
  label(remove, "delete_evaluation", { name: one.name });
  fill(cell, make("div", { class: "row" }, one.report && reportOf(one), isActive(one) ? null : remove));
}

function confirm(one, cell) {
  const yes = async () => {
    await send("DELETE", `v1/evaluations/${encodeURIComponent(one.id)}`);
    await showEvaluations();
  };
  const no = () => actionsOf(one, cell);
  const box = confirmBox({ key: "delete_evaluation_question", values: { name: one.name }, yes, no });
  fill(cell, box.node);
  box.focus();
}

/** The report in a new tab. A tab sends no key, so with one the server gives an address for a while. */
function reportOf(one) {
  const path = `v1/evaluations/${encodeURIComponent(one.id)}`;
  const link = say(make("a", { href: address(`${path}/report`).href, target: "_blank", rel: "noopener" }), "report");
  if (hasKey()) link.addEventListener("click", (event) => (event.preventDefault(), openLinked(path)));
  return label(link, "report_of", { name: one.name });
}

async function openLinked(path) {
  try {
    const { url } = await send("POST", `${path}/link`);
    make("a", { href: address(url.replace(/^\//, "")).href, target: "_blank", rel: "noopener" }).click();
  } catch (error) {
    fill(problem, make("div", { class: "failed", role: "alert" }, problemLines(error)));
  }
}
