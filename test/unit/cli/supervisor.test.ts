import { spawn, type ChildProcess } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { expect, test } from "vitest";
import { FORWARDED_SIGNALS, Supervisor } from "../../../src/cli/supervisor.ts";
import { createLogger } from "../../../src/lib/log.ts";

/** Real children whose standard output is kept instead of inherited. */
class Observed {
  log = "";
  output = "";
  readonly children: ChildProcess[] = [];
  readonly #closed: Promise<unknown>[] = [];
  readonly #waiting: { text: string; resolve: () => void }[] = [];
  readonly supervisor: Supervisor = new Supervisor({
    logger: createLogger({ format: "text", timestamp: false, debug: false }, (line) => {
      this.log += line;
    }),
    env: { PATH: process.env["PATH"], GREETING: "hello" },
    spawn: (command, args, options) => {
      const child = spawn(command, args, { ...options, stdio: ["ignore", "pipe", "inherit"] });
      child.stdout?.on("data", (data) => this.#onOutput(String(data)));
      // A child that cannot be started emits an error, which is the supervisor's to handle.
      this.#closed.push(new Promise((resolve) => child.once("close", resolve)));
      this.children.push(child);
      return child;
    },
  });

  /** Resolves when the text has been printed by any child. */
  printed(text: string): Promise<void> {
    if (this.output.includes(text)) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push({ text, resolve }));
  }

  /** All that was printed, once every child has ended: its end may come before its last output. */
  async allOutput(): Promise<string> {
    await Promise.all(this.#closed);
    return this.output;
  }

  #onOutput(data: string): void {
    this.output += data;
    for (const { text, resolve } of this.#waiting) if (this.output.includes(text)) resolve();
  }
}

const sh = (script: string): string[] => ["sh", "-c", script];
/** Prints "ready", then the signals that it gets, and ends with the code when it gets SIGTERM. */
const printSignals = (exitCode: number): string[] => [
  "node",
  "-e",
  `for (const s of ${JSON.stringify(FORWARDED_SIGNALS)}) process.on(s, () => {
     console.log("got " + s);
     if (s === "SIGTERM") process.exit(${exitCode});
   });
   setInterval(() => {}, 1000);
   console.log("ready");`,
];

test.each([0, 1, 7, 255])("runSync resolves to exit code %d", async (exitCode) => {
  expect(await new Observed().supervisor.runSync(sh(`exit ${exitCode}`))).toBe(exitCode);
});

test("a child killed by a signal has 128 and the signal's number", async () => {
  const { supervisor } = new Observed();
  expect(await supervisor.runSync(sh("kill -KILL $$"))).toBe(128 + os.constants.signals.SIGKILL);
});

test("words and the environment reach the child unchanged", async () => {
  const observed = new Observed();
  await observed.supervisor.runSync(["printf", "%s|", "a  b", "$GREETING", "'q'", "*"]);
  expect(await observed.allOutput()).toBe("a  b|$GREETING|'q'|*|");
  await observed.supervisor.runSync(sh("echo $GREETING"));
  expect(await observed.allOutput()).toContain("hello\n");
});

test("a command that cannot be started", async () => {
  const { supervisor } = new Observed();
  await expect(supervisor.runSync(["/no/such/command"])).rejects.toMatchObject({
    code: "command-start",
    message: 'cannot start "/no/such/command": no such command, check the path',
  });
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-supervisor-"));
  const file = path.join(directory, "plain.txt");
  fs.writeFileSync(file, "#!/bin/sh\n", { mode: 0o600 });
  await expect(supervisor.runSync([file])).rejects.toMatchObject({
    message: `cannot start "${file}": the file is not executable`,
  });
  fs.rmSync(directory, { recursive: true });
  expect(await supervisor.runSync(["true"])).toBe(0);
});

test("the background command tells its end", async () => {
  const observed = new Observed();
  observed.supervisor.startBackground(sh("echo up; exit 3"));
  expect(observed.supervisor.isRunning).toBe(true);
  expect(await observed.supervisor.exited).toBe(3);
  expect(observed.supervisor.isRunning).toBe(false);
  expect(observed.log).toContain("starting background subprocess: sh [-c echo up; exit 3]");
});

test("a background command that cannot be started is a failure, and is reported", async () => {
  const observed = new Observed();
  observed.supervisor.startBackground(["/no/such/command"]);
  expect(await observed.supervisor.exited).toBe(1);
  expect(observed.log).toContain("level=ERROR");
  expect(observed.log).toContain("no such command");
});

test("every signal is forwarded, repeatedly, and the child's own code is kept", async () => {
  const observed = new Observed();
  observed.supervisor.startBackground(printSignals(143));
  await observed.printed("ready");
  for (const name of FORWARDED_SIGNALS.filter((signal) => signal !== "SIGTERM")) {
    observed.supervisor.signal(name);
    await observed.printed(`got ${name}`);
  }
  observed.supervisor.signal("SIGINT");
  await observed.printed("got SIGUSR2\ngot SIGINT");
  observed.supervisor.signal("SIGTERM");
  expect(await observed.supervisor.exited).toBe(143);
  expect(observed.output.match(/SIGINT/g)).toHaveLength(2);
});

test("a signal reaches a foreground command", async () => {
  const observed = new Observed();
  const exitCode = observed.supervisor.runSync(printSignals(5));
  await observed.printed("ready");
  observed.supervisor.signal("SIGTERM");
  expect(await exitCode).toBe(5);
});

test("a signal without a child is no error", () => {
  new Observed().supervisor.signal("SIGHUP");
});

test("a plan runs in order", async () => {
  const observed = new Observed();
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-supervisor-"));
  const file = path.join(directory, "order");
  const say = (word: string): string[] => sh(`sleep 0.0${word}; echo ${word} >> ${file}`);
  const plan = { foreground: [say("3"), say("2")], background: sh(`echo 1 >> ${file}; exit 4`) };
  expect(await observed.supervisor.run(plan)).toBeUndefined();
  expect(await observed.supervisor.exited).toBe(4);
  expect(fs.readFileSync(file, "utf8")).toBe("3\n2\n1\n");
  fs.rmSync(directory, { recursive: true });
});

test("a plan ends at the first failure", async () => {
  const observed = new Observed();
  const plan = { foreground: [sh("exit 6"), sh("echo no")], background: sh("echo no") };
  expect(await observed.supervisor.run(plan)).toBe(6);
  expect(observed.children).toHaveLength(1);
});

test("a plan without a background command starts none", async () => {
  const observed = new Observed();
  expect(await observed.supervisor.run({ foreground: [], background: undefined })).toBeUndefined();
  expect(observed.supervisor.isRunning).toBe(false);
});

test.each([0, 143])("after SIGTERM nothing more is started (child ends with %d)", async (code) => {
  const observed = new Observed();
  const plan = { foreground: [printSignals(code), sh("echo no")], background: sh("echo no") };
  const ended = observed.supervisor.run(plan);
  await observed.printed("ready");
  observed.supervisor.signal("SIGHUP");
  expect(observed.supervisor.isStopping).toBe(false);
  observed.supervisor.signal("SIGTERM");
  expect(observed.supervisor.isStopping).toBe(true);
  expect(await ended).toBeUndefined();
  expect(observed.children).toHaveLength(1);
});
