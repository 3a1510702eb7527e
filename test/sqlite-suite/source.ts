import { execFile } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { promisify } from "node:util";

const execute = promisify(execFile);
const COMMAND_TIMEOUT_MS = 20 * 60_000;
const MAX_OUTPUT_BYTES = 256 * 1024 * 1024;
/** What compiling SQLite's test program takes beyond what Debian's smallest system has. */
const PACKAGES = ["gcc", "libc6-dev", "make", "tcl8.6-dev", "xz-utils", "zlib1g-dev"];

/** SQLite's tests, compiled and ready to run. */
export interface Suite {
  readonly version: string;
  readonly testfixture: string;
  /** Holds `test/` and `ext/`. */
  readonly sourceDirectory: string;
}

/** The source cannot be had here; the message says why. */
export class SuiteUnavailable extends Error {
  override readonly name = "SuiteUnavailable";
}

export interface SourceOptions {
  /** Keeps source and programs for the next time. */
  readonly buildDirectory: string;
  readonly report: (what: string) => void;
}

export function defaultBuildDirectory(): string {
  const cache = process.env["XDG_CACHE_HOME"] ?? path.join(os.homedir(), ".cache");
  return path.join(cache, "litefs-sqlite-suite");
}

/**
 * Gets the source of the SQLite that this Debian has, and compiles its test program. Of the system
 * only missing packages are changed: apt gets a list of sources of its own, with the machine's mirror.
 */
export async function prepareSuite(options: SourceOptions): Promise<Suite> {
  const { buildDirectory, report } = options;
  fs.mkdirSync(buildDirectory, { recursive: true });
  const sourceDirectory = path.join(buildDirectory, "source");
  const build = path.join(buildDirectory, "build");
  const testfixture = path.join(build, "testfixture");
  if (!fs.existsSync(path.join(sourceDirectory, "configure"))) {
    await download(buildDirectory, sourceDirectory, report);
  }
  if (!fs.existsSync(testfixture)) {
    await installPackages(report);
    fs.rmSync(build, { recursive: true, force: true });
    fs.mkdirSync(build);
    report("configuring SQLite");
    const tcl = "--with-tcl=/usr/lib/tcl8.6";
    await run(path.join(sourceDirectory, "configure"), [tcl, "--enable-all"], build);
    report("compiling SQLite's test program, which takes a few minutes");
    await run("make", [`-j${os.availableParallelism()}`, "testfixture"], build);
  }
  lockWhereSqliteLocks(sourceDirectory);
  const version = fs.readFileSync(path.join(sourceDirectory, "VERSION"), "latin1").trim();
  return { version, testfixture, sourceDirectory };
}

/**
 * The tests put SQLite's lock bytes at 64 KiB, so that a page of them is met in small databases. The
 * mount knows them where every SQLite has them, and its own locks would not be seen by the tests: they
 * read what a dead writer has left while it is taken back.
 */
function lockWhereSqliteLocks(sourceDirectory: string): void {
  const tester = path.join(sourceDirectory, "test/tester.tcl");
  const script = fs.readFileSync(tester, "latin1");
  const moved = "sqlite3_test_control_pending_byte 0x0010000";
  const mended = script.replace(moved, "sqlite3_test_control_pending_byte 0x40000000");
  if (mended !== script) fs.writeFileSync(tester, mended, "latin1");
  else if (!script.includes("sqlite3_test_control_pending_byte 0x40000000")) {
    throw new Error(`${tester} does not say where the lock bytes are`);
  }
}

async function download(
  buildDirectory: string,
  sourceDirectory: string,
  report: (what: string) => void,
): Promise<void> {
  if (!isInstalled("apt-get")) {
    throw new SuiteUnavailable("the source comes from Debian, and there is no apt-get here");
  }
  const apt = path.join(buildDirectory, "apt");
  fs.mkdirSync(path.join(apt, "lists/partial"), { recursive: true });
  const list = path.join(apt, "sources.list");
  fs.writeFileSync(list, `${await sourceLine()}\n`);
  const options = [
    ["Dir::Etc::SourceList", list],
    ["Dir::Etc::SourceParts", "/dev/null"],
    ["Dir::State::Lists", path.join(apt, "lists")],
    ["APT::Sandbox::User", "root"],
    ["Acquire::Retries", "2"],
    ["Acquire::http::Timeout", "20"],
  ].flatMap(([key, value]) => ["-o", `${key}=${value}`]);
  report("getting the source of SQLite from Debian");
  try {
    await run("apt-get", [...options, "update", "--error-on=any"], buildDirectory);
    await run("apt-get", [...options, "source", "--download-only", "sqlite3"], buildDirectory);
  } catch (error) {
    throw new SuiteUnavailable(`Debian's mirror cannot be reached: ${lastLine(error)}`);
  }
  const archive = fs.readdirSync(buildDirectory).find((name) => name.endsWith(".orig.tar.xz"));
  if (archive === undefined) throw new SuiteUnavailable("Debian has no source of sqlite3");
  await installPackages(report);
  const unpacked = `${sourceDirectory}.new`;
  fs.rmSync(unpacked, { recursive: true, force: true });
  fs.mkdirSync(unpacked);
  await run("tar", ["-xf", archive, "-C", unpacked, "--strip-components=1"], buildDirectory);
  fs.renameSync(unpacked, sourceDirectory);
}

/** Where the machine itself gets its packages, for sources. */
async function sourceLine(): Promise<string> {
  const format = "$(RELEASE) $(COMPONENT) $(REPO_URI)";
  const { stdout } = await execute("apt-get", ["indextargets", "--format", format]);
  const release = /^VERSION_CODENAME=(\S+)$/m.exec(fs.readFileSync("/etc/os-release", "utf8"))?.[1];
  for (const line of stdout.split("\n")) {
    const [name, component, uri] = line.split(" ");
    if (name !== release || component !== "main" || uri === undefined) continue;
    const key = "/usr/share/keyrings/debian-archive-keyring.gpg";
    const signed = fs.existsSync(key) ? `[signed-by=${key}] ` : "";
    return `deb-src ${signed}${uri} ${name} main`;
  }
  throw new SuiteUnavailable("apt-get has no Debian mirror configured");
}

async function installPackages(report: (what: string) => void): Promise<void> {
  const hasAll =
    ["gcc", "make", "xz"].every(isInstalled) &&
    ["/usr/include/tcl8.6/tcl.h", "/usr/include/zlib.h"].every((file) => fs.existsSync(file));
  if (hasAll) return;
  if (process.geteuid?.() !== 0) {
    throw new SuiteUnavailable(`install as root: apt-get install ${PACKAGES.join(" ")}`);
  }
  report(`installing ${PACKAGES.join(", ")}`);
  const install = ["install", "-y", "--no-install-recommends", ...PACKAGES];
  try {
    await run("apt-get", ["update"], "/");
    await run("env", ["DEBIAN_FRONTEND=noninteractive", "apt-get", ...install], "/");
  } catch (error) {
    throw new SuiteUnavailable(`cannot install ${PACKAGES.join(" ")}: ${lastLine(error)}`);
  }
}

function isInstalled(command: string): boolean {
  const directories = (process.env["PATH"] ?? "").split(":");
  return directories.some((directory) => fs.existsSync(path.join(directory, command)));
}

async function run(command: string, args: readonly string[], cwd: string): Promise<void> {
  const options = { cwd, timeout: COMMAND_TIMEOUT_MS, maxBuffer: MAX_OUTPUT_BYTES };
  await execute(command, args, options);
}

function lastLine(error: unknown): string {
  const text =
    error instanceof Error && "stderr" in error && typeof error.stderr === "string"
      ? error.stderr
      : String(error);
  return text.trim().split("\n").at(-1) ?? "";
}
