/* What the browser remembers for the page. Storage may be refused; then nothing is remembered.

   Questions, answers and documents are never kept here. */

function place(name) {
  try {
    return window[name];
  } catch {
    return null;
  }
}

/** What was kept under a name, or null. */
export function kept(name, where = "localStorage") {
  return place(where)?.getItem(name) ?? null;
}

/** Keep a text under a name; null forgets it. */
export function keep(name, text, where = "localStorage") {
  try {
    if (text === null) place(where)?.removeItem(name);
    else place(where)?.setItem(name, text);
  } catch {
    // Full or refused: the page works without.
  }
}
