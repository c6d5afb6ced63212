// The extension must run in any VS Code: stable API only, exact versions, a lock file that names no registry.
import { readFileSync } from 'node:fs';

const read = name => readFileSync(new URL(`../${name}`, import.meta.url), 'utf8');
const manifest = JSON.parse(read('package.json'));
const problems = [];

if ('enabledApiProposals' in manifest) {
  problems.push('package.json asks for proposed API (enabledApiProposals): use the stable API alone.');
}
for (const [name, version] of Object.entries({ ...manifest.dependencies, ...manifest.devDependencies })) {
  if (!/^\d+\.\d+\.\d+$/.test(version)) problems.push(`${name} is not pinned exactly: ${version}.`);
}
const oldest = manifest.engines.vscode.replace(/^\^/, '');
if (manifest.devDependencies['@types/vscode'] !== oldest) {
  problems.push(`@types/vscode must be that of the oldest supported VS Code, ${oldest}.`);
}
if (read('package-lock.json').includes('"resolved"')) {
  problems.push('package-lock.json records registry addresses: install with omit-lockfile-registry-resolved=true.');
}

for (const problem of problems) console.error(problem);
process.exitCode = problems.length > 0 ? 1 : 0;
