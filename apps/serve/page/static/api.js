// The server: requests, streams, and its errors in plain words.
import { t } from "./texts.js";

const KEY = "nlpkit.key";
let askForKey = null;

export class PlainError extends Error {}

// Say how a key is asked for: a function that returns a promise of the key, or of null.
export function onKeyNeeded(ask) {
  askForKey = ask;
}

function headers(more) {
  const key = sessionStorage.getItem(KEY);
  return key ? { ...more, Authorization: `Bearer ${key}` } : { ...more };
}

async function problem(answer) {
  let said = "";
  try {
    const body = await answer.json();
    said = typeof body.error === "string" ? body.error : body.error.message;
  } catch {
    said = answer.statusText;
  }
  const known = { 413: "errorLong", 429: "errorBusy", 503: "errorUnavailable", 504: "errorSlow" }[answer.status];
  return new PlainError([known ? t(known) : "", known && answer.status !== 503 ? "" : said].filter(Boolean).join(" "));
}

async function send(path, options) {
  for (;;) {
    let answer;
    try {
      answer = await fetch(path, { ...options, headers: headers(options.headers) });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new PlainError(t("errorNetwork"));
    }
    if (answer.ok) return answer;
    if (answer.status !== 401 && answer.status !== 403) throw await problem(answer);
    const key = askForKey ? await askForKey(sessionStorage.getItem(KEY) !== null) : null;
    if (!key) throw new PlainError(t("errorKey"));
    sessionStorage.setItem(KEY, key);
  }
}

export async function getJson(path) {
  return (await send(path, {})).json();
}

export async function postForm(path, form, signal) {
  return (await send(path, { method: "POST", body: form, signal })).json();
}

export async function postJson(path, body, signal) {
  const type = { "Content-Type": "application/json" };
  return (await send(path, { method: "POST", headers: type, body: JSON.stringify(body), signal })).json();
}

// Yield the events of a stream, parsed.
export async function* postStream(path, body, signal) {
  const type = { "Content-Type": "application/json" };
  const text = JSON.stringify({ ...body, stream: true });
  const answer = await send(path, { method: "POST", headers: type, body: text, signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let ended = false;
  try {
    while (!ended) {
      const { value, done } = await reader.read();
      if (done) break;
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        if (!event.startsWith("data: ")) continue;
        const data = event.slice(6);
        if (data === "[DONE]") {
          ended = true;
          break;
        }
        const parsed = JSON.parse(data);
        if (parsed.error) throw new PlainError(parsed.error.message);
        yield parsed;
      }
    }
  } catch (error) {
    if (error instanceof PlainError || error.name === "AbortError") throw error;
    throw new PlainError(t("errorNetwork"));
  } finally {
    reader.cancel().catch(() => {});
  }
  if (!ended) throw new PlainError(t("errorNetwork"));
}
