import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { CommandError, resolve, type Surroundings } from '../src/command';

const root = mkdtempSync(path.join(os.tmpdir(), 'npllm-command-'));
after(() => rmSync(root, { recursive: true, force: true }));
const settings = { command: ['npllm', 'serve'], python: '', env: {} };

function program(...parts: string[]): string {
  const file = path.join(root, ...parts);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, '#!/bin/sh\n');
  chmodSync(file, 0o755);
  return file;
}

function around(paths: string[], env: Record<string, string> = {}): Surroundings {
  return {
    env: { PATH: paths.join(':'), ...env }, platform: 'linux',
    home: path.join(root, 'home'), workspace: path.join(root, 'work'),
  };
}

test('a bare name is looked up on PATH', () => {
  const file = program('bin', 'npllm');
  const found = resolve(settings, around(['/nonexistent', path.dirname(file)]));
  assert.equal(found.program, file);
  assert.deepEqual(found.args, ['serve']);
});

test('a folder or a file that cannot be run is no program', () => {
  mkdirSync(path.join(root, 'first', 'npllm'), { recursive: true });
  const second = program('second', 'npllm');
  chmodSync(second, 0o644);
  const third = program('third', 'npllm');
  assert.equal(resolve(settings, around(['first', 'second', 'third'].map(name => path.join(root, name)))).program, third);
});

test('relative folders on PATH are not searched: a workspace must not bring its own npllm', () => {
  program('work', 'npllm');
  assert.throws(() => resolve(settings, around(['', '.'])), CommandError);
});

test('the interpreter takes the place of the command', () => {
  const file = program('home', 'venv', 'bin', 'python');
  const found = resolve({ ...settings, python: '~/venv/bin/python' }, around([]));
  assert.equal(found.program, file);
  assert.deepEqual(found.args, ['-P', '-m', 'npllm', 'serve']);
});

test('a path is relative to the workspace, and may name it', () => {
  const file = program('work', '.venv', 'bin', 'npllm');
  for (const name of ['.venv/bin/npllm', '${workspaceFolder}/.venv/bin/npllm']) {
    assert.equal(resolve({ ...settings, command: [name, 'serve'] }, around([])).program, file);
  }
});

test('the environment is inherited, and the setting goes over it, for PATH too', () => {
  const file = program('other', 'npllm');
  const found = resolve({ ...settings, env: { PATH: path.dirname(file), NPLLM_HOME: '/new' } },
    around(['/nonexistent'], { NPLLM_HOME: '/old', LANG: 'C' }));
  assert.equal(found.program, file);
  assert.deepEqual(found.env, { PATH: path.dirname(file), NPLLM_HOME: '/new', LANG: 'C' });
});

test('every failure says how to mend it', () => {
  const failure = (changed: object): string => {
    try {
      resolve({ ...settings, ...changed }, around(['/nonexistent']));
    } catch (error) {
      assert.ok(error instanceof CommandError);
      return error.message;
    }
    throw new assert.AssertionError({ message: 'it was resolved' });
  };
  assert.match(failure({}), /could not find its server "npllm".*pip install \..*npllm\.server\.command/);
  assert.match(failure({ command: [] }), /npllm\.server\.command is empty/);
  assert.match(failure({ python: '/nonexistent/python' }), /interpreter "\/nonexistent\/python".*npllm\.server\.python/);
});
