/**
 * What the engine answers to a file operation of an application. Anything but "ok" reaches the
 * application as an error and has changed nothing.
 *
 * - `read-only`: this node may not write the database now.
 * - `busy`: it could, but somebody is in the way; trying again may help.
 * - `unsupported`: the engine does not offer this on a database file.
 * - `io`: the engine could not make it durable, or it would break the database.
 */
export type Outcome = "ok" | "read-only" | "busy" | "unsupported" | "io";
