/* Training runs: which there are, and the curves of one, growing while it goes on. */

import { follow, get } from "./api.js";
import { chart } from "./curves.js";
import { moment } from "./format.js";
import { keep, kept } from "./keeping.js";
import { button, fill, make } from "./making.js";
import { problemLines } from "./problems.js";
import { has, listed, say, t } from "./words.js";

const PAUSE = 3000;
const SMOOTH = "consilience.smooth";
const NO_CURVE = /^(step|epoch|total_flos)$|_(runtime|per_second|flos)$/;
const body = document.getElementById("training-body");
const picker = make("div", { class: "runs", role: "group" });
const place = make("div");
let chosen = null;

/** Draw what never changes. */
export function startRuns() {
  fill(body, say(make("p", { class: "lead" }), "runs_more"), picker, place);
  document.addEventListener("consilience:language", () => chosen && drawCurves(chosen));
}

/** Read the runs again, and watch the one that was watched. */
export async function showRuns() {
  try {
    const { runs } = await get("v1/runs");
    showPicker(runs);
    const wanted = runs.find((one) => one.name === chosen?.name) ?? runs[0];
    if (wanted) await watch(wanted);
    else fill(place, say(make("p", { class: "empty" }), "no_runs"));
  } catch (problem) {
    fill(place, make("div", { class: "failed" }, problemLines(problem)));
  }
}

/** Stop watching. */
export function leaveRuns() {
  chosen?.abort.abort();
}

function showPicker(runs) {
  fill(picker, runs.map(buttonOf));
}

function buttonOf(run) {
  const steps = [run.total ? "steps_of" : "steps", { n: run.steps, total: run.total }];
  const facts = make("small", {}, listed([[stateWord(run.state)], steps]));
  if (run.objective) facts.append(` · ${run.objective}`);
  if (run.started) facts.append(` · ${moment(run.started)}`);
  const node = button("run", () => watch(run), make("strong", {}, run.name), facts);
  node.setAttribute("aria-pressed", "false");
  node.dataset.run = run.name;
  return node;
}

const stateWord = (state) => (has(`state_${state}`) ? `state_${state}` : state);

async function watch(run) {
  leaveRuns();
  const kept = { name: run.name, state: run.state, points: [], hidden: chosen?.hidden ?? new Set() };
  const now = { ...kept, charts: new Map(), abort: new AbortController() };
  chosen = now;
  pressChosen();
  try {
    now.points = (await get(`v1/runs/${encodeURIComponent(run.name)}`, {}, { signal: now.abort.signal })).points;
    fill(place);
    drawCurves(now);
    if (run.state === "running") await keepWatching(now);
  } catch (problem) {
    if (problem.name !== "AbortError") fill(place, make("div", { class: "failed" }, problemLines(problem)));
  }
}

async function keepWatching(now) {
  while (chosen === now && now.state === "running") {
    await watchOnce(now).catch((problem) => {
      if (problem.name === "AbortError") throw problem;
    });
    if (now.state === "running") await new Promise((done) => setTimeout(done, PAUSE));
  }
}

/** Listen until the run is over, or the server has told enough for one time. */
async function watchOnce(now) {
  const after = now.points.at(-1)?.step ?? -1;
  const path = `v1/runs/${encodeURIComponent(now.name)}/events`;
  for await (const { name, data } of follow(path, { query: { after }, signal: now.abort.signal })) {
    told[name]?.(now, data);
    drawCurves(now);
    if (now.state !== "running") return;
  }
}

const told = {
  points: (now, { points }) => now.points.push(...points),
  // The run went on from an earlier step, and its log was written again.
  anew: (now) => (now.points = []),
  run: (now, run) => {
    now.state = run.state;
    picker.querySelector(`[data-run="${CSS.escape(run.name)}"]`)?.replaceWith(buttonOf(run));
    pressChosen();
  },
};

function pressChosen() {
  for (const one of picker.children) one.setAttribute("aria-pressed", String(one.dataset.run === chosen?.name));
}

/** Lines by chart: what is measured stands in the chart of what is trained on. */
export function linesOf(points) {
  const charts = new Map();
  for (const point of points) {
    for (const [key, value] of Object.entries(point)) {
      if (NO_CURVE.test(key) || typeof value !== "number" || !Number.isFinite(value)) continue;
      const name = key.replace(/^eval_/, "");
      const lines = charts.get(name) ?? charts.set(name, new Map()).get(name);
      const line = lines.get(key) ?? lines.set(key, []).get(key);
      line.push([point.step, value]);
    }
  }
  return charts;
}

function drawCurves(now) {
  if (chosen !== now) return;
  const charts = linesOf(now.points);
  if (!now.grid?.isConnected) {
    now.controls = make("div", { class: "watching" });
    now.grid = make("div", { class: "charts" });
    fill(place, now.controls, now.grid);
  }
  showControls(now, [...charts.keys()]);
  for (const [name, lines] of charts) drawChart(now, name, lines);
}

function drawChart(now, name, lines) {
  if (!now.charts.has(name)) {
    now.charts.set(name, chart(name));
    now.grid.append(now.charts.get(name).node);
  }
  const { node, show } = now.charts.get(name);
  node.hidden = now.hidden.has(name);
  const made = [...lines].map(([key, points]) => {
    const second = key.startsWith("eval_");
    return { name: key, points, second, hue: second ? 2 : 1 };
  });
  show(made, { smooth: kept(SMOOTH) === "yes" });
}

function showControls(now, names) {
  const sign = `${names.join()}|${now.state}|${document.documentElement.lang}`;
  if (now.sign === sign) return;
  now.sign = sign;
  const smooth = box(t("smooth"), kept(SMOOTH) === "yes", (is) => keep(SMOOTH, is ? "yes" : null), now);
  const set = (name) => (is) => (is ? now.hidden.delete(name) : now.hidden.add(name));
  const curves = names.map((name) => box(name, !now.hidden.has(name), set(name), now));
  const live = now.state === "running" ? make("strong", { class: "live" }, `● ${t("live")}`) : null;
  fill(now.controls, live, smooth, make("span", { role: "group", "aria-label": t("curves"), class: "row" }, curves));
}

function box(name, checked, onchange, now) {
  const input = make("input", { type: "checkbox", checked });
  input.addEventListener("change", () => (onchange(input.checked), drawCurves(now)));
  return make("label", {}, input, name);
}
