// Dialogs: questions and forms that stay open until their work is done, with each error beside its field.

import { element } from "./page.js";

// A field error found by the page, in the API's form.
export class FieldError extends Error {
  constructor(name, detail) {
    super(detail);
    this.errors = [{ name, detail }];
  }
}

// Confirms an action that cannot be undone, with optional `fields` (labels and inputs). The
// dialog stays open until `work(form)` is done, and shows the error if it fails. Resolves to the result of `work`, by
// default true; to undefined if the user cancels.
export function ask({ title, text, agree, fields = [], work = async () => true }) {
  return new Promise((resolve) => {
    const form = element("form", { method: "dialog" },
      element("h2", { id: "question" }, title), ...[text].flat().map((words) => element("p", {}, words)), ...fields,
      element("p", { className: "row answers" },
        element("button", { value: "yes", className: "primary" }, agree),
        element("button", { value: "cancel" }, "Cancel")));
    const dialog = element("dialog", { "aria-labelledby": "question" }, form);
    let outcome;
    onSubmit(form, async () => {
      outcome = await work(form);
      dialog.close();
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(outcome);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

// Submits a form with `work`. Errors of the browser, the page or the API are shown beside their fields.
export function onSubmit(form, work) {
  form.noValidate = true; // the browser's own messages disappear, and do not show for collapsed fields
  form.addEventListener("input", ({ target }) => clear(target));
  form.closest("dialog")?.addEventListener("close", () => clearAll(form));
  form.addEventListener("submit", async (event) => {
    const { submitter } = event;
    if (submitter?.value === "cancel") return;
    event.preventDefault();
    clearAll(form);
    const errors = [...form.elements].filter((field) => field.willValidate && !field.validity.valid)
      .map((field) => ({ field, detail: wordsFor(field) }));
    if (errors.length) return show(form, { errors });
    if (submitter) submitter.disabled = true;
    try {
      await work(form);
    } catch (error) {
      show(form, error, submitter);
    } finally {
      if (submitter) submitter.disabled = false;
    }
    return undefined;
  });
}

function wordsFor(field) {
  if (field.validity.valueMissing) return "Fill in this field.";
  return (field.validity.patternMismatch && field.title) || field.validationMessage;
}

// Marks the fields that an error names, and focuses the first; other errors are shown at the form's end.
function show(form, error, submitter = null) {
  const marked = [];
  const others = [];
  for (const { name, field = fieldOf(form, name), detail } of error.errors ?? []) {
    if (field) marked.push(mark(field, detail));
    else others.push(name ? `${name}: ${detail}.` : `${detail}.`);
  }
  const refused = alertOf(form);
  refused.hidden = marked.length > 0 && others.length === 0;
  refused.replaceChildren(others.join(" ") || error.message || "", ...(error.code ? [" ", element("code", {}, error.code)] : []));
  const first = [...form.elements].find((field) => marked.includes(field));
  if (!first) {
    if (submitter) submitter.disabled = false; // it cannot have the focus before
    submitter?.focus();
    refused.scrollIntoView({ block: "nearest" });
    return;
  }
  for (let folded = first.closest("details"); folded; folded = folded.parentElement.closest("details")) folded.open = true;
  first.focus({ preventScroll: true });
  first.scrollIntoView({ block: "center" });
}

// The field of a parameter as the API names it, such as `gate.least_gain`; else the one that holds what it is part of. A
// field that was left empty is not at fault where another one may hold the same.
function fieldOf(form, name) {
  const parts = name.split(".");
  const found = parts.map((_, index) => parts.slice(0, parts.length - index).join("."))
    .map((path) => form.querySelector(`[data-parameter="${CSS.escape(path)}"], [name="${CSS.escape(path)}"]`))
    .filter((field) => field && field.type !== "hidden" && !field.disabled);
  return found.find((field) => field.value !== "") ?? found[0] ?? null;
}

function mark(field, detail) {
  const id = `${field.id || field.name}-error`;
  const words = document.getElementById(id) ?? element("p", { className: "error", id });
  words.textContent = detail;
  (field.closest("label") ?? field).after(words);
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-describedby", [...describedBy(field, id), id].join(" "));
  return field;
}

function clearAll(form) {
  for (const field of form.elements) clear(field);
  alertOf(form).hidden = true;
}

function clear(field) {
  if (field.getAttribute("aria-invalid") !== "true") return;
  const id = `${field.id || field.name}-error`;
  document.getElementById(id)?.remove();
  field.removeAttribute("aria-invalid");
  const others = describedBy(field, id);
  if (others.length) field.setAttribute("aria-describedby", others.join(" "));
  else field.removeAttribute("aria-describedby");
}

function describedBy(field, but) {
  return (field.getAttribute("aria-describedby") ?? "").split(" ").filter((id) => id && id !== but);
}

function alertOf(form) {
  const known = form.querySelector(":scope > [role=alert]");
  if (known) return known;
  const made = element("p", { className: "error", role: "alert", hidden: true });
  const answers = form.querySelector(":scope > menu, :scope > .answers");
  if (answers) answers.before(made);
  else form.append(made);
  return made;
}
