// The data of studies' pages: the one that is open comes with its page, the ones beside it are fetched before they are
// asked for, images and all, so that turning to the next study needs no answer from the server.

import { at, request } from "../api.js";
import { loadRendition } from "./rendition.js";

const KEPT = 12;
const studies = new Map();
const { from } = document.getElementById("panel").dataset; // the worklist's query

// The worklist as the reader left it.
export function worklist() {
  return at(from ? `/console/studies?${from}` : "/console/studies");
}

// Every study's address keeps the worklist's query, by which its neighbours are found.
export function address(id) {
  return at(`/console/studies/${id}${from ? `?from=${encodeURIComponent(from)}` : ""}`);
}

export function keep(study) {
  studies.set(study.id, Promise.resolve(study));
}

// A page's data stands in the page itself, so the server has one way only to say what a study is.
export async function fetchStudy(id, { again = false } = {}) {
  if (!again && studies.has(id)) return studies.get(id);
  const fetching = read(id);
  studies.delete(id);
  studies.set(id, fetching);
  fetching.catch(() => studies.delete(id));
  for (const old of studies.keys()) {
    if (studies.size <= KEPT) break;
    studies.delete(old);
  }
  return fetching;
}

export async function prefetch(ids) {
  for (const id of ids.filter(Boolean)) {
    try {
      const study = await fetchStudy(id);
      if (study.images[0]?.has_rendition) await loadRendition(study.images[0].id, { urgent: false });
    } catch {
      return; // it will be said when the reader goes there
    }
  }
}

async function read(id) {
  const answer = await request(address(id), { isQuiet: true });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  return JSON.parse(page.getElementById("study").textContent);
}
