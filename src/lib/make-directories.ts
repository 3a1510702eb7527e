import * as fs from "node:fs";
import * as path from "node:path";
import { errorCode } from "./errors.ts";

/**
 * Makes a directory and those above it, as `mkdir -p`. That of Node.js does not return where the one above
 * exists and takes none, as in /proc: it goes up and down for ever.
 */
export function makeDirectories(directory: string): void {
  try {
    makeOne(directory);
  } catch (error) {
    const parent = path.dirname(directory);
    if (errorCode(error) !== "ENOENT" || fs.existsSync(parent)) throw error;
    makeDirectories(parent);
    makeOne(directory);
  }
}

function makeOne(directory: string): void {
  try {
    fs.mkdirSync(directory);
  } catch (error) {
    if (errorCode(error) !== "EEXIST" || !fs.statSync(directory).isDirectory()) throw error;
  }
}
