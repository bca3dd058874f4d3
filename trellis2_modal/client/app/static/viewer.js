// <asset-viewer src="..." name="...">: a GLB or STL to turn, zoom and look at in several ways.
// three.js is fetched when a viewer is first seen; nothing is drawn between two changes.

const LIGHTS = { studio: 'Studio', sun: 'Sunlight', soft: 'Soft' };
const BACKGROUNDS = { page: 'Page', white: 'White', grey: 'Grey', black: 'Black' };
const COLOURS = { white: 0xffffff, grey: 0x808080, black: 0x000000 };
const SURFACES = { material: 'Material', clay: 'Clay', normals: 'Normals' };
const TURN = Math.PI / 16, ZOOM = 1.15;
const chosen = { light: 'studio', background: 'page', surface: 'material', wireframe: false };
// The same for every asset that is looked at: whoever compares two wants one light.

let three = null;
const load = () => (three ||= import('./three.min.js'));

const choice = (name, label, options) =>
  `<label>${label} <select data-look="${name}">${Object.entries(options).map(([value, title]) =>
    `<option value="${value}"${chosen[name] === value ? ' selected' : ''}>${title}</option>`).join('')}</select></label>`;

class AssetViewer extends HTMLElement {
  static observedAttributes = ['src'];

  constructor() {
    super();
    this.addEventListener('change', (e) => this.look(e.target.dataset.look, e.target.value));
  }

  // Gradio keeps the element where only its attributes differ, and empties it: another file, another start.
  attributeChangedCallback(name, before) {
    if (before === null) return;
    setTimeout(() => {
      if (!this.isConnected) return;
      this.disconnectedCallback();
      delete this.dataset.ready;
      this.connectedCallback();
    });
  }

  connectedCallback() {
    this.innerHTML =
      `<div class="stage"><canvas tabindex="0" role="img"></canvas>
       <div class="loading" role="status"><span>Loading the 3D model</span><div class="bar"><i></i></div></div></div>
       <div class="looks" role="group" aria-label="How the model is shown">${choice('light', 'Light', LIGHTS)}
       ${choice('background', 'Background', BACKGROUNDS)}${choice('surface', 'Surface', SURFACES)}
       <button type="button" class="plain" data-look="wireframe" aria-pressed="${chosen.wireframe}">Wireframe</button>
       <button type="button" class="plain" data-look="reset">Reset view</button></div>`;
    this.canvas = this.querySelector('canvas');
    this.canvas.setAttribute('aria-label',
      `3D model of ${this.getAttribute('name')}. Arrow keys turn it, plus and minus zoom.`);
    this.querySelector('[data-look=wireframe]').addEventListener('click', (e) => {
      e.currentTarget.setAttribute('aria-pressed', !chosen.wireframe);
      this.look('wireframe', !chosen.wireframe);
    });
    this.querySelector('[data-look=reset]').addEventListener('click', () => this.frame());
    this.seen = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      this.seen.disconnect();
      const canvas = this.canvas;
      this.open().catch((error) => { if (canvas === this.canvas && this.isConnected) this.fail(error); });
    });
    this.seen.observe(this);
  }

  disconnectedCallback() {
    this.seen.disconnect();
    this.resized?.disconnect();
    this.controls?.dispose();
    this.renderer?.dispose();
    this.renderer?.forceContextLoss();
    this.renderer = null;
  }

  fail(error) {
    console.warn(error);
    const loading = this.querySelector('.loading');
    if (loading) loading.innerHTML = '<span>This browser cannot show the 3D model here. ' +
      'The turntable shows it from all sides, and a downloaded file opens in other programs.</span>';
  }

  async open() {
    const T = this.T = await load();
    if (!this.isConnected) return;
    const renderer = this.renderer = new T.WebGLRenderer({ canvas: this.canvas, antialias: true, alpha: true });
    renderer.toneMapping = T.NeutralToneMapping;
    this.scene = new T.Scene();
    const filter = new T.PMREMGenerator(renderer);
    this.room = filter.fromScene(new T.RoomEnvironment(), 0.04).texture;
    filter.dispose();
    this.camera = new T.PerspectiveCamera(36, 1, 0.01, 100);
    this.sun = new T.DirectionalLight(0xfff4e5, 2.6);
    this.sky = new T.HemisphereLight(0xffffff, 0x8d8d8d, 2.4);
    this.camera.add(this.sun);
    this.sun.position.set(-1.2, 1.6, 1);
    this.scene.add(this.camera, this.sky);
    this.control(T);
    this.resized = new ResizeObserver(() => this.size());
    this.resized.observe(this.canvas.parentElement);
    const canvas = this.canvas, model = await this.fetchModel(T);
    if (canvas === this.canvas) this.show(model);  // else another file was asked for meanwhile
  }

  control(T) {
    const controls = this.controls = new T.OrbitControls(this.camera, this.canvas);
    this.canvas.style.touchAction = 'pan-y';  // a finger that moves up or down scrolls the page
    controls.enableZoom = false;  // the wheel scrolls the page until somebody is at the model
    controls.addEventListener('change', () => this.draw());
    this.canvas.addEventListener('focus', () => { controls.enableZoom = true; });
    this.canvas.addEventListener('blur', () => { controls.enableZoom = false; });
    this.canvas.addEventListener('keydown', (e) => {
      const turn = { ArrowLeft: [-TURN, 0], ArrowRight: [TURN, 0], ArrowUp: [0, -TURN], ArrowDown: [0, TURN] }[e.key];
      const zoom = { '+': 1 / ZOOM, '=': 1 / ZOOM, '-': ZOOM }[e.key];
      if (!turn && !zoom) return;
      e.preventDefault();
      const at = new T.Spherical().setFromVector3(this.camera.position.clone().sub(controls.target));
      if (turn) { at.theta += turn[0]; at.phi += turn[1]; }
      at.radius *= zoom || 1;
      this.camera.position.setFromSpherical(at.makeSafe()).add(controls.target);
      controls.update();
      this.draw();
    });
  }

  async fetchModel(T) {
    const src = this.getAttribute('src'), bar = this.querySelector('.loading i');
    const progress = (e) => { if (e.total) bar.style.width = `${100 * e.loaded / e.total}%`; };
    if (src.endsWith('.stl')) {
      const geometry = await new T.STLLoader().loadAsync(src, progress);
      geometry.rotateX(-Math.PI / 2);  // prints are Z up
      return new T.Mesh(geometry, new T.MeshStandardMaterial({ color: 0xb9b9b4, roughness: 0.65 }));
    }
    const loader = new T.GLTFLoader();
    loader.setMeshoptDecoder(T.MeshoptDecoder);
    return (await loader.loadAsync(src, progress)).scene;
  }

  show(model) {
    const T = this.T, meshes = [];
    if (!this.renderer) return;
    model.traverse((node) => { if (node.isMesh) meshes.push(node); });
    let faces = 0;
    this.meshes = meshes.map((mesh) => {
      const own = mesh.material, geometry = mesh.geometry;
      faces += (geometry.index ? geometry.index.count : geometry.attributes.position.count) / 3;
      const shape = { normalMap: own.normalMap, side: own.side, flatShading: !geometry.attributes.normal };
      if (own.normalMap) shape.normalScale = own.normalScale;
      const materials = {
        material: own,
        clay: new T.MeshStandardMaterial({ ...shape, color: 0xc9c5bd, roughness: 0.8 }),
        normals: new T.MeshNormalMaterial(shape),
      };
      for (const material of Object.values(materials)) {
        Object.assign(material, { polygonOffset: true, polygonOffsetFactor: 1, polygonOffsetUnits: 1 });
      }
      const wires = new T.Mesh(geometry, new T.MeshBasicMaterial({ wireframe: true, color: 0x1d5950 }));
      mesh.add(wires);
      return { mesh, wires, materials };
    });
    this.ball = new T.Box3().setFromObject(model).getBoundingSphere(new T.Sphere());
    this.scene.add(model);
    this.querySelector('.loading')?.remove();
    this.dataset.faces = Math.round(faces);
    this.look();
    this.size();
    this.frame();
    this.dataset.ready = '';
  }

  frame() {
    if (!this.ball) return;
    const { center, radius } = this.ball, { camera, controls } = this;
    const far = radius / Math.sin(camera.fov * Math.PI / 360) / Math.min(1, camera.aspect);
    camera.near = far / 100;
    camera.far = far * 20;
    controls.minDistance = radius * 1.1;
    controls.maxDistance = far * 4;
    controls.target.copy(center);
    camera.position.set(0.35, 0.3, 1).normalize().multiplyScalar(far * 1.02).add(center);
    camera.updateProjectionMatrix();
    controls.update();
    this.draw();
  }

  look(name, value) {
    if (name) chosen[name] = value;
    if (!this.meshes) return;
    const T = this.T, { light, background, surface, wireframe } = chosen;
    this.scene.background = background in COLOURS ? new T.Color(COLOURS[background]) : null;
    this.scene.environment = light === 'soft' ? null : this.room;
    this.scene.environmentIntensity = light === 'sun' ? 0.35 : 1;
    this.sun.visible = light === 'sun';
    this.sky.visible = light === 'soft';
    for (const { mesh, wires, materials } of this.meshes) {
      mesh.material = materials[surface];
      wires.visible = wireframe;
    }
    this.draw();
  }

  size() {
    const { clientWidth: width, clientHeight: height } = this.canvas.parentElement;
    if (!this.renderer || !width || !height) return;
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
    this.draw();
  }

  draw() {
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => {
      this.drawing = 0;
      if (this.renderer) this.renderer.render(this.scene, this.camera);
    });
  }
}

customElements.define('asset-viewer', AssetViewer);
