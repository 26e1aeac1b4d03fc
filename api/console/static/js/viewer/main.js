// The viewer: puts its parts together, and turns from study to study without loading a page.

import { attempt, data, element } from "../page.js";
import { Compare } from "./compare.js";
import { Editing } from "./editing.js";
import { FactsPanel, jobWords } from "./facts_panel.js";
import { Filters } from "./filters.js";
import { FindingsList } from "./findings_list.js";
import { loadFilm } from "./film.js";
import { listen } from "./gestures.js";
import { listenToKeys, showShortcuts } from "./keys.js";
import { Pane } from "./pane.js";
import { Readout } from "./readout.js";
import { ReviewPanel } from "./review_panel.js";
import { Reviewing } from "./reviewing.js";
import { State, announce } from "./state.js";
import { showStrip } from "./strip.js";
import { fetchStudy, keep, prefetch } from "./studies.js";
import { Toolbar, worklist } from "./toolbar.js";
import { makeTrainingData } from "./training.js";
import { Waiting } from "./waiting.js";
import { day } from "./words.js";

const byId = (id) => document.getElementById(id);
const state = new State(data("may"));
const reviewing = new Reviewing(state);
const editing = new Editing(state, reviewing);
const panes = [new Pane(state, () => state.review, "Film"), new Pane(state, () => state.other, "Film, other model")];
const facts = new FactsPanel(state);
const filters = new Filters(state);
const list = new FindingsList(state);
const compare = new Compare(state);
const review = new ReviewPanel(state, reviewing, editing, decide);
const readout = new Readout(byId("readout"), state);
const waiting = new Waiting(() => attempt(() => reload()));

const commands = {
  window: () => use("window"),
  pan: () => use("pan"),
  draw: () => reviewing.isPossible && use("draw"),
  invert: () => shown(() => { state.grey.isInverted = !state.grey.isInverted; }),
  fit: () => shown(() => state.view.fit(state.film, panes[0].size)),
  oneToOne: () => shown(() => state.view.oneToOne()),
  reset: () => shown(() => { state.grey.reset(); state.view.fit(state.film, panes[0].size); }),
  closer: () => zoom(1.25),
  further: () => zoom(0.8),
  boxes: () => shown(() => { state.areBoxesShown = !state.areBoxesShown; }),
  compare: () => compare.toggle(),
  newer: () => go(state.study.newer),
  older: () => go(state.study.older),
  nextImage: () => step(1),
  previousImage: () => step(-1),
  help: () => showShortcuts(shortcuts),
};

const shortcuts = [
  { keys: ["]", "PageDown"], words: "Next study, which is older", run: commands.older },
  { keys: ["[", "PageUp"], words: "Previous study, which is newer", run: commands.newer },
  { keys: [".", ","], words: "Next and previous image of the study", run: (event) => step(event.key === "." ? 1 : -1) },
  { keys: ["j", "k"], words: "Next and previous finding", run: (event) => list.step(event.key === "j" ? 1 : -1) },
  { keys: ["a"], words: "Accept the finding, and go to the next", run: () => decide("accept") },
  { keys: ["x"], words: "Reject it, and go to the next", run: () => decide("reject") },
  { keys: ["l"], words: "Give it another class", run: () => editing.relabel() },
  { keys: ["e"], words: "Move or resize it: arrow keys, with Shift, Enter to save", run: () => editing.toggle() },
  { keys: ["d"], words: "Draw a box: drag, or Enter on the film", run: commands.draw },
  { keys: ["n"], words: "No finding on this image", run: () => reviewing.noFinding() },
  { keys: ["y"], words: "The review is done", run: () => reviewing.complete() },
  { keys: ["u", "Ctrl+z"], words: "Take back what you said last", run: () => reviewing.undo() },
  { keys: ["Shift+u", "Ctrl+Shift+z"], words: "Say it again", run: () => reviewing.redo() },
  { keys: ["w"], words: "Drag changes the window: across contrast, up and down brightness", run: commands.window },
  { keys: ["p"], words: "Drag moves the film", run: commands.pan },
  { keys: ["i"], words: "Invert", run: commands.invert },
  { keys: ["f"], words: "Fit the whole film", run: commands.fit },
  { keys: ["1"], words: "One pixel of the film on one of the screen", run: commands.oneToOne },
  { keys: ["r"], words: "Window and zoom as at first", run: commands.reset },
  { keys: ["+", "=", "-"], words: "Zoom", run: (event) => zoom(event.key === "-" ? 0.8 : 1.25) },
  { keys: ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"], words: "Move the film", run: nudge },
  { keys: ["o"], words: "Show or hide the boxes", run: commands.boxes },
  { keys: ["c"], words: "Another model's findings beside these", run: commands.compare },
  { keys: ["Escape"], words: "Leave the box, the tool, the finding; then back to the list", run: leave },
  { keys: ["?"], words: "These shortcuts", run: commands.help },
];

const toolbar = new Toolbar(byId("tools"), state, (name) => commands[name]());

function start() {
  byId("panel").replaceChildren(facts.element, compare.element, filters.element, list.element, review.element,
    ...trainingButton(), facts.details);
  byId("panes").append(...panes.map((pane) => pane.element));
  for (const pane of panes) {
    listen(pane, state, editing);
    pane.element.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && state.tool === "draw" && !state.draft) {
        event.stopPropagation();
        editing.place(pane);
      }
    });
  }
  state.addEventListener("change", refresh);
  state.addEventListener("move", drawSoon);
  listenToKeys(shortcuts, { before: (event) => editing.key(event) || holdSpace(event) });
  document.addEventListener("keyup", (event) => { if (event.key === " ") state.isSpaceHeld = false; });
  window.addEventListener("blur", () => { state.isSpaceHeld = false; });
  window.addEventListener("popstate", (event) => attempt(() => open(event.state?.study ?? first.id)));
  const first = data("study");
  keep(first);
  history.replaceState({ study: first.id }, "");
  attempt(() => open(first.id));
}

function trainingButton() {
  if (!state.may.train) return [];
  const made = element("button", { type: "button" }, "Training data from reviews…");
  made.addEventListener("click", makeTrainingData);
  return [made];
}

// --- from study to study ------------------------------------------------------------------------------------------

async function go(id) {
  if (!id) return announce("There is no further study.");
  return attempt(async () => {
    await open(id);
    const { from } = byId("panel").dataset;
    history.pushState({ study: id }, "", `/console/studies/${id}${from ? `?from=${encodeURIComponent(from)}` : ""}`);
  });
}

let wanted = null; // the study that was asked for last

async function open(id) {
  wanted = id;
  const study = await fetchStudy(id);
  if (wanted !== id) return;
  await show(study, 0);
  document.title = `Study of ${day(study.created_at)} · Carina`;
  announce(`Study of ${day(study.created_at)}, ${state.visible().length} findings shown.`);
  prefetch([study.older, study.newer]);
  renew(id);
}

// What came out of the store may be old: others review too, and jobs get on.
async function renew(id) {
  const before = state.study;
  const now = await fetchStudy(id, { again: true }).catch(() => null);
  if (!now || state.study !== before || JSON.stringify(now) === JSON.stringify(before)) return;
  const kept = before.images.map((image) => image.review?.job_id);
  const isBusy = state.draft !== null || document.querySelector("dialog[open]");
  if (isBusy || now.images.some((image, index) => kept[index] && image.review?.job_id !== kept[index])) return;
  state.study = now;
  await show(now, Math.min(state.index, now.images.length - 1), { isSame: true });
}

const reload = async () => {
  const now = await fetchStudy(state.study.id, { again: true });
  if (now.id === state.study.id) await show(now, state.index, { isSame: true });
};

function step(by) {
  const count = state.study.images.length;
  if (count > 1) attempt(() => show(state.study, (state.index + by + count) % count));
}

async function show(study, index, { isSame = false } = {}) {
  const image = study.images[index];
  const [film, problem] = image?.has_rendition
    ? await loadFilm(image.id).then((loaded) => [loaded, null], (error) => [null, error.message])
    : [null, null];
  if (wanted !== study.id) return;
  const isOther = !isSame || film !== state.film;
  Object.assign(state, { study, index, film, problem });
  if (isOther) {
    Object.assign(state, { other: null, selected: null, hovered: null, draft: null });
    state.grey.reset();
    if (film) state.view.fit(film, panes[0].size);
  }
  waiting.follow(image?.latest_job);
  state.changed();
  requestAnimationFrame(() => { document.body.dataset.shown = study.id; }); // it is on the screen, for whoever measures
}

// --- what is on the screen ----------------------------------------------------------------------------------------

function refresh() {
  if (!state.image) return;
  panes[1].element.hidden = state.other === null;
  panes[0].describe(instead());
  panes[1].describe([]);
  for (const part of [facts, compare, filters, list, review, toolbar]) part.refresh();
  filters.element.hidden = list.element.hidden = state.review === null;
  showStrip(byId("strip"), state, (index) => attempt(() => show(state.study, index)));
  byId("panes").dataset.tool = state.tool;
}

// What stands in the place of a film that is not there.
function instead() {
  if (state.film) return [];
  if (state.problem) return [element("p", { role: "alert" }, state.problem)];
  const job = state.image.latest_job;
  return [element("p", {}, ...(job ? jobWords(job) : ["Nothing has been asked about this image."]))];
}

const AT_REST_MS = 120;
let isDrawing = false;
let rest = 0;

// At most once a frame; and with care once nothing has moved for a moment.
function drawSoon() {
  clearTimeout(rest);
  rest = setTimeout(() => draw({ isFine: true }), AT_REST_MS);
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(() => {
    isDrawing = false;
    draw({ isFine: false });
  });
}

function draw(how) {
  for (const pane of panes) if (!pane.element.hidden) pane.draw(how);
  readout.refresh();
}

// --- commands -----------------------------------------------------------------------------------------------------

function use(tool) {
  state.tool = state.tool === tool && tool !== "window" ? "window" : tool;
  if (state.draft?.id === null) state.draft = null;
  if (tool === "draw" && state.tool === "draw") state.draft = null;
  announce(`Dragging now: ${state.tool}.`);
  state.changed();
}

function shown(work) {
  if (!state.film) return;
  work();
  toolbar.refresh();
  state.moved();
}

function zoom(factor) {
  const { width, height } = panes[0].size;
  shown(() => state.view.zoom(factor, { x: width / 2, y: height / 2 }, state.film, panes[0].size));
}

function nudge(event) {
  const [x, y] = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
  shown(() => state.view.pan(60 * x, 60 * y, state.film));
}

async function decide(what) {
  const { selected } = state;
  if (!selected || !reviewing.isPossible) return;
  const answer = await reviewing[what](selected);
  if (answer && state.selected === selected) list.step(1, { undecided: true });
}

function leave() {
  if (state.tool !== "window") use("window");
  else if (state.selected) state.select(null);
  else location.assign(worklist());
}

// Held, the space bar pans, unless a button has it.
function holdSpace(event) {
  if (event.key !== " " || event.target.matches("button, a, summary, input")) return false;
  state.isSpaceHeld = true;
  return true;
}

start();
