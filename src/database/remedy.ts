/** What every message about damage ends with. */
export function remedyFor(database: string): string {
  return `a replica fetches a new copy by itself, on the primary stop it and run 'litefs repair -name ${database}'`;
}
