import { type Command } from "./context.ts";
import { EXIT_USAGE } from "./exit-codes.ts";

export const USAGE = `litefs is a distributed file system for SQLite databases.

Usage:

  litefs <command> [arguments]

The commands are:

  mount    mount the file system and run the application in it
  run      run a command beside a node, for example as the primary
  import   replace or create a database with an SQLite file
  export   write a database to a file
  status   show the role of a node and where its databases stand
  promote  make a node the primary
  demote   let another node be the primary
  diverged list or export transactions that only this node had
  check    prove that databases are intact
  repair   mend a damaged database of a node that does not run
  version  print the version
  help     print this text, or that of a command: litefs help mount
`;

export const COMMAND_USAGE: Readonly<Record<string, string>> = {
  mount: `Mounts the file system, joins the cluster, and then runs the commands given by exec in
the configuration or after --. Ends with the last of them, or at SIGINT or SIGTERM.

Usage:

  litefs mount [flags] [-- COMMAND [ARGUMENT...]]

Flags:

  -config PATH     the configuration file
                   (default: ./litefs.yml, ~/litefs.yml or /etc/litefs.yml)
  -no-expand-env   leave $NAME and \${NAME} in the configuration as they are
  -skip-unmount    do not unmount a stale mount on the mount directory first
  -debug           the same as log.debug
  -fuse.debug      the same as fuse.debug
  -tracing         write one line per operation on a database to standard output
`,
  run: `Runs a command beside a node that is mounted already, and ends with its exit code.

Usage:

  litefs run [flags] -- COMMAND [ARGUMENT...]

Flags:

  -url URL                  the node (default: http://localhost:20202)
  -if-candidate             do nothing if the node is not a candidate
  -promote                  make the node the primary first
  -with-halt-lock-on PATH   hold the write lock of the whole cluster on the database at PATH
  -v                        tell what is being done
`,
  import: `Replaces or creates a database with the SQLite file at PATH. The node must be the primary.

Usage:

  litefs import [flags] PATH

Flags:

  -name NAME   name of the database (required)
  -url URL     the node (default: http://localhost:20202)
`,
  export: `Writes a database to the file at PATH. A file that is there stays as it is until the
new one is complete.

Usage:

  litefs export [flags] PATH

Flags:

  -name NAME   name of the database (required)
  -url URL     the node (default: http://localhost:20202)
`,
  check: `Proves that databases are what their logs say: the checksum of all pages, the chain of
transactions, and SQLite's own integrity check. Changes nothing. Exits with 1 if it finds
a problem.

Usage:

  litefs check [flags]

Flags:

  -config PATH     take the node and its data directory from a configuration file
  -url URL         the node (default: http://localhost:20202)
  -data-dir PATH   the data directory of a node that does not run
  -name NAME       only this database
  -json            print JSON
`,
  status: `Shows what a node is to its cluster: its role, the primary, the lease, the lag, where its
databases stand, and on the primary its replicas.

Usage:

  litefs status [flags]

Flags:

  -url URL   the node (default: http://localhost:20202)
  -json      print JSON
`,
  promote: `Makes a node the primary: the present one holds its writers back, sends what the node
lacks, and hands its lease over. No write fails and no transaction is lost. Returns when the
node is the primary.

Usage:

  litefs promote [flags]

Flags:

  -url URL   the node (default: http://localhost:20202)
  -force     where there is no primary: take the lease although another candidate has more
             transactions, or although this node has never had the data of the cluster. What
             it lacks is lost to the cluster, and kept aside where it is.
`,
  demote: `Hands the lease of a primary to the replica that is best for it, or gives it up when there
is none. The node does not stand for election for lease.demote-delay.

Usage:

  litefs demote [flags]

Flags:

  -url URL   the node, which must be the primary (default: http://localhost:20202)
`,
  diverged: `Lists and exports histories: logs that a snapshot of the primary has replaced. A primary
that lost its lease before its replicas had everything keeps its last transactions so.

Usage:

  litefs diverged list [flags]
  litefs diverged export -name NAME -history HISTORY [flags] PATH

Flags:

  -config PATH       take the data directory from a configuration file
  -data-dir PATH     the data directory
  -name NAME         only this database
  -history HISTORY   the history to export, as LTX files into the directory PATH
  -json              print JSON
`,
  repair: `Mends a damaged database in the data directory of a node that does not run. A replica needs
no repair: it fetches a new copy by itself. Nothing is deleted: what is replaced is kept in
dbs/NAME/quarantine/. Without -accept and -from the database is rebuilt from its own log, if that
has all that is damaged. Exits with 1 if the database is not mended.

Usage:

  litefs repair [flags]

Flags:

  -name NAME       the database (required)
  -config PATH     take the data directory from a configuration file
  -data-dir PATH   the data directory (default: that of the configuration file)
  -from URL        take the database from another node, which may be a replica
  -accept          take what SQLite finds in the database file and its WAL for the truth, and
                   begin a new log; replicas get it as a snapshot
  -force           accept it although SQLite's integrity check finds problems
  -dry-run         tell what would be done, in a working copy that is removed again
`,
  version: `Prints the version.

Usage:

  litefs version
`,
};

/** Help goes to standard output, with the exit code of LiteFS. */
export const helpCommand: Command = ([name], context) => {
  const text =
    name !== undefined && Object.hasOwn(COMMAND_USAGE, name) ? COMMAND_USAGE[name] : undefined;
  return Promise.resolve(printUsage(context, text ?? USAGE));
};

export function printUsage(context: { print(text: string): void }, text: string): number {
  context.print(text);
  return EXIT_USAGE;
}
