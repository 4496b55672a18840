/* The conversation: what was asked, what is being answered, and what goes along as history.

   It lives in the page and nowhere else; closing the page forgets it. */

import { follow, Problem, request } from "./api.js";
import { tell } from "./connection.js";
import { mannerOf } from "./manner.js";
import { Turn } from "./turn.js";
import { t } from "./words.js";

const LONGEST_HISTORY = 50;
const turns = document.getElementById("turns");
const scroller = document.getElementById("conversation");
const field = document.getElementById("question");
let history = [];
let running = null;
let openSource = () => {};

/** Wire the form; `open` shows a source beside the conversation. */
export function startConversation({ open }) {
  openSource = open;
  document.getElementById("composer").addEventListener("submit", (event) => (event.preventDefault(), submit()));
  field.addEventListener("keydown", onKey);
  document.getElementById("stop").addEventListener("click", stop);
  document.getElementById("new-conversation").addEventListener("click", begin);
}

/** Whether a question is being answered. */
export const busy = () => running !== null;

/** Stop the answer that is being written, here and on the server. */
export function stop() {
  if (running === null) return;
  running.stopped = true;
  if (running.id) tellServer(running.id);
  running.abort.abort();
}

/** A closed connection ends the work too, but something between here and there may hold it open. */
function tellServer(id) {
  request(`v1/ask/${encodeURIComponent(id)}`, { method: "DELETE", keepalive: true }).catch(() => {});
}

/** Forget everything that was said. */
export function begin() {
  stop();
  history = [];
  turns.replaceChildren();
  showState();
  field.focus();
}

function onKey(event) {
  // The key that ends the spelling of a Chinese word is no wish to send.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  submit();
}

function submit() {
  const question = field.value.trim();
  if (!question || busy()) return;
  field.value = "";
  ask(question);
}

async function ask(question) {
  const turn = new Turn(question, { open: openSource, again: () => askAgain(turn) });
  const work = { abort: new AbortController(), id: null, stopped: false };
  running = work;
  turns.append(turn.node);
  showState();
  keepInSight(turn.node);
  try {
    await listen(question, turn, work);
  } catch (error) {
    if (work.stopped) turn.stopped();
    else turn.failed(error instanceof Problem ? error : new Problem({ message: t("broken_stream") }));
  } finally {
    if (running === work) running = null;
    showState();
    keepInSight(turn.node);
  }
}

function askAgain(turn) {
  if (busy()) return;
  turn.node.remove();
  ask(turn.question);
}

async function listen(question, turn, work) {
  const json = { question, history: history.slice(-LONGEST_HISTORY), ...mannerOf(), explain: true, stream: true };
  let finished = false;
  for await (const { name, data } of follow("v1/ask", { method: "POST", json, signal: work.abort.signal })) {
    if (name === "error") throw new Problem(data.error ?? data);
    heard[name]?.(data, { question, turn, work });
    finished ||= name === "answer";
    keepInSight(turn.node);
  }
  if (!finished) throw new Problem({ message: t("broken_stream") });
}

const heard = {
  start: ({ id }, { work }) => (work.id = id),
  retrieved: (data, { turn, work }) => {
    work.hits = data.hits;
    turn.found(data);
    tell(t("reading", { n: data.hits.length }));
  },
  token: (data, { turn }) => turn.wrote(data),
  answer: (data, { question, turn, work }) => {
    const answer = { ...data, hits: data.hits ?? work.hits ?? [], posterior: data.posterior ?? {} };
    turn.answered(answer);
    history.push({ question, answer: answer.answer });
    tell(spoken(answer));
  },
};

function spoken(answer) {
  if (answer.abstained) return `${t("not_in_documents")}.`;
  return `${t("answer_of", { text: answer.answer })} ${t("sources_below", { n: answer.citations.length })}`;
}

/** Keep the end of the answer in sight, but never its question out of it. */
function keepInSight(node) {
  const most = scroller.scrollHeight - scroller.clientHeight;
  const wanted = Math.min(most, node.offsetTop - 12);
  if (wanted > scroller.scrollTop) scroller.scrollTop = wanted;
}

function showState() {
  document.getElementById("ask").hidden = busy();
  document.getElementById("stop").hidden = !busy();
  document.getElementById("welcome").hidden = turns.children.length > 0;
  document.getElementById("new-conversation").hidden = turns.children.length === 0;
}
