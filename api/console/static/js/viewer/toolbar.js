// The buttons above the image.

import { element } from "../page.js";
import { PRESETS } from "./presets.js";
import { worklist } from "./studies.js";

export class Toolbar {
  #state;
  #pressed = []; // [button, whether it is on]
  #enabled = []; // [button, whether it can be used]

  constructor(root, state, commands) {
    this.#state = state;
    const tool = (name, words, keys) => this.#button(words, keys, () => commands[name](), () => state.tool === name);
    const draw = tool("draw", "Draw", "D");
    const compare = this.#button("Compare", "C", () => commands.compare(), () => state.other !== null);
    const newer = this.#button("‹ Previous", "[", () => commands.newer());
    const older = this.#button("Next ›", "]", () => commands.older());
    const measure = tool("measure", "Measure", "M");
    const picture = this.#picture(commands);
    draw.hidden = !state.may.submit;
    for (const one of [measure, ...picture]) this.#enabled.push([one, () => state.rendition !== null]);
    this.#enabled.push([newer, () => Boolean(state.study.newer)], [older, () => Boolean(state.study.older)],
      [compare, () => state.image?.results.length > 1], [draw, () => state.review !== null]);
    root.append(
      group("Studies", element("a", { className: "button", href: worklist(), title: "Back to the list (Esc)" }, "List"),
        newer, older),
      group("Drag to", tool("window", "Window", "W"), tool("pan", "Pan", "P"), measure, draw),
      group("Picture", ...picture),
      group("Findings", this.#button("Boxes", "O", () => commands.boxes(), () => state.areBoxesShown),
        this.#button("Labels", "T", () => commands.labels(), () => state.areLabelsShown), compare),
      this.#button("?", "?", () => commands.help(), null, "Keyboard shortcuts"));
  }

  #picture(commands) {
    const { grey } = this.#state;
    return [
      ...PRESETS.map((preset) => this.#button(
        preset.name, preset.keys, () => commands.preset(preset), () => grey.preset === preset.name, preset.words)),
      this.#button("Invert", "I", () => commands.invert(), () => grey.isInverted),
      this.#button("Fit", "F", () => commands.fit()), this.#button("1:1", "1", () => commands.oneToOne()),
      this.#button("Reset", "R", () => commands.reset()),
    ];
  }

  refresh() {
    for (const [button, isOn] of this.#pressed) button.setAttribute("aria-pressed", String(isOn()));
    for (const [button, isUsable] of this.#enabled) button.disabled = !isUsable();
  }

  #button(words, keys, work, isOn = null, label = words.replace(/[‹›]/g, "").trim()) {
    const made = element("button", { type: "button", title: `${label} (${keys})`, "aria-label": label,
      "aria-keyshortcuts": keys }, words);
    made.addEventListener("click", work);
    if (isOn) this.#pressed.push([made, isOn]);
    return made;
  }
}

function group(label, ...buttons) {
  return element("div", { className: "group", role: "group", "aria-label": label }, ...buttons);
}
