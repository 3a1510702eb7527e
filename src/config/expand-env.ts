export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Replaces `$NAME` and `${NAME}` in the whole text, before it is read as YAML, as Go's os.Expand
 * does. Inside braces there may also be a comparison, `NAME == 'text'`, `NAME != "text"` or
 * `NAME == OTHER`, which becomes `true` or `false`. An unset variable is empty.
 *
 * The quirks of os.Expand are kept, because configurations rely on them: `$$`, `$1` and the like
 * are the (unset) variables of a shell and vanish, `${}` and an unclosed `${` are eaten, and a
 * `$` in front of anything else stays.
 */
export function expandEnv(text: string, env: Environment): string {
  return text.replaceAll(REFERENCE, (whole: string, braced?: string, bare?: string) => {
    if (braced !== undefined) return evaluate(braced.trim(), env);
    if (bare !== undefined) return env[bare] ?? "";
    return whole === "$" ? "$" : "";
  });
}

/** `${…}` with something in it, `$NAME` or `$` and one special character, `${}`, `${`, or `$`. */
const REFERENCE = /\$(?:\{([^}]+)\}|([*#$@!?\-0-9]|[A-Za-z_][A-Za-z0-9_]*)|\{\}|\{)?/g;

const COMPARISON = /^(\w+)\s*(==|!=)\s*(?:'(.*)'|"(.*)"|(\w+))$/;

function evaluate(expression: string, env: Environment): string {
  const match = COMPARISON.exec(expression);
  if (match === null) return env[expression] ?? "";
  const [, name = "", operator, single, double, other = ""] = match;
  const equal = (env[name] ?? "") === (single ?? double ?? env[other] ?? "");
  return String(operator === "==" ? equal : !equal);
}
