// Tells the server that the person is there without typing: moves the cursor, scrolls, comes to an editor or the window.

import * as vscode from 'vscode';
import { Interaction } from './interaction';
import { tell } from './requests';
import type { Server } from './server';

export function register(server: Server): vscode.Disposable[] {
  const interaction = new Interaction();
  let { focused } = vscode.window.state;
  const sign = (editor?: vscode.TextEditor): void => {
    if (interaction.tells(vscode.window.state.focused, editor?.document.uri.scheme)) tell(server, 'npllm/didInteract');
  };
  return [
    vscode.window.onDidChangeTextEditorSelection(({ textEditor }) => sign(textEditor)),
    vscode.window.onDidChangeTextEditorVisibleRanges(({ textEditor }) => sign(textEditor)),
    vscode.window.onDidChangeActiveTextEditor(sign),
    vscode.window.onDidChangeWindowState(now => {
      const gained = now.focused && !focused;
      focused = now.focused;
      if (gained) sign();
    }),
  ];
}
