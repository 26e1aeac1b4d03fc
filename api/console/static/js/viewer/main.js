// The viewer: puts its parts together.

import { data, element } from "../page.js";
import { AbnormalityNote } from "./abnormality_note.js";
import { Commands } from "./commands.js";
import { Compare } from "./compare.js";
import { Editing } from "./editing.js";
import { eraseStudy } from "./erasing.js";
import { FactsPanel, jobWords } from "./facts_panel.js";
import { Filters } from "./filters.js";
import { FindingsList } from "./findings_list.js";
import { listen } from "./gestures.js";
import { listenToKeys } from "./keys.js";
import { measureKey, placeMeasure } from "./measuring.js";
import { legend } from "./legend.js";
import { ModelNote } from "./model_note.js";
import { Navigation } from "./navigation.js";
import { Pane } from "./pane.js";
import { Readout } from "./readout.js";
import { ReviewPanel } from "./review_panel.js";
import { Reviewing } from "./reviewing.js";
import { State } from "./state.js";
import { showStrip } from "./strip.js";
import { Toolbar } from "./toolbar.js";
import { makeTrainingData } from "./training.js";

const AT_REST_MS = 120;

const byId = (id) => document.getElementById(id);
const state = new State(data("may"));
const reviewing = new Reviewing(state);
const editing = new Editing(state, reviewing);
const panes = [new Pane(state, () => state.review, "Image"), new Pane(state, () => state.other, "Image, other model")];
const navigation = new Navigation(state, panes[0]);
const list = new FindingsList(state);
const compare = new Compare(state);
const commands = new Commands({ state, pane: panes[0], reviewing, editing, list, compare, navigation });
const facts = new FactsPanel(state);
const modelNote = new ModelNote(state, navigation);
const abnormality = new AbnormalityNote(state);
const filters = new Filters(state);
const lines = legend();
const review = new ReviewPanel(state, reviewing, editing, commands);
const toolbar = new Toolbar(byId("tools"), state, commands);
const readout = new Readout(byId("readout"), state);

function start() {
  byId("panel").replaceChildren(facts.element, compare.element, modelNote.element, abnormality.element, filters.element, lines,
    list.element, review.chosen, review.element, ...trainingButton(), facts.details, ...eraseButton());
  byId("panes").replaceChildren(...panes.map((pane) => pane.element));
  for (const pane of panes) {
    listen(pane, state, editing);
    pane.element.addEventListener("keydown", (event) => placeByKey(event, pane));
  }
  state.addEventListener("change", refresh);
  state.addEventListener("move", drawSoon);
  listenToKeys(commands.shortcuts, { before: (event) => editing.key(event) || measureKey(event, state) || holdSpace(event) });
  document.addEventListener("keyup", (event) => { if (event.key === " ") state.isSpaceHeld = false; });
  window.addEventListener("blur", () => { state.isSpaceHeld = false; });
  navigation.start(data("study"));
}

function trainingButton() {
  if (!state.may.train) return [];
  const made = element("button", { type: "button" }, "Training data from reviews…");
  made.addEventListener("click", makeTrainingData);
  return [made];
}

function eraseButton() {
  if (!state.may.admin) return [];
  const erase = element("button", { type: "button" }, "Erase this study…");
  erase.addEventListener("click", () => eraseStudy(state.study, navigation));
  return [erase];
}

function placeByKey(event, pane) {
  const isDrawing = state.tool === "draw" && !state.draft;
  if (event.key !== "Enter" || !state.rendition || !(isDrawing || state.tool === "measure")) return;
  event.stopPropagation();
  if (isDrawing) editing.place(pane);
  else placeMeasure(state, pane);
}

// Held, the space bar pans, unless a button has it.
function holdSpace(event) {
  if (event.key !== " " || event.target.matches("button, a, summary, input")) return false;
  state.isSpaceHeld = true;
  return true;
}

function refresh() {
  if (!state.image) return;
  panes[1].element.hidden = state.other === null;
  panes[0].describe(instead());
  panes[1].describe([]);
  for (const part of [facts, compare, modelNote, abnormality, filters, list, review, toolbar]) part.refresh();
  list.element.hidden = state.review === null;
  filters.element.hidden = lines.hidden = state.findings.length === 0;
  showStrip(byId("strip"), state, (index) => navigation.image(index));
  byId("panes").dataset.tool = state.tool;
}

// The message that replaces a missing image.
function instead() {
  if (state.rendition) return [];
  if (state.isLoading) return [element("p", { role: "status" }, "Loading the image…")];
  if (state.problem) return [element("p", { role: "alert" }, "The image cannot be shown. ", state.problem), element("p", {},
    element("button", { type: "button", onclick: () => navigation.image(state.index) }, "Try again"))];
  const job = state.image.standing_job;
  return [element("p", {}, ...(job ? jobWords(job) : ["There is no job for this image."]))];
}

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

start();
