"""The style sheet and the script of the report, as literals. Neither names anything to fetch."""

STYLE = """
:root {
  --ground: #ffffff; --raised: #f6f7f9; --edge: #d9dde3; --ink: #1b1f24; --quiet: #59636e;
  --first: #1f6f54; --second: #c2751a; --good: #18783e; --bad: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14171a; --raised: #1d2125; --edge: #363c43; --ink: #e7eaed; --quiet: #9aa4ae;
    --first: #5cc39b; --second: #e8a657; --good: #6fcf97; --bad: #f2857d;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", "Noto Sans", "Noto Sans CJK SC", "PingFang SC",
    "Microsoft YaHei", sans-serif;
}
main { max-width: 1080px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 .6rem; }
h3 { font-size: .95rem; margin: .8rem 0 .3rem; color: var(--quiet); }
.summary, .note, figcaption { color: var(--quiet); margin: .25rem 0 0; }
.note, figcaption { font-size: .88rem; }
section { margin-top: 2.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .94rem; }
th, td { text-align: start; padding: .38rem .7rem .38rem 0; border-bottom: 1px solid var(--edge); }
th[scope=row] { font-weight: 600; white-space: nowrap; }
thead th { color: var(--quiet); font-weight: 500; white-space: nowrap; }
.wide:focus-visible { outline: 2px solid var(--first); outline-offset: 2px; }
.meaning { min-width: 15rem; }
.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.plots {
  display: grid; gap: 1.2rem; margin-top: 2.2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr));
}
figure {
  margin: 0; padding: 1rem 1.1rem; border: 1px solid var(--edge); border-radius: 10px;
  background: var(--raised);
}
svg.plot { width: 100%; height: auto; display: block; }
svg text { font-size: 12px; fill: var(--quiet); }
svg.interval { width: 120px; height: 16px; display: block; }
.plot line, .interval line { stroke-opacity: 1; }
.grid { stroke: var(--edge); stroke-width: 1; }
.guide { stroke: var(--quiet); stroke-width: 1; stroke-dasharray: 4 4; }
.whisker { stroke: var(--first); stroke-width: 2.5; stroke-linecap: round; }
.line { fill: none; stroke: var(--first); stroke-width: 2.2; stroke-linejoin: round; }
.dot { fill: var(--first); }
.bar0 { fill: var(--first); background: var(--first); }
.bar1 { fill: var(--second); background: var(--second); }
.legend { display: flex; gap: .5rem; align-items: center; font-size: .88rem; margin: .3rem 0 0; }
.swatch { width: .8rem; height: .8rem; border-radius: 2px; display: inline-block; }
.legend .swatch:not(:first-child) { margin-inline-start: .8rem; }
#filters { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; }
#filters[hidden], details[hidden] { display: none; }
input[type=search] {
  font: inherit; padding: .2rem .5rem; border: 1px solid var(--edge); border-radius: 6px;
  background: var(--ground); color: inherit;
}
details { border-bottom: 1px solid var(--edge); padding: .5rem 0; }
summary { cursor: pointer; }
#questions summary { display: flex; gap: .7rem; align-items: baseline; }
.question { flex: 1; overflow-wrap: anywhere; }
.right { color: var(--good); font-weight: 700; }
.wrong { color: var(--bad); font-weight: 700; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .6rem 0 0; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
ol { padding-inline-start: 1.6rem; margin: 0; }
li { margin-top: .5rem; }
.text { margin: .15rem 0 0; white-space: pre-line; overflow-wrap: anywhere; }
.place { overflow-wrap: anywhere; }
.tag {
  font-size: .78rem; border: 1px solid var(--edge); border-radius: 999px; padding: 0 .5rem;
  margin-inline-start: .5rem; color: var(--quiet);
}
pre {
  width: max-content; min-width: 100%; padding: .8rem; border-radius: 8px;
  background: var(--raised);
}
@media (max-width: 560px) { svg.plot text { font-size: 15px; } }
@media print { details { break-inside: avoid; } #filters { display: none; } }
"""

SCRIPT = """
(() => {
  const filters = document.getElementById("filters");
  const search = document.getElementById("search");
  const wrong = document.getElementById("wrong");
  const questions = [...document.querySelectorAll("#questions > details")];
  const show = () => {
    const wanted = search.value.trim().toLowerCase();
    for (const one of questions) {
      const found = one.textContent.toLowerCase().includes(wanted);
      one.hidden = !found || (wrong.checked && one.classList.contains("correct"));
    }
  };
  search.addEventListener("input", show);
  wrong.addEventListener("change", show);
  filters.hidden = false;
})();
"""
