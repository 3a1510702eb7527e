/** Tests that go otherwise on the mount than in a directory, and are meant to. */
export interface Exception {
  readonly file: string;
  /** Their names, or "(the file)" where it does not come to its end. */
  readonly tests: RegExp;
  readonly reason: string;
  /** Whether they fail depends on timing. */
  readonly isSometimes?: true;
}

const COMMITTED = "what is committed in the WAL cannot be damaged by writing into it";
const OTHER_PAGE_SIZE = "a WAL with pages of another size than the database's is refused";
const LAID = "behind the end of a long WAL are zeros";
const OPEN_JOURNAL = "the journal of a transaction cannot be renamed while it is open";
const PATH_LENGTH = "which of these tests run depends on the length of the directory's path";
const IN_USE = "a database that is in use in WAL mode cannot be overwritten from outside";
const COUNTED = "every transaction in a rollback mode is counted";
/** See `faultSeries`. */
export const FAULT_COUNT = "the number of steps of a fault simulation depends on the file system";
const ENLARGED = "a database file that is enlarged from outside";
const COPIED_JOURNAL = "a journal that changes nothing is rolled back when its database is closed";
const NO_DATABASE = "a write that makes a database no database is refused";
const CHUNKS = "a checkpoint leaves a database as long as its pages";
const RANDOM = "which of these tests run, and how often, is drawn at random";
const DROPPED = "removing a database removes its journal and WAL";

/**
 * A series of tests that makes the first operation fail, then the second, until all go well, as in
 * "walfault-10-ioerr-transient.8" or "fts3_malloc-1.2.persistent.641". Undefined for other tests.
 */
export function faultSeries(test: string): string | undefined {
  const series =
    /^(.*-(?:oom|ioerr|full|cantopen|shmerr|interrupt)(?:-\w+)?|.*\.(?:transient|persistent))\.\d+$/;
  return series.exec(test)?.[1];
}

/** docs/sqlite-tests.md explains the reasons. */
export const EXCEPTIONS: readonly Exception[] = [
  { file: "avtrans.test", tests: /^avtrans-9\.\d+\.\d-\d+$/, reason: RANDOM, isSometimes: true },
  { file: "bigfile.test", tests: /^\(the file\)$/, reason: ENLARGED, isSometimes: true },
  { file: "bigfile2.test", tests: /^bigfile2-1\.2$/, reason: ENLARGED },
  { file: "corrupt2.test", tests: /^corrupt2-1\.[2-5]$/, reason: NO_DATABASE },
  { file: "corrupt2.test", tests: /^\(the file\)$/, reason: NO_DATABASE },
  { file: "corruptL.test", tests: /^corruptL-17\.[12]$/, reason: IN_USE },
  { file: "exclusive2.test", tests: /^exclusive2-3\.[456]$/, reason: COUNTED },
  { file: "fallocate.test", tests: /^fallocate-2\.6$/, reason: CHUNKS },
  { file: "filefmt.test", tests: /^filefmt-1\.3$/, reason: NO_DATABASE },
  { file: "fts5bigtok.test", tests: /-\d\.[a-z]$/, reason: RANDOM, isSometimes: true },
  { file: "pager1.test", tests: /^pager1-33\.[12]$/, reason: OPEN_JOURNAL },
  { file: "pager1.test", tests: /^pager1-16\.1\./, reason: PATH_LENGTH, isSometimes: true },
  { file: "recovercorrupt.test", tests: /^\(the file\)$/, reason: NO_DATABASE },
  { file: "resetdb.test", tests: /^resetdb-20[01]$/, reason: NO_DATABASE },
  { file: "superlock.test", tests: /^\(the file\)$/, reason: IN_USE },
  { file: "tkt3457.test", tests: /^tkt3457-1\.5$/, reason: COPIED_JOURNAL },
  { file: "wal.test", tests: /^wal-17\.\d\.1$/, reason: LAID },
  { file: "wal.test", tests: /^wal-18\.1\.[0-5]$/, reason: COMMITTED },
  { file: "wal.test", tests: /^wal-18\.2\.\d+\.\d+\.[45]$/, reason: OTHER_PAGE_SIZE },
  { file: "wal2.test", tests: /^wal2-7\.1\.3$/, reason: COMMITTED },
  { file: "wal3.test", tests: /^wal3-1\.0$/, reason: LAID },
  { file: "wal4.test", tests: /^wal4-2-(ioerr|oom)-/, reason: DROPPED },
  { file: "waloverwrite.test", tests: /^waloverwrite-1\.[12]\.7$/, reason: LAID },
  { file: "walro2.test", tests: /\.4\.2\.2\.\(sz=\d+\)$/, reason: LAID, isSometimes: true },
  { file: "walro.test", tests: /^walro-1\.4\.4\.1$/, reason: LAID },
];
