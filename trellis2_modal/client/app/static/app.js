// Turning the stills, light and dark, and where the page looks; the rest is Gradio's.
(() => {
  const near = (event, selector) => event.target.closest && event.target.closest(selector);

  // --- stills: a sheet of views (columns) and render modes (rows) ---
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
    const el = near(e, '.stills .view');
    if (el) held = { el: el.parentElement, x: e.clientX };
  });
  addEventListener('pointermove', (e) => {
    if (held && Math.abs(e.clientX - held.x) > 30) {
      turn(held.el, e.clientX > held.x ? -1 : 1);
      held.x = e.clientX;
    }
  });
  for (const end of ['pointerup', 'pointercancel']) addEventListener(end, () => { held = null; });
  addEventListener('keydown', (e) => {
    const el = near(e, '.stills .view');
    if (el && (e.key === 'ArrowLeft' || e.key === 'ArrowRight')) {
      turn(el.parentElement, e.key === 'ArrowRight' ? 1 : -1);
      e.preventDefault();
    }
  });

  // --- light or dark as it was chosen; the system's own while nothing was ---
  let wish = new URLSearchParams(location.search).get('__theme');
  try { wish = wish || localStorage.getItem('trellis2-theme'); } catch (_) { /* private window */ }
  const shade = () => {
    const dark = document.body.classList.contains('dark');
    if ((wish === 'dark' && !dark) || (wish === 'light' && dark)) document.body.classList.toggle('dark');
  };

  // --- clicks ---
  const narrow = () => innerWidth <= 700;
  const showResults = () => setTimeout(() => {
    const el = document.querySelector('#results');
    if (el && (narrow() || el.getBoundingClientRect().top < 0)) el.scrollIntoView({ behavior: 'smooth', block: 'start' });
  }, 350);
  const showForm = () => setTimeout(() => {
    if (narrow()) document.querySelector('#inputs')?.scrollIntoView({ behavior: 'smooth', block: 'start' });
  }, 350);
  addEventListener('click', (e) => {
    const mode = near(e, '.modes button');
    if (mode) {
      const el = mode.closest('.stills');
      el.dataset.y = mode.dataset.mode;
      draw(el);
    }
    const matte = near(e, '.matte');
    if (matte) matte.setAttribute('aria-expanded', matte.getAttribute('aria-expanded') !== 'true');
    if (near(e, '#theme-switch')) {
      wish = document.body.classList.contains('dark') ? 'light' : 'dark';
      try { localStorage.setItem('trellis2-theme', wish); } catch (_) { /* private window */ }
      shade();
    }
    if (near(e, '#generate, #texture, [data-action=open], [data-action=view]')) showResults();
    if (near(e, '[data-action=reuse], [data-action=reuse-mesh]')) showForm();
  });

  // --- the progress in the tab's title ---
  const begin = () => {
    shade();
    // Gradio sets the shade of the system when it starts, which may be later than this
    new MutationObserver(shade).observe(document.body, { attributes: true, attributeFilter: ['class'] });
    const name = 'TRELLIS.2';
    setInterval(() => {
      const bar = document.querySelector('#progress [role=progressbar]');
      const title = bar ? `${bar.getAttribute('aria-valuenow')} % · ${name}` : name;
      if (document.title !== title) document.title = title;
    }, 1000);
  };
  // Gradio may add this script to a page that is already there
  if (document.readyState === 'loading') addEventListener('DOMContentLoaded', begin);
  else begin();
})();
