/** Tests that go otherwise on the mount than in a directory, and are meant to. */
export interface Exception {
  readonly file: string;
  /** Their names, or "(the file)" where it does not come to its end. */
  readonly tests: RegExp;
  readonly reason: string;
  /** Whether they fail depends on timing. */
  readonly isSometimes?: true;
}

export const EXCEPTIONS: readonly Exception[] = [];
