// The queue, live: numbers and tables by server-sent events, charts from the samples of the past.

import { at, connection, get, request, send } from "./api.js";
import { Chart, SECONDS, WHOLE } from "./chart.js";
import { ask } from "./dialog.js";
import { age, attempt, count, data, duration, element, say } from "./page.js";

const HISTORY_EVERY_MS = 30000;
const may = data("may");
const place = document.getElementById("charts");
const hours = document.getElementById("hours");
const live = document.getElementById("live");

const whole = (value) => count(Math.round(value));
const milliseconds = (seconds) => `${Math.round(1000 * seconds)} ms`;
const total = (counts) => Object.values(counts).reduce((sum, each) => sum + each, 0);
const x = { label: "Time", time: true };

place.replaceChildren();
const charts = [
  new Chart(place, { title: "Jobs by state", x, steps: WHOLE, lines: [...document.querySelectorAll("[data-jobs]")].map(
    (figure) => ({ key: figure.dataset.jobs, label: figure.previousElementSibling.textContent.toLowerCase(), show: whole })) }),
  new Chart(place, { title: "Finished per minute", x, lines: [
    { key: "succeeded_per_min", label: "succeeded", show: (value) => value.toFixed(1) },
    { key: "failed_per_min", label: "failed", show: (value) => value.toFixed(1) },
    { key: "rejected_per_min", label: "rejected", show: (value) => value.toFixed(1) }] }),
  new Chart(place, { title: "Waiting time of the oldest job", x, min_top: 10, steps: SECONDS, lines: [
    { key: "oldest_waiting_s", label: "oldest", show: duration }] }),
  new Chart(place, { title: "Images per batch", x, lines: [
    { key: "batch_images", label: "images", show: (value) => value.toFixed(1), points: true }] }),
  new Chart(place, { title: "Time per batch", x, min_top: 0.01, lines: [
    { key: "step_s", label: "step", show: milliseconds, points: true }] }),
];

async function drawHistory() {
  const history = await get(`/v1/queue/history?hours=${hours.value}`);
  const columns = { ...history, x: history.at.map((time) => new Date(time) / 1000) };
  for (const chart of charts) chart.set(columns);
}

function write(selector, text) {
  const place = document.querySelector(selector);
  if (place.textContent !== text) place.textContent = text;
}

function showNumbers(queue) {
  for (const [state, jobs] of Object.entries(queue.jobs)) write(`[data-jobs="${state}"]`, count(jobs));
  for (const [stage, seconds] of Object.entries(queue.oldest_waiting_s)) {
    write(`[data-oldest="${stage}"]`, seconds ? `oldest ${duration(seconds)}` : "none waiting");
  }
  write('[data-finished="minute"]', count(total(queue.finished_last_minute)));
  write('[data-finished="day"]', `${count(total(queue.finished_last_day))} in 24 h`);
  write('[data-batch="images"]', queue.batch_images === null ? "–" : queue.batch_images.toFixed(1));
  write('[data-batch="step"]', queue.step_s === null ? "–" : milliseconds(queue.step_s));
  write('[data-tasks="running"]', count(total(queue.tasks.map((task) => task.running))));
  write('[data-tasks="waiting"]', `${count(total(queue.tasks.map((task) => task.waiting)))} waiting`);
}

const cell = (className, ...content) => element("td", { className }, ...content);
const tag = (kind, text) => element("span", { className: `tag ${kind}` }, text);

function workerRow(worker) {
  const model = worker.model_name
    ? element("a", { href: at(`/console/models#${worker.model_id}`) }, worker.model_name) : "–";
  return element("tr", {},
    cell("", worker.stage), cell("", worker.alive ? tag("good", "alive") : tag("bad", "silent")), cell("", model),
    cell("", worker.device ?? "–"), cell("nowrap", `${age(worker.seen_at)} ago`),
    cell("nowrap", age(worker.started_at)), cell("number", worker.batches ? count(worker.images) : "–"),
    cell("number nowrap", worker.step_s === null ? "–" : milliseconds(worker.step_s)), cell("mono nowrap", worker.id));
}

// The row that the server renders when there is no worker.
const noWorkers = [element("tr", {}, element("td", { colSpan: 9 }, "No worker has been seen in 24 hours."))];

function showWorkers(workers) {
  const body = document.querySelector("#workers tbody");
  if (workers.length) body.replaceChildren(...workers.map(workerRow));
  else if (body.querySelector("td:not([colspan])")) body.replaceChildren(...noWorkers);
}

function failureRow(failure) {
  const studies = failure.study_ids.flatMap((id, number) => [element("a",
    { href: at(`/console/studies/${id}`), "aria-label": `Study ${number + 1} with ${failure.code}` }, String(number + 1)), " "]);
  const all = element("a", { href: at(`/console/studies?state=${failure.state}`) }, `all ${failure.state}`);
  const retry = may.submit && failure.state === "failed"
    ? element("button", { type: "button", onclick: () => retryFailed(failure) }, "Try again") : "";
  return element("tr", {},
    cell("", tag("bad", failure.state), " ", element("code", {}, failure.code)), cell("few", failure.reason ?? ""),
    cell("number", count(failure.count)), cell("nowrap", `${age(failure.latest_at)} ago`),
    cell("nowrap", ...studies, all), cell("nowrap", retry));
}

let shown = "";
function showFailures(failures) {
  const now = JSON.stringify(failures);
  if (now === shown) return; // keeps the focus on a button
  shown = now;
  document.querySelector("#failures tbody").replaceChildren(...failures.map(failureRow));
  document.getElementById("failures").hidden = failures.length === 0;
  document.getElementById("no-failures").hidden = failures.length > 0;
}

async function retryFailed(failure) {
  const images = failure.count === 1 ? "image" : "images";
  const retried = await ask({
    title: `Try ${count(failure.count)} ${images} again?`,
    text: `Each image gets a new job that replaces the one that failed with ${failure.code}.`,
    agree: "Try again",
    work: () => send("POST", "/v1/jobs/retry", { code: failure.code }),
  });
  if (!retried) return;
  const jobs = retried.to_prepare + retried.to_detect;
  say(jobs ? `${count(jobs)} ${jobs === 1 ? "job is" : "jobs are"} queued.` : "Nothing was left to try again.");
}

function show(queue) {
  showNumbers(queue);
  showWorkers(queue.workers);
  showFailures(queue.failures);
}

function follow() {
  const events = new EventSource(at("/v1/queue/events"));
  events.addEventListener("queue", (event) => {
    connection.answered("/v1/queue"); // which is asked only while there is no stream
    show(JSON.parse(event.data));
    live.textContent = "live";
    live.className = "tag good";
  });
  events.addEventListener("error", () => {
    live.textContent = "reconnecting";
    live.className = "tag wait";
    // A browser gives up on an answer that is no stream, as when the session has ended; then `get` leads to the sign-in.
    if (events.readyState === EventSource.CLOSED) get("/v1/queue").catch(() => {}).then(() => setTimeout(follow, 5000));
    else request(at("/healthz")).catch(() => {}); // the frame says that the server is away
  });
}

hours.addEventListener("change", () => attempt(drawHistory));
setInterval(() => { if (!document.hidden) drawHistory().catch(() => {}); }, HISTORY_EVERY_MS);
attempt(drawHistory);
follow();
