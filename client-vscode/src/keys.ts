// Keys that VS Code keeps to itself: which suggestions were shown, sent away, or accepted in part.

import * as vscode from 'vscode';
import type { Middleware } from 'vscode-languageclient/node';
import { Offers, taken, type Item, type Offer, type Position } from './offers';
import { tell } from './requests';
import type { Server } from './server';
import { writtenAt } from './written';

const offers = new Offers();
/** What was accepted last, and the version of its document right after that. */
let accepted: { readonly uri: string; readonly version: number; readonly id: unknown } | undefined;

/** When the file behind an open document was written last, as far as we know. */
const written = new Map<string, number>();

/** Keeps what the editor was given and what was accepted, and tells the server what is on screen. */
export function watch(server: () => Server): Middleware {
  return {
    provideInlineCompletionItems: async (document, position, context, token, next) => {
      const result = await next(document, position, context, token);
      if (!token.isCancellationRequested) {
        for (const given of Array.isArray(result) ? result : result?.items ?? []) {
          const item = plain(given);
          if (offers.add(document.uri.toString(), item, plainPosition(position))) {
            tell(server(), 'textDocument/didShowCompletion', { item });
          }
        }
      }
      return result;
    },
    didOpen: (document, next) => {
      written.set(document.uri.toString(), writtenLast(document));
      return next(document);
    },
    didSave: (document, next) => {
      written.set(document.uri.toString(), writtenLast(document));
      return next(document);
    },
    didClose: (document, next) => {
      written.delete(document.uri.toString());
      return next(document);
    },
    didChange: (event, next) => {
      if (reloads(event)) tell(server(), 'npllm/willReload', { uri: event.document.uri.toString() });
      return next(event);
    },
    executeCommand: (command, args: unknown[], next) => {
      const document = vscode.window.activeTextEditor?.document;
      if (command === 'npllm.accepted' && document !== undefined) {
        accepted = { uri: document.uri.toString(), version: document.version, id: args[0] };
      }
      return next(command, args) as unknown;
    },
  };
}

/**
 * Whether the editor reads a file anew that another program has written. Then there is nothing to be saved; but VS Code
 * says so of the first key after a save, too.
 */
function reloads({ document, reason, contentChanges }: vscode.TextDocumentChangeEvent): boolean {
  if (document.isDirty || reason !== undefined || contentChanges.length === 0) return false;
  const uri = document.uri.toString();
  const [before, now] = [written.get(uri), writtenLast(document)];
  written.set(uri, now);
  return before !== undefined && before !== now;
}

/** When a document's file was written last; 0 = it has none, or nobody can say. */
function writtenLast({ uri }: vscode.TextDocument): number {
  return uri.scheme === 'file' ? writtenAt(uri.fsPath) : 0;
}

/** The commands behind the keys. */
export function register(server: Server): vscode.Disposable[] {
  return [
    vscode.commands.registerCommand('npllm.dismiss', async () => {
      const editor = vscode.window.activeTextEditor;
      if (editor !== undefined && offerAtCursor(editor) !== undefined) {
        tell(server, 'npllm/didDismiss', {
          uri: editor.document.uri.toString(), position: plainPosition(editor.selection.active),
        });
      }
      await vscode.commands.executeCommand('editor.action.inlineSuggest.hide');
    }),
    vscode.commands.registerCommand('npllm.acceptWord', () => accept(server, 'acceptNextWord')),
    vscode.commands.registerCommand('npllm.acceptLine', () => accept(server, 'acceptNextLine')),
    ...leaving(server),
    vscode.workspace.onDidCloseTextDocument(document => offers.forget(document.uri.toString())),
  ];
}

/** Ghost text goes when the person looks at another editor or another window; that refuses nothing. */
function leaving(server: Server): vscode.Disposable[] {
  let looked = vscode.window.activeTextEditor?.document.uri.toString();
  const left = (): void => {
    if (looked !== undefined) tell(server, 'npllm/didHide', { uri: looked });
  };
  return [
    vscode.window.onDidChangeWindowState(({ focused }) => {
      if (!focused) left();
    }),
    vscode.window.onDidChangeActiveTextEditor(editor => {
      const now = editor?.document.uri.toString();
      if (now !== looked) left();
      looked = now;
    }),
  ];
}

/** The suggestion at the cursor, on screen or just sent away. */
function offerAtCursor(editor: vscode.TextEditor): Offer | undefined {
  return offers.at(editor.document.uri.toString(), start => textFrom(editor, start));
}

/**
 * The suggestion that the person most likely speaks of: the one just accepted, though another may be on screen by now;
 * else the one at the cursor, else the last one in this document.
 */
export function offerInMind(editor: vscode.TextEditor): Offer | undefined {
  const { uri, version } = editor.document;
  const key = uri.toString();
  if (accepted?.uri === key && accepted.version === version && typeof accepted.id === 'string') {
    const offer = offers.get(key, accepted.id);
    if (offer !== undefined) return offer;
  }
  return offerAtCursor(editor) ?? offers.latest(key);
}

/** A suggestion that was offered in this document. */
export function offerById(editor: vscode.TextEditor, id: string): Offer | undefined {
  return offers.get(editor.document.uri.toString(), id);
}

/** Suggestions of a server that is gone mean nothing to the next one. */
export function forget(): void {
  offers.clear();
}

async function accept(server: Server, action: 'acceptNextWord' | 'acceptNextLine'): Promise<void> {
  const editor = vscode.window.activeTextEditor;
  const offer = editor && offerAtCursor(editor);
  await vscode.commands.executeCommand(`editor.action.inlineSuggest.${action}`);
  if (editor === undefined || offer === undefined) return;
  const acceptedLength = taken(offer, textFrom(editor, offer.start));
  if (acceptedLength !== undefined && acceptedLength > 0) {
    tell(server, 'textDocument/didPartiallyAcceptCompletion', { item: offer.item, acceptedLength });
  }
}

function textFrom(editor: vscode.TextEditor, start: Position): string | undefined {
  const from = new vscode.Position(start.line, start.character);
  const cursor = editor.selection.active;
  return from.isAfter(cursor) ? undefined : editor.document.getText(new vscode.Range(from, cursor));
}

function plain(item: vscode.InlineCompletionItem): Item {
  const insertText = typeof item.insertText === 'string' ? item.insertText : item.insertText.value;
  const { range, command } = item;
  return {
    insertText,
    ...(range !== undefined && { range: { start: plainPosition(range.start), end: plainPosition(range.end) } }),
    ...(command !== undefined && {
      command: { title: command.title, command: command.command, arguments: command.arguments ?? [] },
    }),
  };
}

function plainPosition({ line, character }: vscode.Position): Position {
  return { line, character };
}
