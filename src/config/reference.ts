import { OPTIONS, type Option } from "./schema.ts";

/** The table of all options for the documentation, in Markdown. */
export function renderReference(): string {
  const rows = OPTIONS.map(
    (option) =>
      `| \`${option.key}\` | ${kindText(option)} | ${defaultText(option)} | ${option.meaning} |`,
  );
  return ["| key | kind | default | meaning |", "| --- | --- | --- | --- |", ...rows, ""].join(
    "\n",
  );
}

function kindText(option: Option): string {
  if (option.kind === "choice") return (option.choices ?? []).map((c) => `\`${c}\``).join(", ");
  const texts = {
    bool: "true or false",
    string: "text",
    integer: "whole number",
    duration: "duration",
    strings: "list of texts",
    exec: "command line, or list of `{cmd, if-candidate}`",
    "sync-rule": "whole number, `majority`, `all`",
    "sync-rules": "mapping of names to such values",
  };
  return texts[option.kind];
}

function defaultText(option: Option): string {
  return option.default === undefined ? "none" : `\`${option.default}\``;
}
