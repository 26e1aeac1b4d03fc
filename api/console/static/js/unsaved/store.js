// What the signed-in reader said and the server has not acknowledged, in the browser's own storage: ids, verdicts, boxes and
// class names only, never a picture or anything of a patient. Another key, or another project, finds none of it.

import { reader } from "../api.js";

export const MAX_ENTRIES = 500;
const PREFIX = `carina.unsaved:${reader}:`;
const inMemory = new Map(); // where the storage is full or forbidden

// The oldest first. An entry is read anew each time, for another tab may have sent or changed it.
export function entries() {
  if (!reader) return [];
  const names = [...inMemory.keys(), ...stored()];
  return names.sort().map(entry).filter(Boolean);
}

export function entry(name) {
  if (inMemory.has(name)) return structuredClone(inMemory.get(name));
  try {
    const found = JSON.parse(localStorage.getItem(PREFIX + name));
    return found?.id && found.job_id && found.image_id ? { ...found, name } : null;
  } catch {
    return null; // it is not ours
  }
}

// Adds an entry, or changes it.
export function put(said) {
  const { name, ...values } = said;
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(values));
    inMemory.delete(name);
  } catch {
    inMemory.set(name, structuredClone(said));
  }
}

export function remove(name) {
  inMemory.delete(name);
  try {
    localStorage.removeItem(PREFIX + name);
  } catch {
    // If storage is unavailable, there are no stored entries.
  }
}

export function clear() {
  for (const { name } of entries()) remove(name);
}

// Whether closing the page would lose something.
export function isFleeting() {
  return inMemory.size > 0;
}

// A name that sorts behind all others.
export function nextName() {
  const last = Number(entries().at(-1)?.name.slice(0, 15) ?? 0);
  const time = String(Math.max(Date.now(), last + 1)).padStart(15, "0");
  return `${time}-${newKey().slice(0, 6)}`;
}

export function newKey() {
  // `crypto.randomUUID` is missing where the console is reached without HTTPS.
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function stored() {
  try {
    return Object.keys(localStorage).filter((key) => key.startsWith(PREFIX)).map((key) => key.slice(PREFIX.length));
  } catch {
    return [];
  }
}
