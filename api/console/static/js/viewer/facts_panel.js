// Above the findings: the study, the image, its job's state and its flags.

import { data, element } from "../page.js";
import { SPACINGS, minute } from "./words.js";

const FLAGS = data("flags");
const STATES = data("states");

export class FactsPanel {
  #state;
  element = element("header", { className: "study-facts" });
  details = element("details", { className: "about" });

  constructor(state) {
    this.#state = state;
  }

  refresh() {
    const { study, image, index } = this.#state;
    const shown = study.images.length;
    const left = study.image_count > shown ? `, the newest of ${study.image_count}` : "";
    const many = shown > 1 ? ` · image ${index + 1} of ${shown}${left}` : "";
    this.element.replaceChildren(
      element("h1", {}, `Study of ${minute(study.created_at)}`),
      element("p", { className: "quiet" }, element("code", { title: study.id }, study.id.slice(-12)), many),
      ...this.#flags(image), ...this.#standing(image));
    const isOpen = this.details.open;
    this.details.replaceChildren(element("summary", {}, "About the image"), this.#table(study, image));
    this.details.open = isOpen;
  }

  #flags(image) {
    if (!image?.flags?.length) return [];
    const lines = image.flags.map((flag) => {
      const { label, meaning } = FLAGS[flag];
      return element("li", {}, element("strong", {}, label), `: ${meaning}`);
    });
    return [element("ul", { className: "flags", "aria-label": "Flags of the image" }, ...lines)];
  }

  // Shown if the latest job has not succeeded; an earlier result may be shown below.
  #standing(image) {
    const job = image?.standing_job;
    if (!job || job.state === "succeeded") return [];
    return [element("p", { className: "standing", role: "status" }, ...jobWords(job))];
  }

  #table(study, image) {
    const spacing = image.pixel_spacing;
    const rows = [
      ["Size", `${image.width_px} × ${image.height_px} px`],
      ["Pixel", spacing ? `${spacing.column_mm.toFixed(3)} × ${spacing.row_mm.toFixed(3)} mm, measured ` +
        `${SPACINGS[spacing.source] ?? spacing.source}` : "size unknown: findings are measured in pixels"],
      ["Brightness", image.grey_levels?.join(" → ") || "–"],
      ["Text in the pixels", { true: "yes, by the header", false: "no, by the header" }[image.burned_in_annotation] ??
        "not stated"],
      ...Object.entries(image.chest_scores?.scores ?? {}).map(([name, score]) => [
        `Looks like ${name.replaceAll("_", " ")}`, score.toFixed(2)]),
      ["Study", study.study_instance_uid ?? study.id],
      ["File", `${image.media_type}, SHA-256 ${image.sha256.slice(0, 16)}…`],
    ];
    return element("dl", {}, ...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
  }
}

export function jobWords(job) {
  const words = [element("strong", {}, STATES[job.state] ?? job.state)];
  if (job.reason) words.push(`: ${job.reason}`);
  if (job.code) words.push(" ", element("code", {}, job.code));
  return words;
}
