import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { execFile } from "node:child_process";
import { promisify } from "node:util";

const run = promisify(execFile);
const APT_TIMEOUT_MS = 120_000;
const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";

export interface DebianProgram {
  readonly package: string;
  /** The Debian release that has it; the machine's own need not. */
  readonly suite: string;
  /** Where the package puts the program. */
  readonly path: string;
}

export const CONSUL: DebianProgram = {
  package: "consul",
  suite: "bullseye",
  path: "usr/bin/consul",
};

export const ETCD: DebianProgram = {
  package: "etcd-server",
  suite: "bookworm",
  path: "usr/bin/etcd",
};

/**
 * The path of a real server for tests: the one in the PATH, or one unpacked from its Debian package
 * into a cache directory. Nothing is installed, and apt's own configuration stays as it is.
 * Undefined, after saying so, where there is no Debian mirror.
 */
export async function debianProgram(program: DebianProgram): Promise<string | undefined> {
  const name = path.basename(program.path);
  for (const directory of (process.env["PATH"] ?? "").split(":")) {
    if (fs.existsSync(path.join(directory, name))) return path.join(directory, name);
  }
  const cache = process.env["LITEFS_TEST_CACHE"] ?? path.join(os.tmpdir(), "litefs-test-programs");
  const unpacked = path.join(cache, `${program.package}-${program.suite}`);
  const file = path.join(unpacked, program.path);
  if (fs.existsSync(file)) return file;
  try {
    await fetchPackage(program, cache, unpacked);
    return file;
  } catch (error) {
    const reason = error instanceof Error ? error.message.trim().replaceAll("\n", " ") : "";
    process.stderr.write(
      `\n*** SKIPPED: the tests against a real ${name} need it in the PATH, or a Debian mirror ` +
        `with ${program.package} of ${program.suite}: ${reason.slice(0, 400)}\n\n`,
    );
    return undefined;
  }
}

async function fetchPackage(
  program: DebianProgram,
  cache: string,
  unpacked: string,
): Promise<void> {
  fs.mkdirSync(cache, { recursive: true });
  const work = fs.mkdtempSync(path.join(cache, "fetch-"));
  try {
    const options = privateApt(work, program.suite);
    const settings = { cwd: work, timeout: APT_TIMEOUT_MS };
    await run("apt-get", [...options, "update"], settings);
    await run("apt-get", [...options, "download", program.package], settings);
    const archive = fs.readdirSync(work).find((name) => name.endsWith(".deb"));
    if (archive === undefined) throw new Error("apt-get downloaded nothing");
    await run("dpkg-deb", ["-x", archive, "unpacked"], settings);
    // Whoever was faster in the same cache has put the same there.
    if (!fs.existsSync(unpacked)) fs.renameSync(path.join(work, "unpacked"), unpacked);
  } finally {
    fs.rmSync(work, { recursive: true, force: true });
  }
}

/** Options that keep apt to sources, lists and caches of our own, verified by Debian's keys. */
function privateApt(work: string, suite: string): string[] {
  for (const name of ["lists/partial", "archives/partial", "empty"]) {
    fs.mkdirSync(path.join(work, name), { recursive: true });
  }
  const sources = path.join(work, "test.list");
  fs.writeFileSync(sources, `deb [signed-by=${KEYRING}] ${mirror()} ${suite} main\n`);
  const settings = {
    "Dir::Etc::sourcelist": sources,
    "Dir::Etc::sourceparts": path.join(work, "empty"),
    "Dir::Etc::preferencesparts": path.join(work, "empty"),
    "Dir::State::lists": path.join(work, "lists"),
    "Dir::Cache": work,
    "Dir::Cache::archives": path.join(work, "archives"),
    "APT::Sandbox::User": "root",
    "APT::Get::List-Cleanup": "false",
    "Acquire::Languages": "none",
    "Acquire::Check-Valid-Until": "false",
    "Acquire::http::Timeout": "20",
    "Acquire::Retries": "1",
  };
  return ["-qq", ...Object.entries(settings).flatMap(([key, value]) => ["-o", `${key}=${value}`])];
}

/** The mirror that the machine itself uses. */
function mirror(): string {
  for (const file of ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"]) {
    if (!fs.existsSync(file)) continue;
    for (const line of fs.readFileSync(file, "utf8").split("\n")) {
      const uri =
        /^URIs:\s*(\S+)/.exec(line)?.[1] ?? /^deb\s+(?:\[[^\]]*\]\s+)?(\S+)/.exec(line)?.[1];
      if (uri !== undefined && !uri.includes("security")) return uri;
    }
  }
  return "http://deb.debian.org/debian";
}
