// Which signs of the person the server hears of. Knows nothing of VS Code.

const PAUSE_MS = 1000;

/** Lets at most one sign through in `PAUSE_MS`; the first at once, and none afterwards for those held back. */
export class Interaction {
  #last = -Infinity;

  constructor(private readonly clock: () => number = () => performance.now()) {}

  /**
   * Whether to tell the server of a sign.
   *
   * @param focused whether the window has the focus: what moves in any other is not moved by the person.
   * @param scheme of the document in which something moved, undefined where it is none. Output scrolls by itself.
   */
  tells(focused: boolean, scheme?: string): boolean {
    if (!focused || scheme === 'output') return false;
    const now = this.clock();
    if (now - this.#last < PAUSE_MS) return false;
    this.#last = now;
    return true;
  }
}
