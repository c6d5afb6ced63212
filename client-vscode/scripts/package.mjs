// Packs npllm.vsix. `vsce` runs "vscode:prepublish" (check and build) itself.
import { copyFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { createVSIX } from '@vscode/vsce';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));
copyFileSync('../LICENSE', 'LICENSE');
await createVSIX({ packagePath: 'npllm.vsix', dependencies: false, allowMissingRepository: true });
