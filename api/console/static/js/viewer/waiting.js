// Follows a running job and reports each change of its state.

import { get } from "../api.js";

const WAIT_S = 20;
const AFTER_ERROR_MS = 5000;

export class Waiting {
  #stop = null;
  #onChange;

  constructor(onChange) {
    this.#onChange = onChange;
  }

  // Follows one job, or none; stops following the previous one.
  follow(job) {
    this.#stop?.abort();
    this.#stop = null;
    if (!job || job.finished_at) return;
    this.#stop = new AbortController();
    this.#run(job, this.#stop.signal);
  }

  async #run(job, signal) {
    let { state } = job;
    while (!signal.aborted) {
      try {
        // The answer comes when the job has ended or after a while; then it may show an intermediate state.
        const now = await get(`/v1/jobs/${job.id}?wait=${state === "queued" ? 2 : WAIT_S}`, { signal });
        if (now.state !== state) this.#onChange(now);
        if (now.finished_at) return;
        state = now.state;
      } catch (error) {
        if (error.name === "AbortError") return;
        await new Promise((resolve) => setTimeout(resolve, AFTER_ERROR_MS));
      }
    }
  }
}
