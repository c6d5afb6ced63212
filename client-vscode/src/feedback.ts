// "How was that?": an emoji, and a comment for those who want to say more.

import * as vscode from 'vscode';
import { offerById, offerInMind } from './keys';
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

/** Asks how a suggestion was: the one that a code action, a lens or a hover is about, or the one in mind. */
export async function giveFeedback(server: Server, about?: unknown): Promise<void> {
  const editor = vscode.window.activeTextEditor; // before the pick takes the focus
  const id = (about as { readonly suggestionId?: unknown } | undefined)?.suggestionId;
  const offer = editor && (typeof id === 'string' ? offerById(editor, id) : offerInMind(editor));
  const face = await vscode.window.showQuickPick(faces, {
    title: `npllm: how was ${offer === undefined ? unnamed(id) : quoted(offer.item.insertText)}?`,
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
    ...(typeof id === 'string' ? { suggestionId: id } : offer !== undefined && { suggestionId: offer.id }),
    ...(editor !== undefined && {
      uri: editor.document.uri.toString(), line: editor.selection.active.line,
    }),
  });
  acknowledge(answer, face.emoji);
}

/** Says whether what was said is recorded. */
export function acknowledge(answer: unknown, emoji = ''): void {
  if (typeof answer !== 'object' || answer === null) return;
  const { recorded, reason } = answer as { recorded?: boolean; reason?: string };
  if (recorded === false) {
    void vscode.window.showInformationMessage(`npllm: ${reason ?? 'this could not be recorded.'}`);
  } else {
    vscode.window.setStatusBarMessage(`npllm: ${emoji} noted, thank you`, 4000);
  }
}

function unnamed(id: unknown): string {
  return typeof id === 'string' ? 'this suggestion' : 'the last suggestion';
}

/** A suggestion in few words: its first line that says something. */
function quoted(text: string): string {
  const line = text.split('\n').map(part => part.trim()).find(part => part !== '') ?? '';
  const characters = [...line];
  return `“${characters.length > 40 ? `${characters.slice(0, 39).join('')}…` : line}”`;
}
