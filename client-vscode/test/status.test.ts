import assert from 'node:assert/strict';
import { test } from 'node:test';
import { details, parse, text } from '../src/status';

test('a sleeping server shows its phase, how far it has come, rounded down, and the time left', () => {
  assert.equal(text({ state: 'sleeping', phase: 'learning', progress: 0.429, secondsLeft: 99.4 }),
    '$(moon) npllm sleeping: learning 42 %, 99 s left');
  assert.equal(text({ state: 'sleeping', progress: 0.999, secondsLeft: 420 }), '$(moon) npllm sleeping 99 %, 7 min left');
  assert.equal(text({ state: 'sleeping' }), '$(moon) npllm sleeping');
  assert.equal(text({ state: 'waking', phase: 'learning', progress: 0.5 }), '$(loading~spin) npllm waking');
});

test('progress is shown in sleep only', () => {
  assert.equal(text({ state: 'awake', progress: 0.5 }), '$(sparkle) npllm awake');
  assert.equal(text({ state: 'thinking' }), '$(loading~spin) npllm thinking');
});

test('the tooltip has all that the server told, and nothing else', () => {
  assert.deepEqual(
    details({
      state: 'sleeping', phase: 'training', progress: 0.429, secondsLeft: 40, message: 'step 3 of 90', base: 'starter',
      adapters: ['python-7'], backlog: 2,
    }),
    ['npllm is sleeping', 'Phase: training', 'Done: 42 %', 'Left: 40 s', 'step 3 of 90', 'Base: starter', 'Adapters: python-7',
      'Waiting for the database: 2'],
  );
  assert.deepEqual(details({ state: 'awake', base: 'starter', adapters: [], backlog: 0 }),
    ['npllm is awake', 'Base: starter', 'Adapters: none yet']);
  assert.deepEqual(details({ state: 'starting' }), ['npllm is starting']);
});

test('what came over the wire is taken as far as it makes sense', () => {
  assert.deepEqual(parse({ state: 'sleeping', progress: 7, phase: '', adapters: ['a', 1], backlog: -1, extra: 1 }),
    { state: 'sleeping', progress: 1, adapters: ['a'] });
  assert.deepEqual(parse({ state: 'awake', progress: Number.NaN, secondsLeft: '9', message: null }), { state: 'awake' });
  for (const wrong of [undefined, null, 'awake', {}, { state: 'dreaming' }]) assert.equal(parse(wrong), undefined);
});
