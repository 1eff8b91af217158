// Builds @NAME@.wasm from @NAME@.js.

import { writeFile } from 'node:fs/promises';
import { componentize } from '@bytecodealliance/componentize-js';

const { component, imports } = await componentize({
  sourcePath: '@NAME@.js',
  witPath: 'metric.wit',
  worldName: 'metric',
  // What would import WASI, which a metric may not.
  disableFeatures: ['stdio', 'random', 'clocks', 'http', 'fetch-event'],
});
await writeFile('@NAME@.wasm', component);
console.error(`@NAME@.wasm: ${component.length} bytes, imports ${imports.map(([from, name]) => `${from} ${name}`)}`);
