/* What the server does in the background, as it tells it: one stream for all who listen. */

import { get, request } from "./api.js";
import { eventsOf } from "./events.js";

const PAUSE = 1500;
const known = new Map();
const listeners = new Set();
let following = false;

/** Whether a job is still to be done. */
export const isActive = (job) => !["done", "failed", "cancelled"].includes(job.state);

/** Be told of every change of every job; what is known already is told at once. */
export function listenToJobs(listener) {
  listeners.add(listener);
  known.forEach(listener);
}

/** Take in what is known of jobs, and go on watching while one is active. */
export function noteJobs(jobs) {
  for (const job of jobs) note(job);
  keepFollowing();
}

/** Read all jobs there are. */
export async function readJobs() {
  noteJobs((await get("v1/jobs")).jobs);
}

/** Take in a job, unless more is known of it: an answer may arrive after what happened since. */
function note(job) {
  if (job.version < known.get(job.id)?.version) return;
  known.set(job.id, job);
  for (const listener of listeners) listener(job);
}

const anyActive = () => [...known.values()].some(isActive);

async function keepFollowing() {
  if (following) return;
  following = true;
  while (anyActive()) {
    await followOnce().catch(() => {});
    if (anyActive()) await new Promise((done) => setTimeout(done, PAUSE));
  }
  following = false;
}

/** Listen first and read afterwards, so that no change falls between the two. */
async function followOnce() {
  const response = await request("v1/jobs/events");
  const { jobs } = await get("v1/jobs");
  known.clear(); // a server that was started again counts versions anew
  jobs.forEach(note);
  if (!anyActive()) return response.body.cancel();
  for await (const { data } of eventsOf(response.body)) {
    note(data);
    if (!anyActive()) return undefined;
  }
  return undefined;
}
