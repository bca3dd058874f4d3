// The viewer of stills, and the switch between light and dark; everything else is Gradio's.
(() => {
  const draw = (el) => {
    const view = el.querySelector('.view'), n = +el.dataset.views, modes = +el.dataset.modes;
    const x = ((+el.dataset.x % n) + n) % n, y = +el.dataset.y;
    view.style.backgroundSize = `${n * 100}% ${modes * 100}%`;
    view.style.backgroundPosition = `${n > 1 ? x * 100 / (n - 1) : 0}% ${modes > 1 ? y * 100 / (modes - 1) : 0}%`;
    el.querySelectorAll('.modes button').forEach((b, i) => b.setAttribute('aria-pressed', i === y));
  };
  const turn = (el, by) => { el.dataset.x = +el.dataset.x + by; draw(el); };
  let held = null;
  addEventListener('pointerdown', (e) => {
    const el = e.target.closest && e.target.closest('.stills .view');
    if (el) held = { el: el.parentElement, x: e.clientX };
  });
  addEventListener('pointermove', (e) => {
    if (held && Math.abs(e.clientX - held.x) > 36) { turn(held.el, e.clientX > held.x ? -1 : 1); held.x = e.clientX; }
  });
  addEventListener('pointerup', () => { held = null; });
  addEventListener('keydown', (e) => {
    const el = e.target.closest && e.target.closest('.stills .view');
    if (el && (e.key === 'ArrowLeft' || e.key === 'ArrowRight')) {
      turn(el.parentElement, e.key === 'ArrowRight' ? 1 : -1); e.preventDefault();
    }
  });
  addEventListener('click', (e) => {
    const mode = e.target.closest && e.target.closest('.modes button');
    if (mode) { const el = mode.closest('.stills'); el.dataset.y = mode.dataset.mode; draw(el); }
    if (e.target.closest && e.target.closest('#theme-switch')) {
      const dark = document.body.classList.toggle('dark');
      try { localStorage.setItem('trellis2-theme', dark ? 'dark' : 'light'); } catch (_) {}
    }
  });
  addEventListener('DOMContentLoaded', () => {
    let wish = null;
    try { wish = localStorage.getItem('trellis2-theme'); } catch (_) {}
    if (wish && !new URLSearchParams(location.search).has('__theme')) {
      document.body.classList.toggle('dark', wish === 'dark');
    }
  });
})();
