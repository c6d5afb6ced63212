import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { writtenAt } from '../src/written';

test('a file that cannot be looked at was written at no time, and nothing is thrown', () => {
  const folder = mkdtempSync(join(tmpdir(), 'npllm-written-'));
  try {
    const [file, loop] = [join(folder, 'a.py'), join(folder, 'loop.py')];
    writeFileSync(file, 'x = 1\n');
    symlinkSync(loop, loop);
    assert.ok(writtenAt(file) > 0);
    assert.equal(writtenAt(join(folder, 'none.py')), 0);
    assert.equal(writtenAt(loop), 0);
    assert.equal(writtenAt(join(file, 'below.py')), 0);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
