// build.mjs [--test]: bundle the extension, or its unit tests, into dist/.
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import path from 'node:path';
import esbuild from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const common = { absWorkingDir: root, bundle: true, platform: 'node', format: 'cjs', target: 'node20', logLevel: 'warning' };

if (process.argv.includes('--test')) {
  const tests = readdirSync(path.join(root, 'test')).filter(name => name.endsWith('.test.ts'));
  await esbuild.build({ ...common, entryPoints: tests.map(name => `test/${name}`), outdir: 'dist/test' });
} else {
  const { metafile } = await esbuild.build({
    ...common, entryPoints: ['src/extension.ts'], outfile: 'dist/extension.js',
    external: ['vscode'], minify: true, metafile: true,
  });
  mkdirSync(path.join(root, 'dist'), { recursive: true });
  writeFileSync(path.join(root, 'dist/THIRD_PARTY_NOTICES.txt'), notices(Object.keys(metafile.inputs)));
}

/** The licences of all packages that went into the bundle. */
function notices(inputs) {
  const folders = new Set(inputs.map(input => /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(input)?.[1]).filter(Boolean));
  return [...folders].sort().map(folder => {
    const { name, version, license } = JSON.parse(readFileSync(path.join(root, folder, 'package.json'), 'utf8'));
    const file = readdirSync(path.join(root, folder)).find(entry => /^licen[cs]e/i.test(entry));
    if (file === undefined) throw new Error(`${name} comes without a licence text.`);
    return `${name} ${version} (${license})\n\n${readFileSync(path.join(root, folder, file), 'utf8').trim()}\n`;
  }).join(`\n${'-'.repeat(80)}\n\n`);
}
