// Sends images from the worklist: by buttons, and by dropping files or folders anywhere on the page.

import { attempt } from "../page.js";
import { chosen, dropped } from "./files.js";
import { Panel } from "./panel.js";
import { Results } from "./results.js";
import { Uploads } from "./uploads.js";

const place = document.getElementById("upload");
const curtain = document.getElementById("drop");
const priority = document.getElementById("upload-priority");
let current = null; // the upload on the page

function begin() {
  const uploads = new Uploads();
  const results = new Results();
  const panel = new Panel(place, uploads, () => {
    place.hidden = true;
    current = null;
  });
  uploads.addEventListener("change", () => panel.changed());
  uploads.addEventListener("arrived", (event) => results.follow(event.detail));
  uploads.addEventListener("end", () => document.dispatchEvent(new Event("studies-sent")));
  results.addEventListener("change", () => panel.changed());
  return uploads;
}

function send(files) {
  current ??= begin();
  return attempt(() => current.add(files, priority.value));
}

function connect(button, input) {
  document.getElementById(button).addEventListener("click", () => document.getElementById(input).click());
  document.getElementById(input).addEventListener("change", (event) => send(chosen(event.target)));
}

const bringsFiles = (event) => event.dataTransfer?.types.includes("Files");

document.addEventListener("dragover", (event) => {
  if (!bringsFiles(event)) return;
  event.preventDefault(); // else the browser would open the file
  curtain.hidden = false;
});
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) curtain.hidden = true; // the pointer left the window
});
document.addEventListener("drop", (event) => {
  curtain.hidden = true;
  if (!bringsFiles(event)) return;
  event.preventDefault();
  send(dropped(event.dataTransfer));
});
window.addEventListener("beforeunload", (event) => {
  if (current?.isSending) event.preventDefault(); // the browser asks whether to leave
});

connect("upload-files", "upload-files-input");
connect("upload-folder", "upload-folder-input");
document.getElementById("upload-tools").hidden = false;
