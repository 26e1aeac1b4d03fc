// The list of trainings: refreshes its rows, and starts a training from a dialog.

import { at, get, request, send } from "./api.js";
import { onSubmit } from "./dialog.js";
import { element } from "./page.js";
import { describeRecipe, readConfig, readGate } from "./training_form.js";

const EVERY_MS = 3000;
const KIND = { succeeded: "good", failed: "bad", cancelled: "bad" };
const dialog = document.getElementById("dialog");

if (dialog) {
  describeRecipe(dialog.querySelector("form"));
  document.getElementById("start").addEventListener("click", () => dialog.showModal());
  onSubmit(dialog.querySelector("form"), async (form) => {
    const started = await send("POST", "/v1/trainings", {
      dataset: form.elements.dataset.value,
      recipe: form.elements.recipe.value,
      config: readConfig(form),
      gate: readGate(form),
      ...(form.elements.name.value ? { name: form.elements.name.value } : {}),
    });
    location.assign(at(`/console/training/${started.id}`));
  });
}

const isOpen = (row) => !(row.dataset.state in KIND);

function update(row, run) {
  row.dataset.state = run.state;
  const of = (what) => row.querySelector(`[data-of="${what}"]`);
  of("state").replaceChildren(element("span", { className: `tag ${KIND[run.state] ?? "wait"}` }, run.state));
  const { progress } = run;
  if (progress.epochs) {
    const bar = of("progress").querySelector("progress")
      ?? element("progress", { max: progress.epochs, "aria-label": `Progress of ${run.name}` });
    bar.value = progress.epoch + progress.step / progress.steps_in_epoch;
    of("progress").replaceChildren(bar, " ",
      element("span", { className: "quiet nowrap" }, `epoch ${progress.epoch} of ${progress.epochs}`));
  }
  of("ap40").textContent = progress.ap40 === null || progress.ap40 === undefined ? "–" : progress.ap40.toFixed(3);
}

const rowOf = (id) => document.querySelector(`#trainings [data-id="${id}"]`);
const isNewestPage = !new URLSearchParams(location.search).has("before");

// Adds rows for trainings that started after the page was loaded, as the server renders them.
async function addNew() {
  const [newest] = (await get("/v1/trainings?limit=1")).trainings;
  if (!newest || rowOf(newest.id)) return;
  const page = new DOMParser().parseFromString(await (await request(location.pathname)).text(), "text/html");
  const fresh = [...page.querySelectorAll("#trainings [data-id]")].filter((row) => !rowOf(row.dataset.id));
  const body = document.querySelector("#trainings tbody");
  body.querySelector("tr:not([data-id])")?.remove();
  body.prepend(...fresh);
}

async function look() {
  if (document.hidden) return;
  for (const row of [...document.querySelectorAll("#trainings [data-id]")].filter(isOpen)) {
    update(row, await get(`/v1/trainings/${row.dataset.id}`));
  }
  if (isNewestPage) await addNew();
}

async function keepLooking() {
  await look().catch(() => {}); // the next poll tries again
  setTimeout(keepLooking, EVERY_MS);
}

keepLooking();
