import { statSync } from 'node:fs';

/**
 * When a file was written last, in milliseconds; 0 = there is none, or nobody can say: there is no right to look, the
 * link leads to itself, the disk fails. It never throws: the server is to hear of the document all the same.
 */
export function writtenAt(path: string): number {
  try {
    return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  } catch {
    return 0;
  }
}
