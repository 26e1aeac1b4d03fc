// Sends a reader's review actions in order, and repeats each until the server has acknowledged it.
//
// Each entry is stored before it is sent, and has its own idempotency key, so that it takes effect once however often it is
// sent. Events: `change` when the saved state may differ; `saved` {entry, number, review}; `review` {entry, review}, where
// others have changed one; `refused` {entry, error}.

import { ApiError, get, isLeaving, reader, send, signIn } from "../api.js";
import { eventsAgainst, takenAs } from "./conflicts.js";
import { MAX_ENTRIES, entries, entry as stored, newKey, nextName, put, remove } from "./store.js";

const ANSWER_S = 20; // a server that takes longer is tried again
const MAX_PAUSE_S = 15;
const MAX_LOOKS = 3; // at a review that others change while an entry is on its way
const REMEMBERED_MS = 24 * 3600 * 1000; // the server knows a key for twice as long

class Sender extends EventTarget {
  version = 0; // rises with each change of the unsaved entries
  problem = null; // why nothing can be sent at present
  conflicts = new Map(); // by job: {entry, review, against}; its entries wait for the reader's choice
  hasSaved = false;
  isSending = false;
  #fresh = new Map(); // callbacks of entries whose first attempt is running, by name
  #latest = new Map(); // the latest review that the server told of, by job
  #pause_s = 1;
  #timer = null;

  // Keeps an entry and sends it. Resolves to {review} once it is saved, to {waits: true} where it can only wait, and to
  // {error} where it was refused.
  add({ study_id, image_id, job_id, path = "", said = null, seen, words }) {
    if (entries().length >= MAX_ENTRIES) {
      return Promise.resolve({ error: new Error(`${MAX_ENTRIES} verdicts are not saved yet. Wait until the server has taken them.`) });
    }
    const name = nextName();
    put({ name, reader, id: newKey(), at: Date.now(), study_id, image_id, job_id, path, said, words, seen, mine: [], after: null, looks: 0 });
    this.#changed();
    if (this.problem || this.conflicts.has(job_id)) {
      this.send();
      return Promise.resolve({ waits: true });
    }
    return new Promise((resolve) => {
      this.#fresh.set(name, resolve);
      this.send();
    });
  }

  // Entries shown as if saved: all except those in their first attempt.
  waiting(jobId) {
    return entries().filter(({ name, job_id }) => job_id === jobId && !this.#fresh.has(name));
  }

  async send() {
    if (this.isSending) return;
    this.isSending = true;
    clearTimeout(this.#timer);
    this.#changed();
    try {
      for (let next = this.#next(); next; next = this.#next()) await this.#alone(() => this.#send(stored(next.name)));
      this.problem = null;
      this.#pause_s = 1;
    } catch (error) {
      this.#wait(error);
    }
    this.isSending = false;
    this.#changed();
    const isBusy = isLeaving() || document.querySelector("dialog[open]");
    if (this.problem?.status === 401 && !isBusy) signIn(); // all is kept until then
  }

  // Resolves a conflict: with `isMine` the entry is sent again, else it and later entries on the same finding are dropped.
  choose(jobId, isMine) {
    const { entry, review } = this.conflicts.get(jobId);
    for (const other of entries().filter((one) => one.job_id === jobId)) {
      const isSame = other.name === entry.name || other.said?.finding_id && other.said.finding_id === entry.said?.finding_id;
      if (!isMine && isSame) remove(other.name);
      else if (isMine) put({ ...other, seen: Math.max(other.seen, review.last_event), 
        ...(isSame ? { id: newKey(), at: Date.now(), after: null, looks: 0 } : {}) });
    }
    this.conflicts.delete(jobId);
    this.#changed();
    return this.send();
  }

  #next() {
    return entries().find(({ job_id }) => !this.conflicts.has(job_id));
  }

  // Several tabs may have the same to send; where the browser has no locks the entry's key still has it done once.
  #alone(work) {
    return navigator.locks ? navigator.locks.request("carina.unsaved", work) : work();
  }

  async #send(entry) {
    if (!entry) return; // another tab has sent it
    try {
      await this.#try(entry);
    } catch (error) {
      if (mayPass(error)) throw error;
      this.#refused(entry, error);
    }
  }

  async #try(entry) {
    const known = this.#latest.get(entry.job_id);
    if (entry.after === null) {
      const against = known ? eventsAgainst(entry, known) : [];
      if (against.length) return this.#meet(entry, known, against);
      entry.after = Math.max(entry.seen, known?.last_event ?? 0);
      put(entry); // a retry must be identical to the first attempt
    } else if (Date.now() - entry.at > REMEMBERED_MS && !entry.looks) {
      return this.#look(entry);
    }
    try {
      const body = { job_id: entry.job_id, after: entry.after, ...(entry.said ? { event: entry.said } : {}) };
      const review = reviewIn(await send("POST", `${address(entry)}${entry.path}`, body,
        { key: entry.id, stays: true, signal: AbortSignal.timeout(1000 * ANSWER_S) }));
      return this.#saved(entry, review.last_event, review);
    } catch (error) {
      const isLate = error.code === "review_conflict" || error.code === "idempotency_key_reused";
      if (!isLate || entry.looks >= MAX_LOOKS) throw error;
      return this.#look(entry);
    }
  }

  // Reads the review: the entry may be in it already, or another reader may have changed the same finding.
  async #look(entry) {
    const review = reviewIn(await get(`${address(entry)}?job_id=${entry.job_id}`, { stays: true, isQuiet: true }));
    this.#latest.set(entry.job_id, review);
    const number = takenAs(entry, review);
    if (number !== null) return this.#saved(entry, number, review);
    this.dispatchEvent(new CustomEvent("review", { detail: { entry, review } }));
    const against = eventsAgainst(entry, review);
    if (against.length) return this.#meet(entry, review, against);
    return put({ ...entry, id: newKey(), after: null, looks: entry.looks + 1 });
  }

  #meet(entry, review, against) {
    this.conflicts.set(entry.job_id, { entry, review, against });
    for (const { name, job_id } of entries()) if (job_id === entry.job_id) this.#end(name, { waits: true });
    this.dispatchEvent(new CustomEvent("conflict", { detail: entry.job_id }));
  }

  #saved(entry, number, review) {
    remove(entry.name);
    const drawn = `drawn-${number}`;
    for (const later of entries().filter((one) => one.job_id === entry.job_id)) {
      if (later.said?.finding_id === unsavedId(entry)) later.said.finding_id = drawn;
      put({ ...later, mine: [...later.mine, number] });
    }
    const known = this.#latest.get(entry.job_id);
    if (!known || known.last_event < review.last_event) this.#latest.set(entry.job_id, review);
    this.hasSaved = true;
    this.#changed();
    this.dispatchEvent(new CustomEvent("saved", { detail: { entry, number, review } }));
    this.#end(entry.name, { review });
  }

  #refused(entry, error) {
    remove(entry.name);
    this.#changed();
    this.dispatchEvent(new CustomEvent("refused", { detail: { entry, error } }));
    this.#end(entry.name, { error });
  }

  #wait(error) {
    this.problem = error;
    for (const name of [...this.#fresh.keys()]) this.#end(name, { waits: true });
    this.#timer = setTimeout(() => this.send(), 1000 * (error.retryAfter_s ?? this.#pause_s));
    this.#pause_s = Math.min(2 * this.#pause_s, MAX_PAUSE_S);
  }

  #end(name, outcome) {
    const tell = this.#fresh.get(name);
    this.#fresh.delete(name);
    if (tell && outcome.waits) this.#changed();
    tell?.(outcome);
  }

  #changed() {
    this.version += 1;
    this.dispatchEvent(new Event("change"));
  }
}

export const sender = new Sender();

// The id that a drawn box has until the server gives it one.
export function unsavedId(entry) {
  return `unsaved-${entry.id}`;
}

function address({ image_id }) {
  return `/v1/images/${image_id}/reviews`;
}

// A proxy with its own sign-in answers with a page; then nothing was saved.
function reviewIn(answer) {
  if (typeof answer?.last_event === "number") return answer;
  throw new ApiError({ detail: "The answer did not come from Carina's server." }, 502);
}

// Whether the error concerns the server, network or session rather than the entry. An error without a code is a proxy's.
function mayPass({ status, code }) {
  return status === 0 || status >= 500 || [401, 403, 408, 429].includes(status)
    || ["idempotency_key_in_use", "unknown"].includes(code);
}
