// node meshopt.mjs CASES.json: the bytes (ATTRIBUTES) or indices (TRIANGLES) of each case, as JSON.
import { readFile } from "node:fs/promises";
import { MeshoptDecoder } from "three/examples/jsm/libs/meshopt_decoder.module.js";

await MeshoptDecoder.ready;
const cases = JSON.parse(await readFile(process.argv[2], "utf8"));
const decoded = cases.map(({ mode, count, stride, data, filter }) => {
  const target = new Uint8Array(count * stride);
  const source = Uint8Array.from(Buffer.from(data, "hex"));
  MeshoptDecoder.decodeGltfBuffer(target, count, stride, source, mode, filter);
  return Array.from(mode === "TRIANGLES" ? new Uint32Array(target.buffer) : target);
});
console.log(JSON.stringify(decoded));
