/* Curves of a training run, drawn as SVG: axes, one or two lines, a cursor for pointer and keys.

   Knows numbers by step and nothing of where they come from. */

import { number } from "./format.js";
import { draw, fill, make } from "./making.js";
import { say, t } from "./words.js";

const [NARROWEST, HEIGHT] = [260, 220];
const EDGE = { left: 52, right: 10, top: 10, bottom: 26 };
const WEIGHT = 0.85;

/** Each value as the mean of those before it, the nearer the heavier; begins at the first value. */
export function smoothed(points, weight = WEIGHT) {
  let [sum, mass] = [0, 0];
  return points.map(([x, y]) => {
    sum = weight * sum + (1 - weight) * y;
    mass = weight * mass + (1 - weight);
    return [x, sum / mass];
  });
}

/** Round numbers from at or above the first to at or below the last, about so many. */
export function ticks(low, high, about = 4) {
  if (!(high > low)) return [low];
  const rough = (high - low) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((one) => one * power >= rough);
  const [first, last] = [Math.ceil(low / step - 1e-9), Math.floor(high / step + 1e-9)];
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/** A chart with a name; `show(lines, {smooth})` draws lines `{name, hue, second, points}`. */
export function chart(name) {
  const svg = draw("svg", { "aria-hidden": "true" });
  const plot = make("div", { class: "plot", role: "slider", tabindex: "0" }, svg);
  const values = make("p", { class: "values" });
  const node = make("figure", { class: "chart" }, make("h2", {}, name), plot, values);
  const state = { name, svg, plot, values, lines: [], smooth: false, at: null, width: NARROWEST };
  new ResizeObserver(() => state.lines.length && state.width !== plot.clientWidth && redraw(state)).observe(plot);
  svg.addEventListener("pointermove", (event) => point(state, event));
  svg.addEventListener("pointerleave", () => setCursor(state, null));
  plot.addEventListener("keydown", (event) => move(state, event));
  return {
    node,
    show(lines, { smooth }) {
      Object.assign(state, { lines: lines.filter((one) => one.points.length), smooth });
      redraw(state);
    },
  };
}

/* As wide as there is room, so that the letters keep their size. */
function redraw(state) {
  state.width = Math.max(NARROWEST, state.plot.clientWidth);
  state.svg.setAttribute("viewBox", `0 0 ${state.width} ${HEIGHT}`);
  state.scale = scaleOf(state.lines.flatMap((line) => line.points), state.width);
  const curves = state.lines.flatMap((line) => curve(line, state));
  fill(state.svg, axes(state.scale), curves, draw("line", { class: "cursor" }));
  state.steps = [...new Set(state.lines.flatMap((line) => line.points.map(([x]) => x)))].sort((a, b) => a - b);
  setCursor(state, state.at);
}

function scaleOf(points, width) {
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  const least = (all) => all.reduce((a, b) => Math.min(a, b), Infinity);
  const most = (all) => all.reduce((a, b) => Math.max(a, b), -Infinity);
  const [x0, x1, low, high] = [least(xs), most(xs), least(ys), most(ys)];
  const room = high > low ? (high - low) * 0.06 : Math.abs(high) * 0.1 || 1;
  const [y0, y1] = [low - room, high + room];
  const x = (value) => EDGE.left + ((value - x0) / (x1 - x0 || 1)) * (width - EDGE.left - EDGE.right);
  const y = (value) => HEIGHT - EDGE.bottom - ((value - y0) / (y1 - y0)) * (HEIGHT - EDGE.top - EDGE.bottom);
  return { x0, x1, y0, y1, x, y, right: width - EDGE.right };
}

function axes({ x0, x1, y0, y1, x, y, right }) {
  const bottom = HEIGHT - EDGE.bottom;
  const rows = ticks(y0, y1).flatMap((value) => [
    draw("line", { class: "grid", x1: EDGE.left, x2: right, y1: y(value), y2: y(value) }),
    draw("text", { x: EDGE.left - 6, y: y(value) + 4, "text-anchor": "end" }, number(value)),
  ]);
  const columns = ticks(x0, x1, 5).map((value) =>
    draw("text", { x: x(value), y: bottom + 18, "text-anchor": "middle" }, number(value, 6)),
  );
  return [...rows, ...columns, draw("line", { class: "axis", x1: EDGE.left, x2: right, y1: bottom, y2: bottom })];
}

function curve({ points, hue, second }, { scale, smooth }) {
  const classes = `curve hue-${hue}${second ? " second" : ""}`;
  const [[x, y]] = points;
  if (points.length === 1) return [draw("circle", { class: `dot hue-${hue}`, r: 3, cx: scale.x(x), cy: scale.y(y) })];
  const line = draw("path", { class: classes, d: path(smooth ? smoothed(points) : points, scale) });
  return smooth ? [draw("path", { class: `raw hue-${hue}`, d: path(points, scale) }), line] : [line];
}

function path(points, { x, y }) {
  return points.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");
}

function point(state, event) {
  const box = state.svg.getBoundingClientRect();
  const at = ((event.clientX - box.left) / box.width) * state.width;
  const away = (step) => Math.abs(state.scale.x(step) - at);
  setCursor(state, state.steps.reduce((best, step) => (away(step) < away(best) ? step : best)));
}

function move(state, event) {
  const last = state.steps.length - 1;
  const at = state.at === null ? last : state.steps.indexOf(state.at);
  const jump = Math.max(1, Math.round(last / 10));
  const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: jump, PageDown: -jump };
  const to = { Home: 0, End: last }[event.key] ?? at + by[event.key];
  if (Number.isNaN(to)) return;
  event.preventDefault();
  setCursor(state, state.steps[Math.min(last, Math.max(0, to))]);
}

/** Show the values of a step, or of the last one with null. */
function setCursor(state, step) {
  state.at = step;
  const shown = step ?? state.steps.at(-1);
  const line = state.svg.querySelector(".cursor");
  const set = { x1: state.scale.x(shown), x2: state.scale.x(shown), y1: EDGE.top, y2: HEIGHT - EDGE.bottom };
  for (const [name, value] of Object.entries(set)) line.setAttribute(name, value);
  line.toggleAttribute("hidden", step === null);
  const found = state.lines.map((one) => ({ ...one, value: valueAt(one.points, shown) }));
  fill(state.values, found.map(keyOf), say(make("span"), "at_step", { step: () => number(shown, 9) }));
  tellSlider(state, shown, found);
}

function valueAt(points, step) {
  return points.findLast(([x]) => x <= step)?.[1] ?? null;
}

function keyOf({ name, hue, second, value }) {
  const kind = `key hue-${hue}${second ? " second" : ""}`;
  return make("span", { class: kind }, `${name} ${value === null ? "–" : number(value)}`);
}

function tellSlider({ plot, name, steps }, shown, found) {
  const values = found.map((one) => `${one.name} ${one.value === null ? "–" : number(one.value)}`).join(", ");
  plot.setAttribute("aria-label", t("chart_label", { name }));
  plot.setAttribute("aria-valuemin", steps[0]);
  plot.setAttribute("aria-valuemax", steps.at(-1));
  plot.setAttribute("aria-valuenow", shown);
  plot.setAttribute("aria-valuetext", `${t("at_step", { step: number(shown, 9) })}: ${values}`);
}
