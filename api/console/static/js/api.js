// The way from a page to `/v1`: JSON in and out, the session's token with every change, errors with their stable code.

const root = document.querySelector('meta[name="root"]').content;
const token = document.querySelector('meta[name="csrf-token"]').content;

export class ApiError extends Error {
  constructor(problem, status) {
    super(problem.detail ?? `The server answered ${status}.`);
    this.code = problem.code ?? "unknown";
    this.status = status;
    this.errors = problem.errors ?? []; // what is wrong with which parameter
  }
}

// The address of a path of this server, which a proxy may have put under a prefix.
export function at(path) {
  return `${root}${path}`;
}

export async function get(path, options = {}) {
  return ask(path, options);
}

export async function send(method, path, body) {
  const headers = { "X-CSRF-Token": token };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  return ask(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
}

export function authorise(request) {
  request.setRequestHeader("X-CSRF-Token", token);
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(at(path), { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError({ code: "unreachable", detail: "The server cannot be reached." }, 0);
  }
  if (response.status === 401) {
    location.assign(at(`/console/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`));
    return new Promise(() => {}); // the page is about to go
  }
  const isJson = (response.headers.get("Content-Type") ?? "").includes("json");
  const answer = response.status === 204 ? null : isJson ? await response.json() : await response.text();
  if (!response.ok) throw new ApiError(isJson ? answer : {}, response.status);
  return answer;
}
