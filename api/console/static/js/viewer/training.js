// Reviews as training data: a dataset is made of every image of the project whose review is done.

import { at, get, send } from "../api.js";
import { onSubmit } from "../dialog.js";
import { element } from "../page.js";

const LOOK_AGAIN_MS = 1000;

export function makeTrainingData() {
  const name = element("input", { id: "dataset-name", name: "name", value: "reviews", required: true, maxLength: 100,
    pattern: "[A-Za-z0-9][A-Za-z0-9._ \\-]*", title: "Start with a letter or digit, followed by letters, digits, . _ - and spaces." });
  const outcome = element("p", { role: "status" });
  const start = element("button", { className: "primary" }, "Make the dataset");
  const close = element("button", { type: "button" }, "Close");
  const form = element("form", {},
    element("label", { htmlFor: "dataset-name" }, "Name (an existing name gets a new version)"), name,
    element("p", { className: "row answers" }, start, close));
  const dialog = element("dialog", { className: "training", "aria-labelledby": "training-title" },
    element("h2", { id: "training-title" }, "Training data from reviews"),
    element("p", {}, "Uses every image of this project whose review is complete, with the findings that were accepted, " +
      "changed or drawn. Four of five patients go to training, the fifth to validation."),
    form, outcome);
  onSubmit(form, () => make(name.value, outcome, dialog));
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

async function make(name, outcome, dialog) {
  let dataset = await send("POST", "/v1/datasets", { name, source: { format: "reviews" } });
  while (dialog.isConnected && !dataset.finished_at) {
    outcome.textContent = dataset.state === "queued" ? "Waiting for a trainer…" : "Being made…";
    await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
    dataset = await get(`/v1/datasets/${dataset.id}`);
  }
  outcome.replaceChildren(...(dataset.state === "succeeded" ? made(dataset) : [dataset.reason ?? dataset.state]));
}

function made(dataset) {
  const link = element("a", { href: at(`/v1/datasets/${dataset.id}/coco`), download: `${dataset.name}.json` }, "COCO JSON");
  return [`${dataset.image_count} images, ${dataset.box_count} boxes. `, link];
}
