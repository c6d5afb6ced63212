import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Offers, taken, type Item, type Offer, type Position } from '../src/offers';

const uri = 'file:///a.py';
const at = (character: number): Position => ({ line: 3, character });
const item = (id: string, insertText: string, start: number): Item => ({
  insertText, range: { start: at(start), end: at(start) },
  command: { title: 'accepted', command: 'npllm.accepted', arguments: [id] },
});
/** `typed` stands between column `start` and the cursor. */
const typed = (start: number, text: string) => (from: Position) => {
  const skipped = from.character - start;
  return skipped < 0 || skipped > text.length ? undefined : text.slice(skipped);
};

test('an offer is found while a part of it stands before the cursor', () => {
  const offers = new Offers();
  assert.equal(offers.add(uri, item('1', 'return x', 4), at(4)), true);
  assert.equal(offers.at(uri, typed(4, ''))?.id, '1');
  assert.equal(offers.at(uri, typed(4, 'retu'))?.id, '1');
  assert.equal(offers.at(uri, typed(4, 'retr')), undefined);
  assert.equal(offers.at(uri, typed(4, 'return x')), undefined, 'nothing of it is left');
  assert.equal(offers.at('file:///b.py', typed(4, '')), undefined);
});

test('the rest of a suggestion, served again, is the same offer as at first', () => {
  const offers = new Offers();
  offers.add(uri, item('1', 'return x', 4), at(4));
  offers.add(uri, item('1', 'urn x', 7), at(7));
  const offer = offers.at(uri, typed(4, 'return '));
  assert.equal(offer?.item.insertText, 'return x');
  assert.equal(taken(offer as Offer, 'return '), 7);
});

test('the newest of several that fit is meant', () => {
  const offers = new Offers();
  offers.add(uri, item('1', 'return x', 4), at(4));
  offers.add(uri, item('2', 'return y', 4), at(4));
  assert.equal(offers.at(uri, typed(4, 'return '))?.id, '2');
  offers.add(uri, item('1', 'return x', 4), at(4));
  assert.equal(offers.at(uri, typed(4, 'return '))?.id, '1');
});

test('what was taken is counted in the units of the offered text, whatever line ends the document has', () => {
  const offer = (insertText: string): Offer => ({ id: '1', item: item('1', insertText, 0), start: at(0) });
  assert.equal(taken(offer('a\nb'), 'a\r\n'), 2);
  assert.equal(taken(offer('a\r\nb'), 'a\n'), 3);
  assert.equal(taken(offer('"😀" + b'), '"😀"'), 4);
  assert.equal(taken(offer('a'), undefined), undefined);
});

test('the last offer of a document is known when none is at the cursor', () => {
  const offers = new Offers();
  assert.equal(offers.latest(uri), undefined);
  offers.add(uri, item('1', 'return x', 4), at(4));
  offers.add(uri, item('2', 'return y', 4), at(4));
  assert.equal(offers.latest(uri)?.id, '2');
  assert.equal(offers.get(uri, '1')?.item.insertText, 'return x');
  offers.forget(uri);
  assert.equal(offers.latest(uri), undefined);
});

test('an item of someone else is not ours', () => {
  const offers = new Offers();
  assert.equal(offers.add(uri, { insertText: 'x' }, at(0)), false);
  assert.equal(offers.at(uri, typed(0, '')), undefined);
});

test('only a bounded number is remembered', () => {
  const offers = new Offers();
  for (let n = 0; n < 100; n++) offers.add(uri, item(String(n), `${n}: text`, 4), at(4));
  assert.equal(offers.at(uri, typed(4, '1: ')), undefined);
  assert.equal(offers.at(uri, typed(4, '99: '))?.id, '99');
});
