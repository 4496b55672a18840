/* What went wrong, as it is shown wherever it went wrong: what its kind means in the language of the
   page, what the server said about it, and what to do. */

import { button, make } from "./making.js";
import { say, t } from "./words.js";

/** A box that says what went wrong, why, and what to do. */
export function problemBox(problem, again) {
  const retry = again && say(button("plain", again), "ask_again");
  return make("div", { class: "failed", role: "alert" }, problemLines(problem), retry);
}

/** The sentences of a problem: what its kind means here, what the server said, and its hint. */
export function problemLines(problem) {
  const meaning = make("p", {}, make("strong", {}, problem.meaning ?? t("kind_error")));
  const said = problem.message && problem.message !== problem.meaning;
  const message = said ? make("p", { class: "error" }, problem.message) : null;
  return [meaning, message, problem.hint ? make("p", { class: "why" }, problem.hint) : null];
}
