// node check.mjs FILE...: one JSON object a file, {file, validator: {errors, warnings, messages}, three: {...}}.
// Exit status 0 whatever it finds; the caller judges.
import { readFile } from "node:fs/promises";
import { validateBytes } from "gltf-validator";
import { Texture } from "three";
import { GLTFLoader } from "three/examples/jsm/loaders/GLTFLoader.js";

// Only the decoding of pictures needs a browser: here their bytes are counted; all else is three's own code.
globalThis.self = globalThis;
const pictures = [];
class CountingTextures {
  constructor(parser) {
    this.name = "counting_textures";
    parser.textureLoader = {
      load: (url, done, _, failed) =>
        fetch(url)
          .then((answer) => answer.blob())
          .then((blob) => {
            pictures.push({ type: blob.type, bytes: blob.size });
            done(new Texture());
          })
          .catch(failed),
    };
  }
}

async function loadInThree(bytes) {
  pictures.length = 0;
  const loader = new GLTFLoader().register((parser) => new CountingTextures(parser));
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  const { scene } = await loader.parseAsync(buffer, "");
  const meshes = [];
  scene.traverse((node) => {
    if (!node.isMesh) return;
    const { geometry, material } = node;
    meshes.push({
      triangles: geometry.index.count / 3,
      attributes: Object.keys(geometry.attributes).sort(),
      material: material.type,
      transparent: material.transparent,
      alphaTest: material.alphaTest,
      doubleSided: material.side === 2,
      maps: ["map", "metalnessMap", "roughnessMap", "normalMap"].filter((key) => material[key]),
    });
  });
  return { meshes, pictures: [...pictures] };
}

for (const file of process.argv.slice(2)) {
  const bytes = new Uint8Array(await readFile(file));
  const { issues } = await validateBytes(bytes, { maxIssues: 100 });
  const validator = {
    errors: issues.numErrors,
    warnings: issues.numWarnings,
    messages: issues.messages.map((m) => `${m.severity} ${m.code} ${m.pointer ?? ""}: ${m.message}`),
  };
  let three;
  try {
    three = await loadInThree(bytes);
  } catch (error) {
    three = { error: String(error) };
  }
  console.log(JSON.stringify({ file, validator, three }));
}
