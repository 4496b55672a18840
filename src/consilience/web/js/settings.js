/* The settings drawer: this page, each question, and the config file of the server. */

import { get, send } from "./api.js";
import { closer, keptKey } from "./key.js";
import { fill, make } from "./making.js";
import { mannerFields } from "./manner.js";
import { serverFields } from "./server_settings.js";
import { paint, theme, THEMES } from "./theme.js";
import { problemLines } from "./problems.js";
import { language, say, speak } from "./words.js";

const LANGUAGES = { zh: "中文", en: "English" };
const drawer = document.getElementById("settings");

/** Open the drawer; at the section of a name when one is given. */
export function openSettings(section = null) {
  const server = make("section", { id: "server-section" }, say(make("h3"), "server"));
  const heading = say(make("h2", { id: "settings-heading" }), "settings");
  const head = make("div", { class: "pane-head" }, heading, closer(() => drawer.close()));
  const why = say(make("p", { class: "why" }), "each_question_more");
  const manner = make("section", { id: "manner-section" }, say(make("h3"), "each_question"), why, mannerFields());
  fill(drawer, head, pageSection(), manner, server);
  // A handler that returned false would take back what was clicked.
  drawer.onclick = (event) => {
    if (event.target === drawer) drawer.close();
  };
  if (!drawer.open) drawer.showModal();
  if (section) {
    drawer.querySelector(`#${section}-section`).scrollIntoView();
    drawer.querySelector(`#${section}-section :is(input, select)`).focus();
  }
  readServer(server);
}

function pageSection() {
  const tongue = ([one, name]) => make("option", { value: one, selected: language() === one }, name);
  const colour = (one) => say(make("option", { value: one, selected: theme() === one }), `theme_${one}`);
  const languages = make("select", { id: "choose-language" }, Object.entries(LANGUAGES).map(tongue));
  const themes = make("select", { id: "choose-theme" }, THEMES.map(colour));
  languages.addEventListener("change", () => speak(languages.value));
  themes.addEventListener("change", () => paint(themes.value));
  const field = (name, input) => make("div", { class: "field" }, say(make("label", { for: input.id }), name), input);
  const fields = [field("language", languages), field("theme", themes)];
  return make("section", {}, say(make("h3"), "this_page"), fields, keptKey());
}

async function readServer(section) {
  const place = make("div");
  section.append(place);
  try {
    fill(place, serverFields(await get("v1/settings"), (changes) => send("PUT", "v1/settings", { json: changes })));
  } catch (problem) {
    const forbidden = problem.status === 403;
    if (forbidden) fill(place, say(make("p", { class: "why" }), "settings_forbidden"));
    else fill(place, make("div", { class: "failed" }, problemLines(problem)));
  }
}
