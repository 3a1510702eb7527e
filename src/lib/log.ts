export type LogLevel = "debug" | "info" | "warn" | "error";
export type LogFields = Readonly<Record<string, string | number | bigint | boolean | undefined>>;

/** Structured log. Messages are fixed texts that users grep for; what varies goes into fields. */
export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

export interface LogOptions {
  readonly format: "text" | "json";
  readonly timestamp: boolean;
  readonly debug: boolean;
}

/** A logger in the style of Go's slog, which LiteFS users already parse. One line per call. */
export function createLogger(options: LogOptions, write: (line: string) => void): Logger {
  const emit = (level: LogLevel, message: string, fields: LogFields = {}): void => {
    if (level === "debug" && !options.debug) return;
    write(formatLine(options, level, message, fields));
  };
  return {
    debug: (message, fields) => emit("debug", message, fields),
    info: (message, fields) => emit("info", message, fields),
    warn: (message, fields) => emit("warn", message, fields),
    error: (message, fields) => emit("error", message, fields),
  };
}

export function formatLine(
  options: LogOptions,
  level: LogLevel,
  message: string,
  fields: LogFields,
): string {
  const line = options.format === "json" ? jsonLine : textLine;
  return line(options, level, message, fields);
}

function jsonLine(options: LogOptions, level: LogLevel, msg: string, fields: LogFields): string {
  const time = options.timestamp ? { time: new Date().toISOString() } : {};
  const entry = { ...time, level: level.toUpperCase(), msg, ...fields };
  return `${JSON.stringify(entry, (_, v: unknown) => (typeof v === "bigint" ? String(v) : v))}\n`;
}

function textLine(options: LogOptions, level: LogLevel, msg: string, fields: LogFields): string {
  const time = options.timestamp ? `time=${new Date().toISOString()} ` : "";
  let line = `${time}level=${level.toUpperCase()} msg=${quote(msg)}`;
  for (const [key, value] of Object.entries(fields)) {
    if (value !== undefined) line += ` ${key}=${quote(String(value))}`;
  }
  return `${line}\n`;
}

function quote(text: string): string {
  return /^[^\s"=\\]+$/.test(text) ? text : JSON.stringify(text);
}

export const silentLogger: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};
