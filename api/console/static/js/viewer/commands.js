// The commands behind buttons and keys, and the table of keyboard shortcuts.

import { showShortcuts } from "./keys.js";
import { PRESETS, choosePreset } from "./presets.js";
import { announce } from "./state.js";
import { worklist } from "./studies.js";

const CLOSER = 1.25;
const NUDGE = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }; // screen pixels

export class Commands {
  #page; // {state, pane, reviewing, editing, list, compare, navigation}
  shortcuts;

  constructor(page) {
    this.#page = page;
    this.shortcuts = this.#table();
  }

  window() { this.#use("window"); }

  pan() { this.#use("pan"); }

  measure() { this.#use("measure"); }

  draw() { if (this.#page.reviewing.isPossible) this.#use("draw"); }

  invert() { this.#picture(({ grey }) => { grey.isInverted = !grey.isInverted; }); }

  preset(preset) { this.#picture((state) => choosePreset(preset, state)); }

  fit() { this.#picture(({ view, rendition }) => view.fit(rendition, this.#page.pane.size)); }

  oneToOne() { this.#picture(({ view }) => view.oneToOne()); }

  reset() {
    this.#page.state.grey.reset();
    this.fit();
  }

  zoom(factor) {
    const { size } = this.#page.pane;
    this.#picture(({ view, rendition }) => view.zoom(factor, { x: size.width / 2, y: size.height / 2 }, rendition, size));
  }

  boxes() { this.#picture((state) => { state.areBoxesShown = !state.areBoxesShown; }); }

  labels() { this.#picture((state) => { state.areLabelsShown = !state.areLabelsShown; }); }

  compare() { this.#page.compare.toggle(); }

  newer() { this.#page.navigation.go(this.#page.state.study.newer); }

  older() { this.#page.navigation.go(this.#page.state.study.older); }

  help() { showShortcuts(this.shortcuts); }

  accept() { return this.#decide("accept"); }

  reject() { return this.#decide("reject"); }

  // Closes one thing at a time (box, line, tool, finding), and at last the page.
  leave() {
    const { state } = this.#page;
    if (state.measure) this.#picture(() => { state.measure = null; });
    else if (state.tool !== "window") this.#use("window");
    else if (state.selected) state.select(null);
    else location.assign(worklist());
  }

  async #decide(what) {
    const { state, reviewing, list } = this.#page;
    const { selected } = state;
    if (!selected || !reviewing.isPossible) return;
    const answer = await reviewing[what](selected);
    if (answer && state.selected === selected) list.step(1, { undecided: true });
  }

  // Choosing the current tool again returns to the default tool.
  #use(tool) {
    const { state } = this.#page;
    state.tool = state.tool === tool ? "window" : tool;
    if (state.draft?.id === null || state.tool === "draw") state.draft = null;
    announce({ window: "Dragging changes the window.", pan: "Dragging moves the image.", measure: "Dragging measures a distance.",
      draw: "Dragging draws a box." }[state.tool]);
    state.changed();
  }

  #picture(change) {
    if (!this.#page.state.rendition) return;
    change(this.#page.state);
    this.#page.state.changed();
  }

  #table() {
    const { state, reviewing, editing, list, navigation } = this.#page;
    return [
      { keys: ["]", "PageDown"], words: "Next study of the list", run: () => this.older() },
      { keys: ["[", "PageUp"], words: "Previous study of the list", run: () => this.newer() },
      { keys: [".", ","], words: "Next and previous image of the study",
        run: (event) => navigation.step(event.key === "." ? 1 : -1) },
      { keys: ["j", "k"], words: "Next and previous finding", run: (event) => list.step(event.key === "j" ? 1 : -1) },
      { keys: ["a"], words: "Accept the finding, and go to the next", run: () => this.accept() },
      { keys: ["x"], words: "Reject it, and go to the next", run: () => this.reject() },
      { keys: ["l"], words: "Change its class", run: () => editing.relabel() },
      { keys: ["e"], words: "Move or resize it: arrow keys, with Shift, Enter to save", run: () => editing.toggle() },
      { keys: ["d"], words: "Draw a box: drag, or Enter on the image", run: () => this.draw() },
      { keys: ["n"], words: "No finding on this image", run: () => reviewing.noFinding() },
      { keys: ["y"], words: "Complete the review", run: () => reviewing.complete() },
      { keys: ["u", "Ctrl+z"], words: "Undo your last action", run: () => reviewing.undo() },
      { keys: ["Shift+u", "Ctrl+Shift+z"], words: "Redo it", run: () => reviewing.redo() },
      { keys: ["w"], words: "Drag changes the window: across contrast, up and down brightness",
        run: () => this.window() },
      { keys: ["p"], words: "Drag moves the image", run: () => this.pan() },
      { keys: ["m"], words: "Drag measures a distance; or Enter on the image, then arrow keys, with Shift",
        run: () => this.measure() },
      ...PRESETS.map((preset) => ({ keys: [preset.keys], words: preset.words, run: () => this.preset(preset) })),
      { keys: ["i"], words: "Invert", run: () => this.invert() },
      { keys: ["f"], words: "Fit the whole image", run: () => this.fit() },
      { keys: ["1"], words: "Actual size: one image pixel per screen pixel", run: () => this.oneToOne() },
      { keys: ["r"], words: "Reset window and zoom", run: () => this.reset() },
      { keys: ["+", "=", "-"], words: "Zoom", run: (event) => this.zoom(event.key === "-" ? 1 / CLOSER : CLOSER) },
      { keys: Object.keys(NUDGE), words: "Move the image",
        run: (event) => this.#picture(({ view, rendition }) => view.pan(...NUDGE[event.key], rendition)) },
      { keys: ["o"], words: "Show or hide the boxes", run: () => this.boxes() },
      { keys: ["t"], words: "Show or hide the boxes' labels", run: () => this.labels() },
      { keys: ["c"], words: "Show another model's findings beside these", run: () => this.compare() },
      { keys: ["Escape"], words: "Leave the box, the line, the tool, the finding; then return to the list", run: () => this.leave() },
      { keys: ["?"], words: "These shortcuts", run: () => this.help() },
    ].filter(({ keys }) => state.may.submit || !["a", "x", "l", "e", "d", "n", "y", "u", "Shift+u"].includes(keys[0]));
  }
}
