/* Asking before something is deleted, in the place where it stands. */

import { button, make } from "./making.js";
import { problemLines } from "./problems.js";
import { say } from "./words.js";

/** A question with two buttons. `yes` does it, and a problem of that is shown here; `no` is the way
    back, and has the focus. */
export function confirmBox({ key, values, yes, no }) {
  const problem = make("div");
  const doIt = async () => {
    try {
      await yes();
    } catch (error) {
      problem.replaceChildren(...problemLines(error).filter(Boolean));
    }
  };
  const leave = say(button("plain", no), "keep");
  const row = make("div", { class: "row" }, say(button("danger", doIt), "delete"), leave);
  const box = make("div", { class: "confirm", role: "group" }, say(make("p"), key, values), row, problem);
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    no();
  });
  return { node: box, focus: () => leave.focus() };
}
