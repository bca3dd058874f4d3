// The panel in which a cut-out is corrected: paint what is kept and removed, draw a box, try another cut.
// What was done is a list, so that each step can be taken back; the app cuts anew after each.
const SIDE = 1024;
const COLOURS = { keep: '#1f9d6b', remove: '#d1495b' };
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const HELP = 'Arrow keys move the brush, Space puts it down and lifts it again.';
const remembered = new Map();  // what was done to a picture, for when the panel is opened again

const PANEL = `<h2 id="correct-title">Correct the cut-out</h2>
<p class="muted">What is dimmed is removed. Paint over what is wrong, or draw a box around the object.</p>
<div class="tools">
  <div class="tools" role="group" aria-label="Tool">
    <button type="button" class="plain" data-tool="keep">Keep</button>
    <button type="button" class="plain" data-tool="remove">Remove</button>
    <button type="button" class="plain" data-tool="box">Box</button>
  </div>
  <label>Brush size <input type="range" min="8" max="160" value="40" step="4"></label>
</div>
<canvas tabindex="0" role="application" aria-label="The picture. ${HELP}"></canvas>
<p class="hint" role="status"></p>
<div class="tools">
  <button type="button" class="plain" data-do="another">Try another cut</button>
  <button type="button" class="plain" data-do="undo">Undo</button>
  <button type="button" class="plain" data-do="reset">Start over</button>
</div>
<div class="tools end">
  <button type="button" class="plain" data-do="close">Cancel</button>
  <button type="button" class="main" data-do="use">Use this cut-out</button>
</div>`;

const loaded = (address) => new Promise((resolve, reject) => {
  const image = new Image();
  image.onload = () => resolve(image);
  image.onerror = () => reject(new Error(address));
  image.src = address;
});

class Panel {
  constructor(token) {
    this.token = token;
    this.done = remembered.get(token) || [];
    this.tool = 'keep';
    this.drawn = 0;  // how many of the steps the shown cut-out knows
    this.stroke = null;
    this.dialog = document.createElement('dialog');
    this.dialog.className = 'correct';
    this.dialog.setAttribute('aria-labelledby', 'correct-title');
    this.dialog.innerHTML = PANEL;
    this.canvas = this.dialog.querySelector('canvas');
    this.hint = this.dialog.querySelector('.hint');
    this.size = this.dialog.querySelector('input');
    this.choose('keep');
    this.wire();
  }

  async open() {
    (document.querySelector('.gradio-container .contain') || document.body).append(this.dialog);
    this.dialog.showModal();
    try {
      this.image = await loaded(`/received/${this.token}`);
    } catch (_) {
      this.say('The picture is no longer here. Choose it again.', true);
      return;
    }
    const scale = Math.min(1, SIDE / Math.max(this.image.naturalWidth, this.image.naturalHeight));
    this.canvas.width = Math.max(1, Math.round(this.image.naturalWidth * scale));
    this.canvas.height = Math.max(1, Math.round(this.image.naturalHeight * scale));
    this.cursor = [this.canvas.width / 2, this.canvas.height / 2];
    this.cut();
  }

  wire() {
    this.dialog.addEventListener('close', () => this.dialog.remove());
    this.dialog.addEventListener('click', (e) => {
      const button = e.target.closest('button');
      if (!button) return;
      if (button.dataset.tool) this.choose(button.dataset.tool);
      else this[button.dataset.do]();
    });
    const canvas = this.canvas;
    canvas.addEventListener('pointerdown', (e) => {
      if (!this.image || e.button) return;
      canvas.setPointerCapture(e.pointerId);
      this.cursor = this.at(e);
      this.begin();
    });
    canvas.addEventListener('pointermove', (e) => {
      if (!this.image) return;
      this.cursor = this.at(e);
      this.go();
    });
    canvas.addEventListener('pointerup', () => this.end());
    canvas.addEventListener('pointercancel', () => { this.stroke = null; this.draw(); });
    canvas.addEventListener('keydown', (e) => this.key(e));
    canvas.addEventListener('focus', () => this.draw());
    canvas.addEventListener('blur', () => { this.end(); this.draw(); });
  }

  at(e) {
    const box = this.canvas.getBoundingClientRect();
    return [(e.clientX - box.left) * this.canvas.width / box.width, (e.clientY - box.top) * this.canvas.height / box.height];
  }

  key(e) {
    if (!this.image) return;
    if (e.key === ' ' || e.key === 'Enter') {
      if (this.stroke) this.end();
      else this.begin();
    } else if (KEYS[e.key]) {
      const step = Math.max(4, this.brush() / 2) * (e.shiftKey ? 4 : 1);
      const limits = [this.canvas.width, this.canvas.height];
      this.cursor = this.cursor.map((v, i) => Math.min(limits[i], Math.max(0, v + KEYS[e.key][i] * step)));
      this.go();
    } else return;
    e.preventDefault();
  }

  brush() { return +this.size.value * this.canvas.width / (this.canvas.clientWidth || this.canvas.width); }

  choose(tool) {
    this.end();
    this.tool = tool;
    this.dialog.querySelectorAll('[data-tool]').forEach((b) => b.setAttribute('aria-pressed', b.dataset.tool === tool));
    this.size.disabled = tool === 'box';
  }

  begin() {
    this.stroke = { kind: this.tool, size: this.brush(), points: [this.cursor] };
    this.draw();
  }

  go() {
    if (this.stroke && this.stroke.kind === 'box') this.stroke.points[1] = this.cursor;
    else if (this.stroke) this.stroke.points.push(this.cursor);
    this.draw();
  }

  end() {
    const stroke = this.stroke;
    this.stroke = null;
    if (!stroke) return;
    if (stroke.kind === 'box') {
      const [a, b = a] = stroke.points, { width, height } = this.canvas;
      const share = (v, side) => Math.min(1, Math.max(0, v / side));
      const x = [a[0], b[0]].map((v) => share(v, width)).sort((p, q) => p - q);
      const y = [a[1], b[1]].map((v) => share(v, height)).sort((p, q) => p - q);
      if (x[1] - x[0] < 0.02 || y[1] - y[0] < 0.02) {
        this.say('Draw the box from one corner to the other.');
        this.draw();
        return;
      }
      stroke.box = [x[0], y[0], x[1], y[1]];
    }
    this.done.push(stroke);
    this.cut();
  }

  another() {
    this.done.push({ kind: 'attempt', attempt: this.attempt() + 1 });
    this.cut(this.name);
  }

  undo() {
    if (!this.done.length) { this.say('There is nothing to undo.'); return; }
    this.done.pop();
    this.cut();
  }

  reset() { this.done = []; this.cut(); }

  close() { this.dialog.close(); }

  use() {
    if (!this.name || this.busy) return;
    remembered.set(this.token, this.done);
    document.querySelector('#matte [data-cutout]').dispatchEvent(
      new CustomEvent('corrected', { bubbles: true, detail: this.name }));
    this.dialog.close();
  }

  last(kind) { return this.done.filter((step) => step.kind === kind).pop(); }

  attempt() { return this.last('attempt')?.attempt || 1; }

  paint(ctx, steps, colours) {
    ctx.lineCap = ctx.lineJoin = 'round';
    for (const { kind, size, points } of steps.filter((step) => COLOURS[step.kind])) {
      ctx.strokeStyle = colours[kind];
      ctx.lineWidth = size;
      ctx.beginPath();
      ctx.moveTo(...points[0]);
      for (const point of points) ctx.lineTo(...point);
      ctx.stroke();
    }
  }

  async trimap() {
    if (!this.last('keep') && !this.last('remove')) return undefined;
    const sheet = document.createElement('canvas'), ctx = sheet.getContext('2d');
    Object.assign(sheet, { width: this.canvas.width, height: this.canvas.height });
    ctx.fillStyle = '#808080';
    ctx.fillRect(0, 0, sheet.width, sheet.height);
    this.paint(ctx, this.done, { keep: '#fff', remove: '#000' });
    return new Promise((resolve) => { sheet.toBlob(resolve, 'image/png'); });
  }

  // one request at a time; what was done meanwhile goes along with the next
  async cut(other) {
    this.draw();
    if (this.busy) { this.again = true; return; }
    this.setBusy(true);
    do {
      this.again = false;
      await this.ask(other);
      other = undefined;
    } while (this.again && this.dialog.open);
    this.setBusy(false);
  }

  setBusy(busy) {
    this.busy = busy;
    this.dialog.toggleAttribute('data-busy', busy);
    this.dialog.querySelector('[data-do=use]').disabled = busy || !this.name;
    this.dialog.querySelector('[data-do=another]').disabled = busy;
  }

  async ask(other) {
    this.say('Cutting out ...');
    const steps = this.done.length, query = new URLSearchParams({ attempt: this.attempt() });
    const box = this.last('box');
    if (box) query.set('box', box.box.join());
    if (other) query.set('other', other);
    try {
      const reply = await fetch(`/cutout/${this.token}?${query}`, { method: 'POST', body: await this.trimap() });
      const found = await reply.json();
      if (found.said) { this.say(found.said, true); return; }
      this.shown = await loaded(found.address);
      this.name = found.address.split('/').pop();
      if (other) this.last('attempt').attempt = found.attempt;
      this.drawn = steps;
      this.say(found.words, found.doubt);
    } catch (_) {
      this.say('The app does not answer. Is it still running?', true);
    }
    this.draw();
  }

  say(words, warn = false) {
    this.hint.classList.toggle('warn', warn);
    this.hint.textContent = words;
  }

  draw() {
    if (!this.image) return;
    const { canvas } = this, { width, height } = canvas, ctx = canvas.getContext('2d');
    ctx.clearRect(0, 0, width, height);
    ctx.globalAlpha = 0.28;
    ctx.drawImage(this.image, 0, 0, width, height);
    ctx.globalAlpha = 1;
    if (this.shown) ctx.drawImage(this.shown, 0, 0, width, height);
    ctx.globalAlpha = 0.55;
    this.paint(ctx, [...this.done.slice(Math.min(this.drawn, this.done.length)), ...(this.stroke ? [this.stroke] : [])], COLOURS);
    ctx.globalAlpha = 1;
    const unit = width / (canvas.clientWidth || width);
    const outline = (path) => {
      for (const [colour, dash] of [['#fff', []], ['#111', [6 * unit, 6 * unit]]]) {
        ctx.strokeStyle = colour;
        ctx.lineWidth = 2 * unit;
        ctx.setLineDash(dash);
        ctx.beginPath();
        path();
        ctx.stroke();
      }
      ctx.setLineDash([]);
    };
    const box = this.last('box')?.box, live = this.stroke?.kind === 'box' && this.stroke.points;
    if (live && live[1]) outline(() => ctx.rect(live[0][0], live[0][1], live[1][0] - live[0][0], live[1][1] - live[0][1]));
    else if (box) outline(() => ctx.rect(box[0] * width, box[1] * height, (box[2] - box[0]) * width, (box[3] - box[1]) * height));
    if (document.activeElement === canvas) {
      const radius = this.tool === 'box' ? 6 * unit : this.brush() / 2;
      outline(() => ctx.arc(...this.cursor, radius, 0, 2 * Math.PI));
    }
  }
}

addEventListener('click', (e) => {
  const button = e.target.closest?.('[data-cutout]');
  if (button) new Panel(button.dataset.cutout).open();
});
