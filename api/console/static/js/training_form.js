// Reads the fields of a training's recipe, config and gate as the API takes them.

import { FieldError } from "./dialog.js";

const NUMBERS = ["epochs", "batch_size", "learning_rate", "seed"];

// Shows the recipe's values as placeholders.
export function describeRecipe(form) {
  const show = () => {
    const { dataset } = form.recipe.selectedOptions[0];
    for (const key of ["epochs", "batch_size", "learning_rate"]) form[key].placeholder = dataset[key];
  };
  form.recipe.addEventListener("change", show);
  form.addEventListener("reset", () => setTimeout(show));
  show();
}

export function readConfig(form) {
  const config = form.config.value.trim() ? parse(form.config.value) : {};
  for (const key of NUMBERS) if (form[key].value !== "") config[key] = Number(form[key].value);
  if (form.initial_weights.value) config.initial_weights = form.initial_weights.value;
  return config;
}

export function readGate(form) {
  if (!form.gate_dataset.value) return null;
  return {
    evaluation_dataset_id: form.gate_dataset.value,
    evaluation: { split: form.gate_split.value },
    metric: form.gate_metric.value,
    least_gain: Number(form.least_gain.value || 0),
    promote: form.promote.checked,
  };
}

function parse(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new FieldError("config", `This is not valid JSON: ${error.message}`);
  }
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    throw new FieldError("config", "Write an object, as in {\"epochs\": 3}.");
  }
  return value;
}
