/**
 * The known key that somebody who wrote `wrong` probably meant: one under another section with
 * the same last name, or one a few letters away. Undefined when nothing is near.
 */
export function suggestKey(wrong: string, known: readonly string[]): string | undefined {
  const name = lastName(wrong);
  const moved = known.filter((key) => lastName(key) === name);
  if (moved.length === 1) return moved[0];
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(wrong.length / 3)) + 1;
  for (const key of known) {
    const distance = editDistance(wrong, key);
    if (distance < bestDistance) [best, bestDistance] = [key, distance];
  }
  return best;
}

function lastName(key: string): string {
  return key.slice(key.lastIndexOf(".") + 1);
}

/** Levenshtein: the fewest insertions, deletions and replacements that turn one into the other. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (a.charAt(i - 1) === b.charAt(j - 1) ? 0 : 1);
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
