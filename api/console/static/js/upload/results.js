// Polls the jobs of sent files, up to a hundred per request.

import { get } from "../api.js";

const PAUSE_MS = 2000;
const MAX_PAUSE_MS = 30000;
const AT_ONCE = 100;
const FINAL = new Set(["succeeded", "rejected", "failed", "cancelled"]);

export class Results extends EventTarget {
  #open = new Map(); // items by job id, in order of arrival, which is about the order of their results
  #timer = null;
  #pause_ms = PAUSE_MS;

  follow(item) {
    if (item.state !== "accepted") return; // a duplicate's result is that of another file
    this.#open.set(item.job_id, item);
    this.#timer ??= setTimeout(() => this.#look(), PAUSE_MS);
  }

  async #look() {
    const asked = [...this.#open.keys()].slice(0, AT_ONCE);
    let ended = 0;
    try {
      const { jobs } = await get(`/v1/jobs?${new URLSearchParams(asked.map((id) => ["id", id]))}`);
      for (const job of jobs) ended += this.#note(job);
      this.#pause_ms = PAUSE_MS;
    } catch {
      this.#pause_ms = Math.min(2 * this.#pause_ms, MAX_PAUSE_MS);
    }
    if (ended) document.dispatchEvent(new Event("studies-sent"));
    // If all requested jobs have ended, later ones may have, too.
    const pause_ms = ended === AT_ONCE ? 0 : this.#pause_ms;
    this.#timer = this.#open.size ? setTimeout(() => this.#look(), pause_ms) : null;
  }

  // Returns whether the job has ended.
  #note(job) {
    const item = this.#open.get(job.id);
    Object.assign(item, { state: job.state, code: job.code, reason: job.reason });
    if (FINAL.has(job.state)) this.#open.delete(job.id);
    this.dispatchEvent(new Event("change"));
    return FINAL.has(job.state);
  }
}
