// npllm for VS Code: starts the server and shows what it says. All thinking is done there.

import * as vscode from 'vscode';
import type { Middleware } from 'vscode-languageclient/node';
import { acknowledge, giveFeedback } from './feedback';
import * as keys from './keys';
import * as presence from './presence';
import { execute } from './requests';
import { Server } from './server';
import * as status from './status';

let server: Server | undefined;

/** What is said by a code action, a lens or a link goes to the server by itself; the person sees that it arrived. */
function heard(before: Middleware): Middleware {
  return {
    ...before,
    executeCommand: async (command, args: unknown[], next) => {
      const run = before.executeCommand;
      const answer: unknown = await (run === undefined ? next(command, args) : run(command, args, next));
      if (command === 'npllm.feedback') acknowledge(answer, (args[0] as { emoji?: string } | undefined)?.emoji);
      return answer;
    },
  };
}

/** A sleep's standard progress is not shown: the status bar's item says more. */
const quietSleep: Middleware = {
  handleWorkDoneProgress: (token, params, next) => {
    if (!String(token).startsWith('npllm-sleep-')) next(token, params);
  },
};

export function activate(context: vscode.ExtensionContext): void {
  const log = vscode.window.createOutputChannel('npllm', { log: true });
  const running: Server = new Server(log, { ...heard(keys.watch(() => running)), ...quietSleep });
  server = running;
  context.subscriptions.push(
    log, running, statusBar(running), ...keys.register(running), ...presence.register(running),
    ...commands(running, log),
    vscode.workspace.onDidChangeConfiguration(event => {
      if (event.affectsConfiguration('npllm.enable') || event.affectsConfiguration('npllm.server')) {
        void follow(running);
      }
    }),
  );
  void follow(running);
}

export function deactivate(): Promise<void> | undefined {
  return server?.stop();
}

/** What the settings ask for. */
function follow(running: Server): Promise<void> {
  const enabled = vscode.workspace.getConfiguration('npllm').get('enable', true);
  return enabled ? running.restart() : running.stop();
}

function statusBar(running: Server): vscode.Disposable {
  const item = vscode.window.createStatusBarItem('status', vscode.StatusBarAlignment.Right, 100);
  item.name = 'npllm';
  item.command = 'npllm.showMenu';
  const show = (now: status.Status): void => {
    item.text = status.text(now);
    item.tooltip = status.details(now).join('\n');
    item.backgroundColor = now.state === 'error' ? new vscode.ThemeColor('statusBarItem.errorBackground') : undefined;
    if (now.state === 'starting') keys.forget();
  };
  show({ state: 'starting' });
  item.show();
  return vscode.Disposable.from(item, running.onStatus(show));
}

function commands(running: Server, log: vscode.LogOutputChannel): vscode.Disposable[] {
  const handlers: Record<string, (about?: unknown) => unknown> = {
    'npllm.giveFeedback': about => giveFeedback(running, about),
    'npllm.sleepNow': () => sleep(running),
    'npllm.wakeUp': () => execute(running, 'npllm.wake'),
    'npllm.showReport': () => showReport(running),
    'npllm.snoozeHour': () => snooze(running, 60),
    'npllm.suggestAgain': () => snooze(running, 0),
    'npllm.showStatistics': () => showStatistics(running),
    'npllm.showLog': () => log.show(),
    'npllm.restartServer': () => follow(running),
    'npllm.showMenu': () => showMenu(),
  };
  return Object.entries(handlers).map(([id, handler]) => vscode.commands.registerCommand(id, handler));
}

async function sleep(running: Server): Promise<void> {
  const answer = await execute(running, 'npllm.sleep');
  const { started, reason } = (answer ?? {}) as { started?: boolean; reason?: string };
  if (started === false && reason !== undefined) {
    void vscode.window.showInformationMessage(`npllm: ${reason}`);
  }
}

/** The page is whole in itself and has no script; it is shown as it is. */
async function showReport(running: Server): Promise<void> {
  const answer = await execute(running, 'npllm.report');
  const { html, reason } = (answer ?? {}) as { html?: string; reason?: string };
  if (html !== undefined) {
    const panel = vscode.window.createWebviewPanel('npllm.report', 'npllm: last sleep', vscode.ViewColumn.Active, {
      enableScripts: false, localResourceRoots: [],
    });
    panel.webview.html = html;
  } else if (reason !== undefined) {
    void vscode.window.showInformationMessage(`npllm: ${reason}`);
  }
}

async function snooze(running: Server, minutes: number): Promise<void> {
  const answer = await execute(running, 'npllm.snooze', { minutes });
  const { message } = (answer ?? {}) as { message?: string };
  if (message !== undefined) vscode.window.setStatusBarMessage(`npllm: ${message || 'suggests again'}`, 4000);
}

/** The tables that `npllm stats` prints. */
async function showStatistics(running: Server): Promise<void> {
  const answer = await execute(running, 'npllm.stats');
  const { text, reason } = (answer ?? {}) as { text?: string; reason?: string };
  if (text !== undefined) {
    const panel = vscode.window.createWebviewPanel('npllm.statistics', 'npllm: statistics', vscode.ViewColumn.Active, {
      enableScripts: false, localResourceRoots: [],
    });
    const plain = text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
    panel.webview.html = `<!DOCTYPE html><html lang="en"><body><pre>${plain}</pre></body></html>`;
  } else if (reason !== undefined) {
    void vscode.window.showInformationMessage(`npllm: ${reason}`);
  }
}

async function showMenu(): Promise<void> {
  const entries = [
    { label: '$(feedback) Give feedback', command: 'npllm.giveFeedback' },
    { label: '$(moon) Sleep now', command: 'npllm.sleepNow' },
    { label: '$(sparkle) Wake up', command: 'npllm.wakeUp' },
    { label: '$(graph) Show last sleep report', command: 'npllm.showReport' },
    { label: '$(bell-slash) No suggestions for an hour', command: 'npllm.snoozeHour' },
    { label: '$(bell) Suggest again', command: 'npllm.suggestAgain' },
    { label: '$(pulse) Show statistics', command: 'npllm.showStatistics' },
    { label: '$(output) Show log', command: 'npllm.showLog' },
    { label: '$(refresh) Restart server', command: 'npllm.restartServer' },
  ];
  const chosen = await vscode.window.showQuickPick(entries, { title: 'npllm' });
  if (chosen !== undefined) await vscode.commands.executeCommand(chosen.command);
}
