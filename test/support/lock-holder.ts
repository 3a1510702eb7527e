import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import * as readline from "node:readline";
import { PYTHON } from "./python-path.ts";

/** Says what became of each call: `ok`, what fcntl found, or the name of an errno. */
const PROGRAM = `
import errno, fcntl, os, signal, sqlite3, struct, subprocess, sys
path = sys.argv[1]
flags = os.O_RDWR if sys.argv[2] == "fcntl" else os.O_WRONLY
fd = os.open(path + "-lock", flags)
db = sqlite3.connect(path, isolation_level=None, timeout=0.2)
signal.signal(signal.SIGALRM, lambda *_: None)
F_OFD_SETLKW = 38

def lock(command, type, start=72, length=1, file=fd):
  return fcntl.fcntl(file, command, struct.pack("hhqqi4x", type, 0, start, length, 0))

def write():
  assert os.pwrite(fd, b"x", 72) == 1

def reopen():
  global fd
  os.close(fd)
  fd = os.open(path + "-lock", flags)

def owner():
  type, _, start, length, pid = struct.unpack("hhqqi4x", lock(fcntl.F_GETLK, fcntl.F_WRLCK))
  return "free" if type == fcntl.F_UNLCK else "%d at %d" % (pid, start)

def interrupted():
  # Python tries again by itself unless the handler raises.
  def stop(*_): raise InterruptedError(errno.EINTR, "alarm")
  signal.signal(signal.SIGALRM, stop)
  signal.setitimer(signal.ITIMER_REAL, 0.2)
  lock(fcntl.F_SETLKW, fcntl.F_WRLCK)

for line in sys.stdin:
  try:
    result = eval(line)
    print("ok" if result is None or isinstance(result, (bytes, sqlite3.Cursor)) else result, flush=True)
  except OSError as error: print(errno.errorcode[error.errno], flush=True)
  except sqlite3.Error as error: print(error, flush=True)
`;

/** The halt lock is taken by fcntl(2), or by a write of one byte. */
export type LockWay = "fcntl" | "write";

/** A process of its own with `DB-lock` open as `fd` and the database as `db`, told what to do. */
export class LockHolder {
  readonly #child: ChildProcess;
  readonly #answers: AsyncIterator<string>;
  readonly #way: LockWay;

  constructor(databasePath: string, way: LockWay) {
    this.#way = way;
    this.#child = spawn(PYTHON, ["-c", PROGRAM, databasePath, way], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    if (this.#child.stdout === null) throw new Error("no pipe");
    this.#answers = readline.createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Evaluates an expression there. */
  async do(expression: string): Promise<string> {
    this.#child.stdin?.write(`${expression}\n`);
    const { value, done } = await this.#answers.next();
    if (done === true) throw new Error(`the process ended in ${expression}`);
    return value;
  }

  lock(): Promise<string> {
    return this.do(this.#way === "write" ? "write()" : "lock(fcntl.F_SETLKW, fcntl.F_WRLCK)");
  }
  tryLock(): Promise<string> {
    return this.do("lock(fcntl.F_SETLK, fcntl.F_WRLCK)");
  }
  unlock(): Promise<string> {
    return this.do(this.#way === "write" ? "reopen()" : "lock(fcntl.F_SETLK, fcntl.F_UNLCK)");
  }
  insert(value: string): Promise<string> {
    return this.do(`db.execute("INSERT INTO t(x) VALUES ('${value}')")`);
  }

  async end(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill(signal);
    await once(this.#child, "exit");
  }
}
