// What the app's viewer takes of three.js; `npm run bundle-three` writes it as static/three.min.js.
export {
  Box3, Color, DirectionalLight, HemisphereLight, Mesh, MeshBasicMaterial, MeshNormalMaterial, MeshStandardMaterial,
  NeutralToneMapping, PMREMGenerator, PerspectiveCamera, Scene, Sphere, Spherical, WebGLRenderer,
} from "three";
export { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
export { RoomEnvironment } from "three/examples/jsm/environments/RoomEnvironment.js";
export { GLTFLoader } from "three/examples/jsm/loaders/GLTFLoader.js";
export { STLLoader } from "three/examples/jsm/loaders/STLLoader.js";
export { MeshoptDecoder } from "three/examples/jsm/libs/meshopt_decoder.module.js";
