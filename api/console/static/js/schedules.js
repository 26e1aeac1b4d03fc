// Schedules: paused, resumed, started by hand, added, changed and removed.

import { at, send } from "./api.js";
import { ask, onSubmit } from "./dialog.js";
import { attempt, data, duration, element } from "./page.js";
import { describeRecipe, readConfig, readGate } from "./training_form.js";

const byId = new Map(data("schedules").schedules.map((schedule) => [schedule.id, schedule]));
const dialog = document.getElementById("dialog");
let edited = null;

const patch = (schedule, changes) => send("PATCH", `/v1/schedules/${schedule.id}`, changes);

const ACTIONS = {
  async run(schedule) {
    const run = await ask({
      title: `Run ${schedule.name} now?`, text: "A training starts now, regardless of the schedule's rules.", agree: "Run now",
      work: () => send("POST", `/v1/schedules/${schedule.id}/run`),
    });
    if (run) location.assign(at(`/console/training/${run.id}`));
  },
  async pause(schedule) {
    await patch(schedule, { enabled: false });
    location.reload();
  },
  async resume(schedule) {
    await patch(schedule, { enabled: true });
    location.reload();
  },
  async delete(schedule) {
    const answer = await ask({
      title: `Delete ${schedule.name}?`, text: "Its runs and their models stay.", agree: "Delete",
      work: () => send("DELETE", `/v1/schedules/${schedule.id}`),
    });
    if (answer !== undefined) location.reload();
  },
  async edit(schedule) {
    open(schedule);
  },
};

for (const button of document.querySelectorAll("[data-do]")) {
  const schedule = byId.get(button.parentElement.dataset.schedule);
  button.setAttribute("aria-label", `${button.textContent} ${schedule.name}`);
  button.addEventListener("click", () => attempt(() => ACTIONS[button.dataset.do](schedule)));
}

// With a schedule: to change it; without: to add one.
function open(schedule) {
  edited = schedule;
  const form = dialog.querySelector("form");
  const fields = form.elements;
  form.reset();
  fields.recipe.querySelector('[value=""]')?.remove();
  document.getElementById("dialog-title").textContent = schedule ? `Edit ${schedule.name}` : "Add a schedule";
  fields.name.disabled = Boolean(schedule); // a schedule's name cannot change
  fields.time_zone.value = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (schedule) fill(fields, schedule);
  fields.recipe.dispatchEvent(new Event("change"));
  dialog.showModal();
}

function fill(fields, schedule) {
  for (const key of ["name", "cron", "time_zone", "dataset_name", "overlap"]) fields[key].value = schedule[key];
  fields.skip_unchanged.checked = schedule.skip_unchanged;
  const kept = element("option", { value: "" }, "unchanged");
  for (const key of ["epochs", "batch_size", "learning_rate"]) kept.dataset[key] = schedule.config[key];
  fields.recipe.prepend(kept);
  fields.recipe.value = "";
  if (!schedule.gate) return;
  fields.gate_dataset.value = schedule.gate.evaluation_dataset_id;
  fields.gate_split.value = schedule.gate.evaluation.split;
  fields.gate_metric.value = schedule.gate.metric;
  fields.least_gain.value = schedule.gate.least_gain;
  fields.promote.checked = schedule.gate.promote;
}

// Keeps the gate's fields that the dialog does not show.
function gateOf(form) {
  const gate = readGate(form);
  const before = edited?.gate;
  if (!gate || !before) return gate;
  return { ...before, ...gate, evaluation: { ...before.evaluation, ...gate.evaluation } };
}

if (dialog) {
  describeRecipe(dialog.querySelector("form"));
  document.getElementById("add").addEventListener("click", () => open(null));
  onSubmit(dialog.querySelector("form"), async (form) => {
    const fields = form.elements;
    const config = readConfig(form);
    const said = {
      cron: fields.cron.value, time_zone: fields.time_zone.value, dataset_name: fields.dataset_name.value,
      overlap: fields.overlap.value, skip_unchanged: fields.skip_unchanged.checked, gate: gateOf(form),
    };
    if (fields.recipe.value) said.recipe = fields.recipe.value;
    if (!edited || Object.keys(config).length) said.config = config;
    if (edited) await patch(edited, said);
    else await send("POST", "/v1/schedules", { ...said, name: fields.name.value });
    location.reload();
  });
}

for (const time of document.querySelectorAll("time")) {
  const seconds = (new Date(time.dateTime) - Date.now()) / 1000;
  time.textContent = seconds > 0 ? `in ${duration(seconds)}` : "now";
}
