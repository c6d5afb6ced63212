// Which program is the server? Knows nothing of VS Code, so that it can be tested without one.

import { accessSync, constants, statSync } from 'node:fs';
import path from 'node:path';

export interface ServerSettings {
  readonly command: readonly string[];
  readonly python: string;
  readonly env: Readonly<Record<string, string>>;
}

export interface ServerCommand {
  /** An absolute path. */
  readonly program: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/** Where the settings are resolved. */
export interface Surroundings {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly platform: NodeJS.Platform;
  readonly home: string;
  readonly workspace: string | undefined;
}

/** The server cannot be found; the message says how to mend that. */
export class CommandError extends Error {}

/** The command line of the server. Throws `CommandError`. */
export function resolve(settings: ServerSettings, around: Surroundings): ServerCommand {
  const env: Record<string, string> = {};
  for (const source of [around.env, settings.env]) {
    for (const [name, value] of Object.entries(source)) if (value !== undefined) env[name] = value;
  }
  const python = settings.python.trim();
  if (python !== '') {
    const program = find(expand(python, around), env, around);
    if (program === undefined) {
      throw new CommandError(`npllm could not find the interpreter "${python}". Correct npllm.server.python.`);
    }
    // -P: a package of the workspace must never be imported in place of npllm's own.
    return { program, args: ['-P', '-m', 'npllm', 'serve'], env };
  }
  const [name = '', ...args] = settings.command.map(part => expand(part, around));
  if (name === '') {
    throw new CommandError('npllm.server.command is empty. Set it to the command that starts the server.');
  }
  const program = find(name, env, around);
  if (program === undefined) {
    throw new CommandError(`npllm could not find its server "${name}". Install it from its repository ("pip install ." there), or set npllm.server.command or npllm.server.python.`);
  }
  return { program, args, env };
}

function expand(part: string, around: Surroundings): string {
  const home = part.replace(/^~(?=$|[\\/])/, around.home);
  return around.workspace === undefined ? home : home.replaceAll('${workspaceFolder}', around.workspace);
}

function find(name: string, env: Readonly<Record<string, string>>, around: Surroundings): string | undefined {
  const windows = around.platform === 'win32';
  const suffixes = windows ? ['', ...(env['PATHEXT'] ?? '.EXE;.CMD;.BAT').split(';')] : [''];
  const folders = name.includes('/') || (windows && name.includes('\\'))
    ? [around.workspace ?? around.home]
    : (env['PATH'] ?? env['Path'] ?? '').split(windows ? ';' : ':').filter(folder => path.isAbsolute(folder));
  for (const folder of folders) {
    for (const suffix of suffixes) {
      const candidate = path.resolve(folder, name + suffix);
      if (isProgram(candidate)) return candidate;
    }
  }
  return undefined;
}

function isProgram(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}
