// All requests of a page: adds the CSRF token to changes, turns errors into `ApiError` with a stable code, and keeps
// `connection`, which knows whether the server answers.

const root = meta("root");
let token = meta("csrf-token");

function meta(name, page = document) {
  return page.querySelector(`meta[name="${name}"]`)?.content ?? "";
}

// Who is signed in, as `PROJECT:KEY`; empty where nobody is.
export const reader = meta("reader");

export class ApiError extends Error {
  constructor(problem, status, retryAfter_s) {
    super(problem.detail ?? `The server answered ${status}.`);
    this.code = problem.code ?? "unknown";
    this.status = status; // 0: there was no answer
    this.errors = problem.errors ?? []; // what is wrong with which parameter
    this.retryAfter_s = retryAfter_s;
  }
}

// Emits `change` when the server becomes unreachable or a shown part fails; `problem` is an ApiError then.
class Connection extends EventTarget {
  answeredAt = Date.now();
  #isAway = null;
  #failing = new Map(); // by path: each fails until it is asked again

  get isAway() {
    return this.#isAway !== null;
  }

  get problem() {
    return this.#isAway ?? this.#failing.values().next().value ?? null;
  }

  answered(path, error = null) {
    this.answeredAt = Date.now();
    this.#isAway = null;
    if (error) this.#failing.set(path, error);
    else this.#failing.delete(path);
    this.dispatchEvent(new Event("change"));
  }

  lost(error) {
    this.#isAway = error;
    this.dispatchEvent(new Event("change"));
  }
}

export const connection = new Connection();

// While the page is being left, aborted requests are not errors.
const LEAVING_MS = 10000; // a download does not leave the page
let leftAt = -Infinity;
addEventListener("beforeunload", () => { leftAt = Date.now(); });
addEventListener("pageshow", () => { leftAt = -Infinity; });
export const isLeaving = () => Date.now() - leftAt < LEAVING_MS;

// The address of a path of this server, which a proxy may have put under a prefix.
export function at(path) {
  return `${root}${path}`;
}

// Resolves to an answer that is good or 304; else rejects with an ApiError. An error is shown by the frame unless whoever
// asks shows it (`isQuiet`). Where the session is over, the page leads to the sign-in, which leads back; with `stays` that
// is an error, too.
export async function request(address, { isQuiet = false, stays = false, ...options } = {}) {
  const path = address.split("?")[0];
  let response;
  try {
    response = await fetch(address, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const isOffline = !navigator.onLine;
    const lost = new ApiError(isOffline
      ? { code: "offline", detail: "This device is offline." }
      : { code: "unreachable", detail: "The server cannot be reached." }, 0);
    if (!isLeaving()) connection.lost(lost);
    throw lost;
  }
  const isOver = response.status === 401 || (response.redirected && response.url.includes("/console/sign-in"));
  if (isOver && !stays && !isLeaving() && !document.querySelector("dialog[open]")) return signIn();
  if ((response.ok || response.status === 304) && !isOver) {
    connection.answered(path);
    return response;
  }
  const isJson = (response.headers.get("Content-Type") ?? "").includes("json");
  const problem = isOver
    ? { code: "unauthorized", detail: "Your session has ended. Sign in again in another tab, then try again here." }
    : isJson ? await response.json() : readProblem(await response.text());
  const retryAfter_s = Number(response.headers.get("Retry-After")) || undefined;
  const error = new ApiError(problem, isOver ? 401 : response.status, retryAfter_s);
  connection.answered(path, response.status >= 500 && !isQuiet ? error : null);
  throw error;
}

export async function get(path, options = {}) {
  return read(await request(at(path), options));
}

// Requests with the same idempotency `key` take effect once.
export async function send(method, path, body, { key, ...options } = {}) {
  const attempt = () => {
    const headers = { "X-CSRF-Token": token };
    if (key) headers["Idempotency-Key"] = key;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const sent = { method, headers, body: body === undefined ? undefined : JSON.stringify(body) };
    return request(at(path), { isQuiet: true, ...sent, ...options });
  };
  try {
    return await read(await attempt());
  } catch (error) {
    if (error.code !== "csrf_token_wrong" || !(await renewToken())) throw error;
    return read(await attempt());
  }
}

export function authorise(request) {
  request.setRequestHeader("X-CSRF-Token", token);
}

export function signIn() {
  const here = location.pathname + location.search + location.hash;
  location.assign(at(`/console/sign-in?next=${encodeURIComponent(here)}`));
  return new Promise(() => {}); // the page is about to go
}

// If the same reader has signed in again in another tab, the page continues with the new session.
async function renewToken() {
  const answer = await request(location.href, { isQuiet: true, stays: true });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (meta("reader", page) !== reader) return false;
  token = meta("csrf-token", page);
  return true;
}

// Reads the console's HTML error page as a problem.
function readProblem(text) {
  const main = new DOMParser().parseFromString(text, "text/html").querySelector("main");
  return { code: main?.querySelector("code")?.textContent, detail: main?.querySelector("p")?.textContent };
}

async function read(response) {
  if (response.status === 204) return null;
  const isJson = (response.headers.get("Content-Type") ?? "").includes("json");
  return isJson ? response.json() : response.text();
}
