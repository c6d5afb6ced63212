// What is said to the server: `workspace/executeCommand`, with one message when it cannot be done; notifications.

import * as vscode from 'vscode';
import { ExecuteCommandRequest } from 'vscode-languageclient/node';
import type { Server } from './server';

/** The server's answer (null becomes {}); undefined when there was none, which the person has been told. */
export async function execute(server: Server, command: string, ...args: unknown[]): Promise<object | undefined> {
  const client = server.client;
  if (client === undefined) {
    const restart = 'Restart server';
    void vscode.window.showWarningMessage("npllm's server is not running.", restart).then(chosen => {
      if (chosen === restart) void server.restart();
    });
    return undefined;
  }
  try {
    const answer: unknown = await client.sendRequest(ExecuteCommandRequest.type, { command, arguments: args });
    return typeof answer === 'object' && answer !== null ? answer : {};
  } catch (error) {
    void vscode.window.showErrorMessage(`npllm: ${error instanceof Error ? error.message : String(error)}`);
    return undefined;
  }
}

/** Send a notification, if the server runs. */
export function tell(server: Server, method: string, params: object = {}): void {
  server.client?.sendNotification(method, params).catch(() => undefined); // the server has gone: nothing to teach
}
