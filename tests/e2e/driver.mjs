// Drives a VS Code workbench in headless Chromium. Reads one JSON request per line, `{"do": name, ...arguments}`, and
// answers each with one line, `{"value": ...}` or `{"error": message}`. Waiting and judging are the caller's business.
// NPLLM_E2E_CACHE names install.sh's folder, where playwright-core lies.
import { createRequire } from 'node:module';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';

const { chromium } = createRequire(path.join(process.env.NPLLM_E2E_CACHE, 'tools', 'package.json'))('playwright-core');

const CHROMIUM = ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-extensions'];
const GHOST = ['.ghost-text-decoration', '.ghost-text', '.suggest-preview-text'];

const profile = mkdtempSync(path.join(os.tmpdir(), 'npllm-e2e-browser-'));
let browser, page;

const actions = {
  async open({ url, chromium: executablePath }) {
    browser = await chromium.launchPersistentContext(profile, {
      executablePath, headless: true, viewport: { width: 1280, height: 800 }, args: CHROMIUM,
      permissions: ['clipboard-read', 'clipboard-write'],
    });
    page = browser.pages()[0] ?? await browser.newPage();
    await page.goto(url, { waitUntil: 'domcontentloaded', timeout: 60000 });
    await page.waitForSelector('.monaco-editor .view-line', { timeout: 120000 });
  },

  async type({ text, delay }) {
    await page.keyboard.type(text, { delay });
  },

  async press({ keys }) {
    for (const key of keys) await page.keyboard.press(key);
  },

  /** The cursor at the end of the document in the editor. */
  async toEnd() {
    await page.locator('.monaco-editor .view-lines').first().click({ timeout: 30000 });
    await page.keyboard.press('Control+End');
  },

  /** The lines of the editor that are in view, without ghost text. */
  lines: () => page.$$eval('.monaco-editor .view-lines .view-line', (lines, ghost) => lines
    .map(line => {
      const copy = line.cloneNode(true);
      copy.querySelectorAll(ghost).forEach(part => part.remove());
      return [parseFloat(line.style.top), copy.textContent.replace(/\u00a0/g, ' ')];
    })
    .sort((one, other) => one[0] - other[0]).map(([, text]) => text), GHOST.join()),

  /** The ghost text. Its further lines are in a zone of their own; what lies at one height is one line. */
  ghost: () => page.$$eval(GHOST.join(), (parts, nested) => {
    const lines = new Map();
    for (const part of parts.filter(one => one.parentElement.closest(nested) === null)) {
      for (const row of part.querySelectorAll('.view-line').length > 0 ? part.querySelectorAll('.view-line') : [part]) {
        const { top, left } = row.getBoundingClientRect();
        const line = lines.get(Math.round(top)) ?? [];
        line.push([left, row.textContent.replace(/\u00a0/g, ' ')]);
        lines.set(Math.round(top), line);
      }
    }
    return [...lines].sort(([one], [other]) => one - other)
      .map(([, line]) => line.sort(([one], [other]) => one - other).map(([, text]) => text).join('')).join('\n');
  }, GHOST.join()),

  /** The text of a status bar item, null while it is not there. */
  async status({ id }) {
    const item = page.locator(`[id="${id}"]`);
    return await item.count() === 0 ? null : (await item.first().textContent({ timeout: 5000 })).trim();
  },

  /** Open a file of the workspace by its name, and go into it. */
  async openFile({ name }) {
    await page.keyboard.press('Control+p');
    await page.waitForSelector('.quick-input-widget input:visible', { timeout: 15000 });
    await page.keyboard.type(name);
    await choose(name);
    await page.waitForSelector(`.tab.active[data-resource-name="${name}"]`, { timeout: 15000 });
    await page.waitForSelector('.monaco-editor.focused .view-line', { timeout: 15000 });
  },

  /** Run a command from the palette. */
  async palette({ command }) {
    await page.keyboard.press('F1');
    await page.waitForSelector('.quick-input-widget input:visible', { timeout: 15000 });
    await page.keyboard.type(command);
    await choose(command);
  },

  /** Choose an entry of the quick pick that is open. */
  choose: ({ label }) => choose(label),

  /** Ask for the code actions at the cursor and choose one. What VS Code is asked just after a change, it may drop. */
  async act({ label }) {
    const row = page.locator('.action-widget .monaco-list-row', { hasText: label }).first();
    for (let left = 3; ; left--) {
      await page.keyboard.press('Control+.');
      try {
        return await row.click({ timeout: left > 0 ? 5000 : 20000 });
      } catch (error) {
        if (left === 0) throw error;
        await page.keyboard.press('Escape');
      }
    }
  },

  /** Click a link in the hover that is on screen. */
  async follow({ label }) {
    await page.locator('.monaco-hover a', { hasText: label }).first().click({ timeout: 20000 });
  },

  /** The CodeLenses that are on screen. */
  lenses: () => page.$$eval('.codelens-decoration a', all => all.map(one => one.textContent)),

  /** Click a CodeLens. */
  async lens({ label }) {
    await page.locator('.codelens-decoration a', { hasText: label }).first().click({ timeout: 20000 });
  },

  /** What the page says that an extension shows among the editors; "" while there is none. */
  async webview() {
    const frame = page.frameLocator('iframe.webview').frameLocator('iframe#active-frame');
    return await frame.locator('body').innerText({ timeout: 1000 }).catch(() => '');
  },

  /** The title of the quick input that is open, null when none is. */
  async title() {
    const title = page.locator('.quick-input-widget:visible .quick-input-title');
    if (await title.count() === 0) return null;
    return (await title.first().textContent({ timeout: 5000 })).replace(/\u00a0/g, ' ').trim();
  },

  /** What notifications say. */
  notifications: () => page.$$eval('.notification-list-item-message', all => all.map(one => one.textContent)),

  /** Whether a modal dialog keeps the person from working. */
  blocked: async () => await page.locator('.monaco-dialog-modal-block').count() > 0,

  async screenshot({ path: file }) {
    await page.screenshot({ path: file, timeout: 30000 });
  },
};

async function choose(label) {
  const row = page.locator('.quick-input-list .monaco-list-row', { hasText: label }).first();
  await row.waitFor({ timeout: 15000 });
  await row.click({ timeout: 15000 });
}

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  let answer;
  try {
    answer = { value: await actions[request.do](request) ?? null };
  } catch (error) {
    answer = { error: `${request.do}: ${error.message}` };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser?.close().catch(() => undefined);
rmSync(profile, { recursive: true, force: true });
