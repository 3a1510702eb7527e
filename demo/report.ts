/** What an application of the demo tells, ten times a second. */
export interface AppReport {
  readonly rows: number;
  /** Content of `<database>-pos`. */
  readonly position: string;
  /** Since the last report. Writer: duration of each INSERT. Reader: from INSERT to SELECT. */
  readonly latenciesMs: readonly number[];
  /** The writer has stopped. */
  readonly isDone?: boolean;
  /** Reader: the code of the error that a write gets here. */
  readonly refusal?: string;
}

/** Undefined for lines that are no report: litefs shares the standard output with its child. */
export function parseReport(line: string): AppReport | undefined {
  if (!line.startsWith("{")) return undefined;
  const value: unknown = JSON.parse(line);
  return isReport(value) ? value : undefined;
}

function isReport(value: unknown): value is AppReport {
  return (
    typeof value === "object" &&
    value !== null &&
    "rows" in value &&
    "position" in value &&
    "latenciesMs" in value
  );
}
