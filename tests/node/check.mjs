// node check.mjs FILE...: one JSON object a file, {file, validator: {errors, warnings, messages}, three: {...}}.
// Exit status 0 whatever it finds; the caller judges.
import { readFile } from "node:fs/promises";
import { validateBytes } from "gltf-validator";
import { createRequire } from "node:module";
import { BufferAttribute, BufferGeometry, Texture, Triangle, Vector3 } from "three";
import { MeshoptDecoder } from "three/examples/jsm/libs/meshopt_decoder.module.js";
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

// A script of the browser's kind, in a package of modules: neither import nor require takes it.
async function dracoModule() {
  const path = new URL(import.meta.resolve("three/examples/jsm/libs/draco/gltf/draco_decoder.js"));
  const source = await readFile(path, "utf8");
  return new Function("require", "__filename", "__dirname", `${source}; return DracoDecoderModule;`)(
    createRequire(import.meta.url), path.pathname, ".",
  )();
}

// three's DRACOLoader works in browser workers only: here Google's decoder, as three ships it, is called directly.
const dracoDecoder = {
  preload() {},
  async decodeDracoFile(buffer, done, ids, types, colorSpace, failed) {
    try {
      const draco = await dracoModule();
      const decoder = new draco.Decoder();
      const mesh = new draco.Mesh();
      const status = decoder.DecodeArrayToMesh(new Int8Array(buffer), buffer.byteLength, mesh);
      if (!status.ok()) throw new Error(status.error_msg());
      const geometry = new BufferGeometry();
      for (const [name, id] of Object.entries(ids)) {
        const attribute = decoder.GetAttributeByUniqueId(mesh, id);
        const values = new draco.DracoFloat32Array();
        decoder.GetAttributeFloatForAllPoints(mesh, attribute, values);
        const array = Float32Array.from({ length: values.size() }, (_, k) => values.GetValue(k));
        geometry.setAttribute(name, new BufferAttribute(array, attribute.num_components()));
      }
      const face = new draco.DracoInt32Array();
      const index = new Uint32Array(mesh.num_faces() * 3);
      for (let k = 0; k < mesh.num_faces(); k++) {
        decoder.GetFaceFromMesh(mesh, k, face);
        for (let n = 0; n < 3; n++) index[3 * k + n] = face.GetValue(n);
      }
      geometry.setIndex(new BufferAttribute(index, 1));
      done(geometry);
    } catch (error) {
      failed(error);
    }
  },
};

async function loadInThree(bytes) {
  pictures.length = 0;
  const loader = new GLTFLoader().register((parser) => new CountingTextures(parser));
  loader.setMeshoptDecoder(MeshoptDecoder).setDRACOLoader(dracoDecoder);
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  const { scene } = await loader.parseAsync(buffer, "");
  const meshes = [];
  scene.traverse((node) => {
    if (!node.isMesh) return;
    const { geometry, material } = node;
    node.updateWorldMatrix(true, false);
    geometry.computeBoundingBox();
    const box = geometry.boundingBox.clone().applyMatrix4(node.matrixWorld);
    meshes.push({
      triangles: geometry.index.count / 3,
      area: area(geometry, node.matrixWorld),
      first: middle(geometry, node.matrixWorld),
      box: [box.min.toArray(), box.max.toArray()],
      attributes: Object.keys(geometry.attributes).sort(),
      material: material.type,
      transparent: material.transparent,
      alphaTest: material.alphaTest,
      doubleSided: material.side === 2,
      maps: ["map", "metalnessMap", "roughnessMap", "normalMap", "aoMap"].filter((key) => material[key]),
    });
  });
  return { meshes, pictures: [...pictures] };
}

function middle(geometry, matrix) {
  const sum = new Vector3();
  for (let n = 0; n < 3; n++) {
    const corner = new Vector3().fromBufferAttribute(geometry.attributes.position, geometry.index.getX(n));
    sum.add(corner.applyMatrix4(matrix));
  }
  return sum.divideScalar(3).toArray();
}

function area(geometry, matrix) {
  const [a, b, c] = [new Vector3(), new Vector3(), new Vector3()];
  const { position } = geometry.attributes;
  let sum = 0;
  for (let k = 0; k < geometry.index.count; k += 3) {
    [a, b, c].forEach((corner, n) =>
      corner.fromBufferAttribute(position, geometry.index.getX(k + n)).applyMatrix4(matrix),
    );
    sum += new Triangle(a, b, c).getArea();
  }
  return sum;
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
