/**
 * Splits a command line into words as LiteFS does (mattn/go-shellwords): quotes, backslashes, no
 * variables, no globs, no shell. Returns undefined when a quote or a backslash is left open, or
 * when an operator such as `;`, `|`, `>` or `(` asks for a shell. LiteFS drops everything from
 * the operator on without a word; here the caller reports it.
 */
export function splitShellWords(line: string): string[] | undefined {
  const words: string[] = [];
  let word: string | undefined;
  let quote: string | undefined;
  for (let i = 0; i < line.length; i++) {
    const char = line.charAt(i);
    if (char === "\\" && quote !== "'") {
      i++;
      if (i === line.length) return undefined;
      word = (word ?? "") + unescape(line.charAt(i));
    } else if (quote !== undefined) {
      if (char === quote) quote = undefined;
      else word += char;
    } else if (char === "'" || char === '"') {
      quote = char;
      word ??= "";
    } else if (/[ \t\r\n]/.test(char)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else if (/[;&|<>()`]/.test(char)) {
      return undefined;
    } else {
      word = (word ?? "") + char;
    }
  }
  if (quote !== undefined) return undefined;
  if (word !== undefined) words.push(word);
  return words;
}

/** Outside single quotes `\t` and `\n` are the control characters; else the character itself. */
function unescape(char: string): string {
  if (char === "t") return "\t";
  if (char === "n") return "\n";
  return char;
}
