// Which suggestions the editor was given, so that a key press can be tied to one. Knows nothing of VS Code.

/** An inline completion item as the server sent it (LSP 3.18, `InlineCompletionItem`). */
export interface Item {
  readonly insertText: string;
  readonly range?: { readonly start: Position; readonly end: Position };
  readonly command?: { readonly title: string; readonly command: string; readonly arguments?: readonly unknown[] };
}

export interface Position {
  readonly line: number;
  readonly character: number;
}

/** One suggestion. `item` is what was offered first: later answers carry only what is not typed yet. */
export interface Offer {
  readonly id: string;
  readonly item: Item;
  readonly start: Position;
}

const REMEMBERED = 32; // documents, and suggestions of each

export class Offers {
  readonly #documents = new Map<string, Map<string, Offer>>();

  /** The editor was given `item` for the document `uri` at `cursor`. False: it carries no suggestion's id. */
  add(uri: string, item: Item, cursor: Position): boolean {
    const id = item.command?.arguments?.[0];
    if (typeof id !== 'string') return false;
    const known = this.#documents.get(uri) ?? new Map<string, Offer>();
    const offer = known.get(id) ?? { id, item, start: item.range?.start ?? cursor };
    known.delete(id);
    known.set(id, offer); // the newest is the last
    this.#documents.delete(uri);
    this.#documents.set(uri, known);
    forget(known);
    forget(this.#documents);
    return true;
  }

  /**
   * The newest suggestion of which a part, and not all, stands between its start and the cursor.
   *
   * @param textFrom the document's text from a position to the cursor; undefined when that lies behind the cursor.
   */
  at(uri: string, textFrom: (start: Position) => string | undefined): Offer | undefined {
    return [...(this.#documents.get(uri)?.values() ?? [])].reverse().find(offer => {
      const length = taken(offer, textFrom(offer.start));
      return length !== undefined && length < offer.item.insertText.length;
    });
  }

  /** A suggestion by its id. */
  get(uri: string, id: string): Offer | undefined {
    return this.#documents.get(uri)?.get(id);
  }

  /** The suggestion of a document that was offered last. */
  latest(uri: string): Offer | undefined {
    return [...(this.#documents.get(uri)?.values() ?? [])].at(-1);
  }

  forget(uri: string): void {
    this.#documents.delete(uri);
  }

  clear(): void {
    this.#documents.clear();
  }
}

/**
 * How much of an offer `typed` is: UTF-16 units of its text, counted from its start; undefined when it is something
 * else. The document may have other line ends than the offer.
 */
export function taken(offer: Offer, typed: string | undefined): number | undefined {
  if (typed === undefined) return undefined;
  const text = offer.item.insertText;
  if (!plain(text).startsWith(plain(typed))) return undefined;
  let length = 0;
  for (let rest = plain(typed).length; rest > 0; rest--) length += text.startsWith('\r\n', length) ? 2 : 1;
  return length;
}

function plain(text: string): string {
  return text.replaceAll('\r\n', '\n');
}

function forget(map: Map<string, unknown>): void {
  for (const key of map.keys()) {
    if (map.size <= REMEMBERED) return;
    map.delete(key);
  }
}
