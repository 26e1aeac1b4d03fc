// Which files there are to send: those that were chosen or dropped, and those in folders, found as they are needed.

const OF_NO_USE = /^(\..*|thumbs\.db|desktop\.ini|dicomdir)$/i;
// A name with an image's extension is taken for a file: asking the browser costs up to half a millisecond each.
const IMAGE = /\.(dcm|dicom|png|jpe?g)$/i;

// To be called while the drop is being handled: afterwards the browser forgets what was dropped.
export function dropped(transfer) {
  const found = [...transfer.items].filter((item) => item.kind === "file").map((item) => {
    const file = item.getAsFile();
    return file && IMAGE.test(file.name) ? file : item.webkitGetAsEntry();
  });
  return walk(found.filter(Boolean));
}

// Of an <input type=file>, which is emptied so that the same choice can be made again.
export function chosen(input) {
  const files = [...input.files].filter((file) => !OF_NO_USE.test(file.name));
  input.value = "";
  return files.map((file) => ({ name: file.webkitRelativePath || file.name, open: async () => file }));
}

async function* walk(entries) {
  for (const entry of entries) {
    if (entry.isDirectory) yield* walkFolder(entry);
    else if (OF_NO_USE.test(entry.name)) continue;
    else if (entry instanceof File) yield { name: entry.name, open: async () => entry };
    else yield { name: entry.fullPath.slice(1), open: () => open(entry) };
  }
}

async function* walkFolder(folder) {
  const reader = folder.createReader();
  for (;;) {
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return; // a directory reader returns batches, and an empty one at the end
    yield* walk(entries);
  }
}

function open(entry) {
  return new Promise((resolve, reject) => entry.file(resolve, reject));
}
