// "How was that?": an emoji, and a comment for those who want to say more.

import * as vscode from 'vscode';
import { offerInMind } from './keys';
import { execute } from './requests';
import type { Server } from './server';

const faces: readonly (vscode.QuickPickItem & { readonly emoji: string })[] = [
  { emoji: '👍', label: '👍 good' },
  { emoji: '❤️', label: '❤️ love it' },
  { emoji: '🎯', label: '🎯 exactly right' },
  { emoji: '🤔', label: '🤔 not sure' },
  { emoji: '😕', label: '😕 not quite' },
  { emoji: '👎', label: '👎 wrong' },
  { emoji: '😡', label: '😡 never again' },
];

export async function giveFeedback(server: Server): Promise<void> {
  const editor = vscode.window.activeTextEditor; // before the pick takes the focus
  const offer = editor && offerInMind(editor);
  const face = await vscode.window.showQuickPick(faces, {
    title: `npllm: how was ${offer === undefined ? 'the last suggestion' : quoted(offer.item.insertText)}?`,
    placeHolder: 'It learns from this in its next sleep',
  });
  if (face === undefined) return;
  const comment = await vscode.window.showInputBox({
    title: `npllm: ${face.label}`, prompt: 'A comment, if you like; Enter sends, Escape cancels',
  });
  if (comment === undefined) return;
  const answer = await execute(server, 'npllm.feedback', {
    emoji: face.emoji,
    ...(comment.trim() !== '' && { comment: comment.trim() }),
    ...(offer !== undefined && { suggestionId: offer.id }),
    ...(editor !== undefined && {
      uri: editor.document.uri.toString(), line: editor.selection.active.line,
    }),
  });
  if (answer === undefined) return;
  const { recorded, reason } = answer as { recorded?: boolean; reason?: string };
  if (recorded === false) {
    void vscode.window.showInformationMessage(`npllm: ${reason ?? 'this could not be recorded.'}`);
  } else {
    vscode.window.setStatusBarMessage(`npllm: ${face.emoji} noted, thank you`, 4000);
  }
}

/** A suggestion in few words: its first line that says something. */
function quoted(text: string): string {
  const line = text.split('\n').map(part => part.trim()).find(part => part !== '') ?? '';
  const characters = [...line];
  return `“${characters.length > 40 ? `${characters.slice(0, 39).join('')}…` : line}”`;
}
