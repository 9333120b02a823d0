// What was asked, kept in this browser alone.
const NAME = "nlpkit.history";
const MOST = 50;
const LONGEST = 20000;

export function readHistory() {
  try {
    const found = JSON.parse(localStorage.getItem(NAME) ?? "[]");
    return Array.isArray(found) ? found : [];
  } catch {
    return [];
  }
}

// Keep an entry: `view`, `input` (what the view needs to show it again), `title` and `output`.
export function remember(entry) {
  if (JSON.stringify(entry).length > LONGEST) return;
  const entries = [{ ...entry, at: Date.now() }, ...readHistory()].slice(0, MOST);
  try {
    localStorage.setItem(NAME, JSON.stringify(entries));
  } catch {
    // The browser keeps nothing, or has no room: the page works without.
  }
}

export function clearHistory() {
  localStorage.removeItem(NAME);
}
