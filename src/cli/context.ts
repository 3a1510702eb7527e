/** What a command may touch of the process it runs in; handed in, so that tests can look at it. */
export interface CommandContext {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly currentDirectory: string;
  readonly homeDirectory: string;
  readonly hostname: string;
  /** Results; only what a script might read. */
  print(text: string): void;
  /** Everything that is said to a person. */
  printError(text: string): void;
  /** Whether a person watches standard error, which is where progress goes. */
  readonly isTerminal: boolean;
}

/** Resolves to the exit code. Failures may be thrown: main.ts prints them as one line. */
export type Command = (args: readonly string[], context: CommandContext) => Promise<number>;
