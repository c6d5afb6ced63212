// The server's life: started, watched, restarted when it dies, stopped. One language client for each start.

import os from 'node:os';
import { createInterface } from 'node:readline';
import * as vscode from 'vscode';
import {
  CloseAction, ErrorAction, LanguageClient, State,
  type LanguageClientOptions, type Middleware,
} from 'vscode-languageclient/node';
import { CommandError, resolve } from './command';
import { parse, type Status } from './status';

const RESTARTS = 3; // within RESTARTS_S seconds; then the person is asked
const RESTARTS_S = 180;
const START_MS = 60_000; // a server that has not answered by then is stuck
const STOP_MS = 4000; // the server writes down what is pending

/** Says everything in the log and nothing in pop-ups: `Server` shows the one message that matters. */
class QuietClient extends LanguageClient {
  override error(message: string, data?: unknown): void {
    super.error(message, data, false);
  }
}

export class Server implements vscode.Disposable {
  readonly #changed = new vscode.EventEmitter<Status>();
  /** The status has changed: told by the server, or seen from outside. */
  readonly onStatus = this.#changed.event;

  #client: QuietClient | undefined;
  #work: Promise<void> = Promise.resolve();
  #wanted = false;
  #deaths: number[] = [];
  #lastWords = '';

  constructor(
    private readonly log: vscode.LogOutputChannel,
    private readonly middleware: Middleware,
  ) {}

  /** The client, while the server runs. */
  get client(): LanguageClient | undefined {
    return this.#client?.isRunning() ? this.#client : undefined;
  }

  /** Start, or start anew; after this the server is watched. */
  restart(): Promise<void> {
    this.#wanted = true;
    this.#deaths = [];
    return this.#queue(async () => {
      await this.#stop();
      await this.#start();
    });
  }

  stop(): Promise<void> {
    this.#wanted = false;
    return this.#queue(async () => {
      await this.#stop();
      this.#changed.fire({ state: 'off' });
    });
  }

  dispose(): void {
    this.#changed.dispose();
  }

  /** One thing at a time: a client that is starting cannot be stopped. */
  #queue(job: () => Promise<void>): Promise<void> {
    this.#work = this.#work.then(job, job);
    return this.#work;
  }

  async #start(): Promise<void> {
    if (!this.#wanted) return;
    this.#changed.fire({ state: 'starting' });
    const config = vscode.workspace.getConfiguration('npllm');
    try {
      const { program, args, env } = resolve({
        command: config.get<string[]>('server.command', []),
        python: config.get<string>('server.python', ''),
        env: config.get<Record<string, string>>('server.env', {}),
      }, {
        env: process.env,
        platform: process.platform,
        home: os.homedir(),
        workspace: vscode.workspace.workspaceFolders?.find(folder => folder.uri.scheme === 'file')?.uri.fsPath,
      });
      this.log.info(`Starting ${[program, ...args].join(' ')}`);
      this.#lastWords = '';
      const client = new QuietClient('npllm', 'npllm', {
        command: program, args: [...args], options: { env, cwd: os.homedir() },
      }, this.#options());
      this.#watch(client);
      await this.#started(client);
    } catch (error) {
      this.#client = undefined;
      this.#failed(error instanceof CommandError ? error.message : this.#reason("npllm's server did not start"));
      if (!(error instanceof CommandError)) this.log.error(error instanceof Error ? error : String(error));
    }
  }

  #watch(client: QuietClient): void {
    this.#client = client;
    client.onNotification('npllm/status', params => {
      const status = parse(params);
      if (status !== undefined && this.#client === client) this.#changed.fire(status);
    });
    client.onDidChangeState(({ oldState, newState }) => {
      if (oldState === State.Running && newState === State.Stopped && this.#client === client) this.#died();
    });
  }

  async #started(client: QuietClient): Promise<void> {
    const stuck = setTimeout(() => {
      this.#lastWords = `no answer within ${START_MS / 1000} s`;
      client.serverProcess?.kill('SIGKILL');
    }, START_MS);
    try {
      await client.start();
    } finally {
      clearTimeout(stuck);
    }
  }

  async #stop(): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    try {
      await client?.stop(STOP_MS);
    } catch (error) {
      this.log.warn(`The server did not stop in time: ${String(error)}`);
    }
  }

  /** It ran, and is gone without having been asked to. */
  #died(): void {
    this.#client = undefined;
    const now = Date.now();
    this.#deaths = [...this.#deaths.filter(then => now - then < RESTARTS_S * 1000), now];
    if (this.#deaths.length > RESTARTS) {
      this.#failed(this.#reason("npllm's server keeps stopping"));
      return;
    }
    this.log.warn('The server stopped by itself; starting it again.');
    void this.#queue(() => this.#start());
  }

  #reason(what: string): string {
    return this.#lastWords === '' ? `${what}. The log says why.` : `${what}: ${this.#lastWords}`;
  }

  #failed(message: string): void {
    this.log.error(message);
    this.#changed.fire({ state: 'error', message });
    const openSettings = 'Open settings';
    const showLog = 'Show log';
    void vscode.window.showErrorMessage(message, openSettings, showLog).then(chosen => {
      if (chosen === openSettings) {
        void vscode.commands.executeCommand('workbench.action.openSettings', 'npllm.server');
      } else if (chosen === showLog) {
        this.log.show();
      }
    });
  }

  #options(): LanguageClientOptions {
    return {
      documentSelector: [{ scheme: 'file' }, { scheme: 'vscode-remote' }, { scheme: 'untitled' }],
      initializationOptions: {
        ...JSON.parse(JSON.stringify(vscode.workspace.getConfiguration('npllm'))) as object,
        commandLinks: true,
        feedbackCommand: 'npllm.giveFeedback',
        reportsAcceptance: true, // an item's command runs when all of it is taken; `keys` tells of parts
      },
      markdown: { isTrusted: { enabledCommands: ['npllm.feedback', 'npllm.giveFeedback'] } },
      synchronize: { configurationSection: 'npllm' },
      outputChannel: this.log,
      traceOutputChannel: this.log,
      middleware: this.middleware,
      initializationFailedHandler: () => false,
      errorHandler: {
        error: () => ({ action: ErrorAction.Continue, handled: true }),
        closed: () => ({ action: CloseAction.DoNotRestart, handled: true }),
      },
      stdioOptions: {
        stdout: () => undefined, // the protocol's
        stderr: stream => {
          createInterface({ input: stream }).on('line', line => {
            if (line.trim() !== '') this.#lastWords = line.trim();
            this.log.info(line);
          });
        },
      },
    };
  }
}
