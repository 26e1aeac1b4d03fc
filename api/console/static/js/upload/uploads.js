// All files of an upload with their states; sends four at a time.
// Events: `change`, often; `arrived` with an item that the server has; `end` when nothing is left to send.

import { newKey } from "../unsaved/store.js";
import { transfer } from "./transfer.js";

const AT_ONCE = 4;

export class Uploads extends EventTarget {
  items = [];
  isReading = 0; // folders that are being walked
  #waiting = [];
  #running = 0;
  #stop = new AbortController();

  // `files` is an iterable or an async iterable.
  async add(files, priority) {
    this.isReading += 1;
    try {
      for await (const file of files) this.#enqueue({ ...file, priority, key: newKey(), state: "waiting", sent: 0 });
    } finally {
      this.isReading -= 1;
      this.#next();
    }
  }

  retry() {
    for (const item of this.items.filter((each) => each.state === "not sent")) {
      Object.assign(item, { state: "waiting", sent: 0, code: null, reason: null });
      this.#waiting.push(item);
    }
    this.#next();
  }

  // Files that have arrived stay on the server.
  cancel() {
    for (const item of this.#waiting.splice(0)) item.state = "cancelled here";
    this.#stop.abort();
    this.#stop = new AbortController();
    this.#changed();
  }

  get isSending() {
    return this.isReading + this.#running + this.#waiting.length > 0;
  }

  // The fraction of all files that is sent, 0 to 1.
  get progress() {
    const sent = this.items.reduce((sum, item) => sum + (isUnderWay(item) ? item.sent : 1), 0);
    return this.items.length ? sent / this.items.length : 0;
  }

  #enqueue(item) {
    this.items.push(item);
    this.#waiting.push(item);
    this.#next();
  }

  #next() {
    while (this.#running < AT_ONCE && this.#waiting.length) this.#send(this.#waiting.shift());
    this.#changed();
    if (!this.isSending) this.dispatchEvent(new Event("end"));
  }

  async #send(item) {
    this.#running += 1;
    item.state = "sending";
    const signal = this.#stop.signal;
    const onProgress = (part) => {
      item.sent = part;
      this.#changed();
    };
    try {
      const { outcome, code, reason, study_id, job_id } = await transfer(await item.open(), { ...item, signal, onProgress });
      Object.assign(item, { state: outcome, code, reason, study_id, job_id, sent: 1 });
      this.dispatchEvent(new CustomEvent("arrived", { detail: item }));
    } catch (error) {
      if (signal.aborted) item.state = "cancelled here";
      else Object.assign(item, { state: "not sent", code: error.code ?? error.name, reason: error.message });
    }
    this.#running -= 1;
    this.#next();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

export function isUnderWay(item) {
  return item.state === "waiting" || item.state === "sending";
}

export function isTrouble(item) {
  return ["not sent", "rejected", "failed"].includes(item.state);
}
