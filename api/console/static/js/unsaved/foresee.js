// A review with the unsaved entries applied.

import { unsavedId } from "./sender.js";

// `entries` are those of the review's job; `nameOf` gives a class's name by its id.
export function foresee(review, entries, nameOf) {
  const steps = [review];
  const undone = [];
  for (const entry of entries) {
    if (entry.path === "/undo") {
      if (steps.length > 1) undone.push(steps.pop());
    } else if (entry.path === "/redo") {
      if (undone.length) steps.push(undone.pop());
    } else {
      undone.length = 0;
      steps.push(applied(steps.at(-1), entry, nameOf));
    }
  }
  return { ...steps.at(-1), may_undo: review.may_undo || steps.length > 1, may_redo: review.may_redo || undone.length > 0 };
}

function applied(review, entry, nameOf) {
  const { action, finding_id, class_id, box_xyxy_px, min_score } = entry.said;
  const said = { number: null, action, finding_id: finding_id ?? null, undoes: null, reader: "You, not saved yet:",
    class_name: class_id === undefined ? null : nameOf(class_id), created_at: new Date(entry.at).toISOString() };
  const after = { ...review, events: [...review.events, said] };
  const changeOne = (changes) => review.findings.map((one) => (one.id === finding_id ? { ...one, ...changes } : one));
  switch (action) {
    case "accept": return { ...after, findings: changeOne({ verdict: "accepted" }) };
    case "reject": return { ...after, findings: changeOne({ verdict: "rejected" }) };
    case "change": return { ...after, findings: changeOne({ verdict: "accepted", is_changed: true,
      ...(box_xyxy_px && { box_xyxy_px }), ...(class_id !== undefined && { class_id, class_name: nameOf(class_id) }) }) };
    case "draw": return { ...after, findings: [...review.findings, { id: unsavedId(entry), class_id, class_name: nameOf(class_id),
      score: null, box_xyxy_px, verdict: "accepted", is_changed: false }] };
    case "no_finding": return { ...after, is_complete: true,
      findings: review.findings.map((one) => ({ ...one, verdict: "rejected" })) };
    default: return { ...after, is_complete: true, complete_from_score: min_score };
  }
}
