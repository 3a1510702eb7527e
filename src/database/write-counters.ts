/** What has happened to a database since the start. */
export interface WriteCounters {
  databaseWrites: number;
  journalWrites: number;
  walWrites: number;
  shmWrites: number;
  commits: number;
  ltxReaped: number;
  quarantines: number;
  heals: number;
  divergedHistories: number;
}

export function newCounters(): WriteCounters {
  return {
    databaseWrites: 0,
    journalWrites: 0,
    walWrites: 0,
    shmWrites: 0,
    commits: 0,
    ltxReaped: 0,
    quarantines: 0,
    heals: 0,
    divergedHistories: 0,
  };
}
