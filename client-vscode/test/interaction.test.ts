import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Interaction } from '../src/interaction';

/** Whether signs at these times (ms) are told. */
function told(times: readonly number[], focused = true, scheme?: string): boolean[] {
  let now = 0;
  const interaction = new Interaction(() => now);
  return times.map(time => {
    now = time;
    return interaction.tells(focused, scheme);
  });
}

test('the first sign is told at once, then at most one a second', () => {
  assert.deepEqual(told([0, 10, 999, 1000, 1001, 1999, 9000]), [true, false, false, true, false, false, true]);
  assert.deepEqual(told([0, 600, 1200], true, 'file'), [true, false, true], 'one held back puts off no later one');
});

test('nothing is told of a window without the focus, nor of output that scrolls by itself', () => {
  assert.deepEqual(told([0, 5000], false), [false, false]);
  assert.deepEqual(told([0, 5000], true, 'output'), [false, false]);
});

test('what is not told holds back nothing that is', () => {
  const interaction = new Interaction(() => 0);
  assert.equal(interaction.tells(false, 'file'), false);
  assert.equal(interaction.tells(true, 'output'), false);
  assert.equal(interaction.tells(true, 'file'), true);
});
