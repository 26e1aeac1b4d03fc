// One training, live: its numbers, its curves and its log, looked at every two seconds until it has ended.

import { get, send } from "./api.js";
import { Chart } from "./chart.js";
import { ask } from "./dialog.js";
import { attempt, count, data, duration, figure, say } from "./page.js";

const EVERY_MS = 2000;
const FINAL = ["succeeded", "failed", "cancelled"];
const { id, state: stateAtFirst, may_train: mayTrain, pending } = data("training");
const path = `/v1/trainings/${id}`;
const place = document.getElementById("charts");
const log = document.getElementById("log");

const loss = (value) => figure(value);
const x = { label: "Epoch", show: (value) => value.toFixed(2) };
place.replaceChildren();
const charts = [
  new Chart(place, { title: "Losses", x, min_top: 0.1, lines: [
    { key: "loss", label: "sum", show: loss }, { key: "loss_objectness", label: "objectness", show: loss },
    { key: "loss_rpn_box_reg", label: "proposal boxes", show: loss }, { key: "loss_classifier", label: "classes", show: loss },
    { key: "loss_box_reg", label: "boxes", show: loss }] }),
  new Chart(place, { title: "AP@0.4 after each epoch, on a sample", x, min_top: 0.1, lines: [
    { key: "ap40", label: "AP@0.4", show: loss, points: true, spanGaps: true }] }),
  new Chart(place, { title: "Learning rate", x, min_top: 1e-6, lines: [
    { key: "learning_rate", label: "rate", show: (value) => (value ? value.toExponential(1) : "0") }] }),
];

let points = [];
let attemptSeen = null;

async function readPoints() {
  const after = points.length ? points.at(-1).step : -1;
  let answer = await get(`${path}/points?after=${after}`);
  if (answer.attempt !== attemptSeen) {
    // A new attempt repeats the steps after the last checkpoint.
    if (attemptSeen !== null) answer = await get(`${path}/points`);
    attemptSeen = answer.attempt;
    points = answer.points;
  } else {
    points.push(...answer.points);
  }
  const columns = { x: points.map((point) => point.epoch) };
  for (const key of charts.flatMap((chart) => chart.lines.map((line) => line.key))) {
    columns[key] = points.map((point) => point.values[key] ?? null);
  }
  for (const chart of charts) chart.set(columns);
}

function write(of, text) {
  const place = document.querySelector(`[data-of="${of}"]`);
  if (place.textContent !== text) place.textContent = text;
}

function show(run) {
  const { progress } = run;
  const of = (key, digits) => (typeof progress[key] === "number" ? figure(progress[key], digits) : "–");
  const mark = document.getElementById("state");
  const kind = { succeeded: "good", failed: "bad", cancelled: "bad" }[run.state] ?? "wait";
  if (mark.textContent !== run.state) mark.textContent = run.state;
  mark.className = `tag ${kind}`;
  write("epoch", of("epoch", 0));
  write("steps_done", "steps_done" in progress ? count(progress.steps_done) : "–");
  const { images_cached: cached = 0, images_to_cache: toCache = 0 } = progress;
  write("cached", cached < toCache ? `${count(cached)} of ${count(toCache)} images cached` : "");
  write("loss", of("loss", 3));
  write("ap40", of("ap40", 3));
  write("images_per_s", of("images_per_s", 1));
  write("attempt", String(run.attempt || "–"));
  write("eta_s", "eta_s" in progress && !FINAL.includes(run.state) ? duration(progress.eta_s) : "–");
  const reason = document.getElementById("reason");
  reason.hidden = !run.reason;
  reason.textContent = run.reason ? (FINAL.includes(run.state) ? "" : "The attempt before ended: ") + run.reason : "";
  const waiting = document.getElementById("waiting");
  waiting.hidden = !progress.waiting;
  waiting.textContent = progress.waiting ?? "";
  if (!mayTrain) return;
  document.getElementById("cancel").hidden = FINAL.includes(run.state);
  document.getElementById("resume").hidden = !["failed", "cancelled"].includes(run.state);
}

async function readLog() {
  if (!log) return;
  const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
  const text = await get(`${path}/log`);
  if (text === log.textContent) return;
  log.textContent = text;
  if (atEnd) log.scrollTop = log.scrollHeight;
}

let state = stateAtFirst;
async function look() {
  const run = await get(path);
  await Promise.all([readPoints(), mayTrain ? readLog() : null]);
  show(run);
  // The server renders the result.
  if (FINAL.includes(run.state) && !FINAL.includes(state)) location.reload();
  state = run.state;
}

async function keepLooking() {
  if (!document.hidden) await look().catch(() => {}); // the next poll tries again
  if (!FINAL.includes(state)) setTimeout(keepLooking, EVERY_MS);
}

// The evaluation follows the training; the server renders its figures.
async function awaitEvaluations() {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
    const looks = pending.map((evaluation) => get(`/v1/evaluations/${evaluation}`));
    const seen = await Promise.all(looks).catch(() => []); // the next poll tries again
    if (seen.some((evaluation) => FINAL.includes(evaluation.state))) return location.reload();
  }
}

document.getElementById("cancel")?.addEventListener("click", async () => {
  const cancelled = await ask({
    title: "Cancel this training?",
    text: "It ends within seconds and produces no model. It can be resumed from its last checkpoint.",
    agree: "Cancel the training",
    work: () => send("POST", `${path}/cancel`),
  });
  if (!cancelled) return;
  show(cancelled);
  say("The training is cancelled.");
});

document.getElementById("resume")?.addEventListener("click", () =>
  attempt(async () => {
    await send("POST", `${path}/resume`);
    location.reload();
  }),
);

if (log) log.scrollTop = log.scrollHeight;
await attempt(look);
keepLooking();
if (pending.length) awaitEvaluations();
