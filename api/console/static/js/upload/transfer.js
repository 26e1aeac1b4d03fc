// Sends one file, with retries after network or server failures; it is never stored twice.

import { at, authorise } from "../api.js";

const MAX_TRIES = 6;
const MAX_PAUSE_S = 60; // for longer pauses, such as an exhausted quota, the user retries
const WORTH_ANOTHER_TRY = new Set([0, 429, 502, 503, 504]);

export class NotSent extends Error {
  constructor(code, detail) {
    super(detail);
    this.code = code;
  }
}

// Resolves to the file's outcome as the API tells it; rejects with `NotSent`, or with an AbortError.
export async function transfer(file, { key, priority, signal, onProgress }) {
  for (let tries = 1; ; tries += 1) {
    const answer = await post(file, { key, priority, signal, onProgress });
    if (answer.status === 202) return answer.body.files[0];
    const isInUse = answer.body.code === "idempotency_key_in_use"; // an earlier try is still being read
    const pause_s = answer.retryAfter_s ?? 2 ** (tries - 1);
    const isHopeless = tries === MAX_TRIES || pause_s > MAX_PAUSE_S;
    if (isHopeless || !(isInUse || WORTH_ANOTHER_TRY.has(answer.status))) throw reason(answer);
    await pause(1000 * pause_s, signal);
  }
}

function post(file, { key, priority, signal, onProgress }) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const request = new XMLHttpRequest(); // `fetch` does not tell how much is sent
    const abort = () => request.abort();
    request.open("POST", at(`/v1/studies?priority=${priority}`));
    request.setRequestHeader("Idempotency-Key", key);
    authorise(request);
    request.responseType = "json";
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onload = () => resolve({
      status: request.status,
      body: request.response ?? {},
      retryAfter_s: Number(request.getResponseHeader("Retry-After")) || undefined,
    });
    request.onerror = () => resolve({ status: 0, body: {} });
    request.onabort = () => reject(signal.reason);
    request.onloadend = () => signal.removeEventListener("abort", abort);
    signal.addEventListener("abort", abort);
    const form = new FormData();
    form.append("files", file, "image"); // the real name may contain that of a patient
    request.send(form);
  });
}

function reason({ status, body }) {
  if (status === 0) return new NotSent("unreachable", "The server could not be reached, or the file cannot be read.");
  if (status === 401) return new NotSent("unauthorized", "Your session has ended: sign in in another tab, and retry.");
  return new NotSent(body.code ?? String(status), body.detail ?? `The server answered ${status}.`);
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal.addEventListener("abort", stop);
  });
}
