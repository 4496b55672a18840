/* Where the page begins: the panes are wired to each other, and the server is asked how it is. */

import { get, listenTo } from "./api.js";
import { answers, gone, onReturn, showState } from "./connection.js";
import { busy, startConversation, stop } from "./conversation.js";
import { chooseFiles, readDocuments, startDocuments } from "./documents.js";
import { showEvaluations, startEvaluations } from "./evaluations.js";
import { askForKey } from "./key.js";
import { button, fill, icon, make } from "./making.js";
import { showManner } from "./manner.js";
import { showRuns, startRuns, leaveRuns } from "./runs.js";
import { openSettings } from "./settings.js";
import { closeSource, openPassage } from "./source.js";
import { startTheme } from "./theme.js";
import { firstLanguage, language, say, sayAll, speak, t } from "./words.js";

const by = (id) => document.getElementById(id);
const WIDE = window.matchMedia("(min-width: 68rem)");
const PHONE = window.matchMedia("(max-width: 47.99rem)");
const STATE_PAUSE = 1500;
const VIEWS = {
  ask: { show: () => {} },
  evaluations: { show: showEvaluations },
  training: { show: showRuns, leave: leaveRuns },
};
let view = "ask";

function start() {
  if (language() !== firstLanguage()) speak(firstLanguage());
  listenTo({ key: askForKey, answers, gone });
  startTheme();
  startLanguage();
  startConversation({ open: openPassage });
  startDocuments({ changed: welcome });
  startEvaluations();
  startRuns();
  startPanes();
  showManner();
  welcome(null);
  sayAll();
  onReturn(readAll);
  checkState();
  readDocuments();
}

async function readAll() {
  checkState();
  await readDocuments();
  VIEWS[view].show();
}

async function checkState() {
  try {
    const { status } = await get("v1/health");
    showState(status);
    if (status === "loading") setTimeout(checkState, STATE_PAUSE);
  } catch {
    // The notice of the connection says it, and asks again.
  }
}

function startLanguage() {
  const button = by("language");
  const show = () => {
    const zh = language() === "zh";
    button.textContent = zh ? "English" : "中文";
    button.lang = zh ? "en" : "zh";
  };
  button.addEventListener("click", () => speak(language() === "zh" ? "en" : "zh"));
  document.addEventListener("consilience:language", show);
}

/* What is said before anything was asked depends on whether there is anything to ask. */
function welcome(total, documents = []) {
  if (total === null) return;
  const empty = total === 0;
  const passages = documents.reduce((sum, one) => sum + one.passages, 0);
  const facts = say(make("p"), "welcome_count", { n: total, passages: () => t("passages", { n: passages }) });
  const choose = button("primary", chooseFiles, icon("add"), say(make("span"), "add_documents"));
  fill(
    by("welcome"),
    say(make("h2"), empty ? "welcome_empty" : "welcome"),
    say(make("p"), empty ? "welcome_empty_more" : "welcome_more"),
    empty ? choose : documents.length === total && facts,
  );
}

function startPanes() {
  const hidden = () => by("panes").classList.contains("without-documents");
  by("documents-tab").addEventListener("click", () => showDocuments(hidden()));
  by("close-documents").addEventListener("click", () => (showDocuments(false), by("documents-tab").focus()));
  by("views").addEventListener("click", (event) => event.target.closest("a") && showView());
  by("open-settings").addEventListener("click", () => openSettings());
  by("manner").addEventListener("click", () => openSettings("manner"));
  document.addEventListener("consilience:documents", () => showDocuments(true));
  document.addEventListener("keydown", onKey);
  window.addEventListener("hashchange", route);
  WIDE.addEventListener("change", () => showDocuments(WIDE.matches));
  showDocuments(WIDE.matches);
  route();
}

/* Where only one pane fits, going to a view closes what lies over it. */
function showView() {
  if (!WIDE.matches) showDocuments(false);
  if (PHONE.matches) closeSource();
}

function showDocuments(is) {
  by("panes").classList.toggle("without-documents", !is);
  by("documents-tab").setAttribute("aria-expanded", String(is));
}

function onKey(event) {
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) {
    if (busy()) stop();
    else if (!closeSource() && !WIDE.matches) showDocuments(false);
  }
  if (event.key === "/" && !event.target.matches("input, textarea, select")) {
    event.preventDefault();
    by("question").focus();
  }
}

function route() {
  const wanted = location.hash.slice(1) || "ask";
  if (!Object.hasOwn(VIEWS, wanted)) return;
  if (wanted !== view) VIEWS[view].leave?.();
  view = wanted;
  document.body.dataset.view = view;
  for (const name of Object.keys(VIEWS)) by(`${name}-view`).hidden = name !== view;
  for (const link of by("views").querySelectorAll("a")) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (view !== "ask") closeSource();
  VIEWS[view].show();
}

start();
