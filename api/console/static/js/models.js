// Models: promotes, rolls back and evaluates, each after a confirmation.

import { get, send } from "./api.js";
import { ask, onSubmit } from "./dialog.js";
import { element, say } from "./page.js";

const EVERY_MS = 3000;

async function change(question, path, done) {
  const model = await ask({ ...question, work: () => send("POST", path) });
  if (model) reloadSaying(done(model));
}

function reloadSaying(words) {
  sessionStorage.setItem("said", words);
  location.reload();
}

// The server asks for a reason where the gate of any project refused the model, and the audit keeps it.
function reasonFields(isNeeded) {
  const label = isNeeded ? "Reason for promoting it anyway (kept in the audit)" : "Reason (kept in the audit; required if the gate refused the model)";
  return [element("label", { htmlFor: "reason" }, label),
    element("input", { id: "reason", name: "reason", required: isNeeded, maxLength: 500, autocomplete: "off" })];
}

function promotion(form) {
  const reason = form.elements.reason.value.trim();
  return reason ? { reason } : {};
}

for (const button of document.querySelectorAll("[data-promote]")) {
  const { promote: id, name, gate, outcome } = button.dataset;
  button.addEventListener("click", async () => {
    const model = await ask({
      title: `Promote ${name}?`,
      text: ["From now on it is used for every image whose request names no model. Workers switch to it between two batches.", gate],
      fields: reasonFields(outcome === "refused"),
      agree: "Promote",
      work: (form) => send("POST", `/v1/models/${id}/promote`, promotion(form)),
    });
    if (model) reloadSaying(`${model.name} is active now.`);
  });
}

const rollBack = document.getElementById("roll-back");
rollBack?.addEventListener("click", () => change(
  { title: `Roll back to ${rollBack.dataset.name}?`, text: "The previous model becomes active again. The current one becomes a candidate.", agree: "Roll back" },
  "/v1/models/rollback", (model) => `${model.name} is active again.`));

const dialog = document.getElementById("evaluate");
for (const button of document.querySelectorAll("[data-evaluate]")) {
  button.addEventListener("click", () => {
    dialog.querySelector("form").elements.model.value = button.dataset.evaluate;
    document.getElementById("evaluated").textContent = button.dataset.name;
    dialog.showModal();
  });
}
if (dialog) {
  onSubmit(dialog.querySelector("form"), async (form) => {
    const { model, dataset, split } = form.elements;
    const evaluation = await send("POST", "/v1/evaluations",
      { model: model.value, dataset: dataset.value, config: { split: split.value } });
    dialog.close();
    say("The evaluation is queued. Its figures appear here.");
    untilDone(evaluation.id).then(() => location.reload());
  });
}

async function untilDone(id) {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
    const seen = await get(`/v1/evaluations/${id}`).catch(() => null); // the next poll tries again
    if (["succeeded", "failed", "cancelled"].includes(seen?.state)) return;
  }
}

function openNamed() {
  const details = document.getElementById(location.hash.slice(1))?.querySelector("details");
  if (details) details.open = true;
}

const said = sessionStorage.getItem("said");
if (said) {
  sessionStorage.removeItem("said");
  say(said);
}
addEventListener("hashchange", openNamed);
openNamed();
