// Sentences of a text, and which of a source says most of what another says.
export function splitSentences(text, language) {
  const segmenter = new Intl.Segmenter(language || undefined, { granularity: "sentence" });
  return [...segmenter.segment(text)].map((part) => ({ text: part.segment, start: part.index }));
}

function words(text) {
  return (text.toLocaleLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []).filter((word) => word.length > 2 || /\p{N}|\p{Lo}/u.test(word));
}

// For each sentence of `summary` the index of the most similar sentence of `source`, by the cosine of their words,
// weighted by how rare these are in the source; -1 where they have no word in common.
export function trace(summary, source) {
  const bags = source.map((one) => new Set(words(one.text)));
  const counts = new Map();
  for (const bag of bags) for (const word of bag) counts.set(word, (counts.get(word) ?? 0) + 1);
  const weight = (word) => Math.log(1 + source.length / (counts.get(word) ?? source.length)) ** 2;
  const norm = (bag) => Math.sqrt([...bag].reduce((sum, word) => sum + weight(word), 0)) || 1;
  const norms = bags.map(norm);
  return summary.map((one) => {
    const bag = new Set(words(one.text));
    const own = norm(bag);
    let best = -1;
    let score = 0;
    bags.forEach((other, index) => {
      let common = 0;
      for (const word of bag) if (other.has(word)) common += weight(word);
      const found = common / (own * norms[index]);
      if (found > score) [best, score] = [index, found];
    });
    return best;
  });
}

// Turn an offset in characters (code points), as the server counts, into one in JavaScript's units.
export function toUnits(text, offset) {
  let units = 0;
  let left = offset;
  for (const character of text) {
    if (left === 0) break;
    units += character.length;
    left -= 1;
  }
  return units;
}
