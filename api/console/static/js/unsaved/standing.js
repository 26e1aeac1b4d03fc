// Shows on every page what is not saved yet, and lets the reader resolve conflicts.

import { at } from "../api.js";
import { element, say } from "../page.js";
import { ACTIONS, minute } from "../viewer/words.js";
import { sender } from "./sender.js";
import { entries, isFleeting } from "./store.js";

export function showStanding(place) {
  const words = element("span", {});
  const decide = element("button", { type: "button", hidden: true, onclick: askNext }, "Decide…");
  place.append(words, decide);
  const refresh = () => {
    const [text, kind] = standing();
    if (words.textContent !== text) words.textContent = text;
    words.className = text && `tag ${kind}`;
    words.title = sender.problem ? `${sender.problem.message} (${sender.problem.code})` : "";
    decide.hidden = sender.conflicts.size === 0;
  };
  sender.addEventListener("change", refresh);
  sender.addEventListener("conflict", (event) => {
    refresh();
    if (!document.querySelector("dialog[open]")) choose(event.detail);
  });
  sender.addEventListener("refused", ({ detail: { entry, error } }) =>
    say(`Not saved: ${entry.words}. ${error.message} (${error.code})`, { bad: true, for_ms: 60000 }));
  addEventListener("storage", refresh); // another tab has changed the entries
  addEventListener("online", () => sender.send());
  addEventListener("beforeunload", (event) => {
    if (isFleeting()) event.preventDefault(); // the browser asks whether to leave
  });
  refresh();
  if (entries().length) sender.send();
}

function standing() {
  const count = entries().length;
  const waits = count === 1 ? "1 verdict not saved" : `${count} verdicts not saved`;
  if (!count) return [sender.hasSaved ? "Saved" : "", "good"];
  if (isFleeting()) return [`${waits}. Keep this page open`, "bad"];
  if (sender.problem?.status === 0) return [`Offline: ${waits}`, "wait"];
  if (sender.problem?.status === 401) return [`Signed out: ${waits}`, "wait"];
  if (sender.problem || sender.conflicts.size) return [waits, "wait"];
  return ["Saving…", "wait"];
}

function askNext() {
  const [jobId] = sender.conflicts.keys();
  if (jobId) choose(jobId);
}

// Shows both versions of a conflict. If closed without a choice, it can be opened again.
function choose(jobId) {
  const { entry, review, against } = sender.conflicts.get(jobId);
  const nameOf = (event) => review.findings.find(({ id }) => id === event.finding_id)?.class_name ?? event.class_name ?? "";
  const theirs = against.map((event) => element("li", {},
    [event.reader, ACTIONS[event.action], nameOf(event), boxOf(event.finding_id, review)].filter(Boolean).join(" "),
    " ", element("time", { className: "quiet", dateTime: event.created_at }, minute(event.created_at))));
  const dialog = element("dialog", { className: "conflict", "aria-labelledby": "conflict-title" },
    element("h2", { id: "conflict-title" }, "Another reader has changed this review"),
    element("h3", {}, "You"), element("p", {}, entry.words, " ", boxText(entry.said?.box_xyxy_px)),
    element("h3", {}, "Since then"), element("ul", {}, ...theirs),
    element("p", {}, element("a", { href: at(`/console/studies/${entry.study_id}`) }, "Open the study")),
    element("form", { method: "dialog", className: "row" },
      element("button", { value: "mine", className: "primary" }, "Save mine"),
      element("button", { value: "theirs" }, "Keep theirs"),
      element("button", { value: "" }, "Decide later")));
  dialog.addEventListener("close", async () => {
    dialog.remove();
    if (!dialog.returnValue) return;
    await sender.choose(jobId, dialog.returnValue === "mine");
    askNext();
  });
  document.body.append(dialog);
  dialog.showModal();
}

function boxOf(findingId, review) {
  return boxText(review.findings.find(({ id }) => id === findingId)?.box_xyxy_px);
}

function boxText(box) {
  return box ? `(box ${box.map(Math.round).join(", ")} px)` : "";
}
