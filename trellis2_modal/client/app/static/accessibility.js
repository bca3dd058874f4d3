// What Gradio's components lack for keyboards and screen readers, put right whenever the page has changed:
// groups of radio buttons with one name and arrow keys, the state of folds, tabs that name nothing, one stop of the
// Tab key for a row of pictures, and a live region that says what happens to a job.
(() => {
  const all = (selector) => document.querySelectorAll(selector);
  const set = (el, name, value) => { if (el.getAttribute(name) !== value) el.setAttribute(name, value); };
  let counter = 0;

  const radios = () => all('fieldset:has(input[type=radio])').forEach((group) => {
    const title = group.querySelector('[data-testid=block-info]'), info = group.querySelector('.info-text');
    group.dataset.group ||= `group-${counter += 1}`;
    set(group, 'role', 'radiogroup');
    if (title) { title.id ||= `${group.dataset.group}-title`; set(group, 'aria-labelledby', title.id); }
    if (info) { info.id ||= `${group.dataset.group}-info`; set(group, 'aria-describedby', info.id); }
    group.querySelectorAll('input[type=radio]').forEach((input) => {
      set(input, 'name', group.dataset.group);  // Gradio gives each a name of its own: no arrow key moves
      input.removeAttribute('aria-checked');
    });
  });

  const folds = () => all('button.label-wrap').forEach((button) => {
    set(button, 'aria-expanded', String(button.classList.contains('open')));
    button.querySelectorAll('.icon').forEach((icon) => set(icon, 'aria-hidden', 'true'));
  });

  // --- a row is one stop of Tab; arrow keys move in it ---
  const ROWS = [['[role=tablist]', '[role=tab]', '[aria-selected=true]'], ['.thumbs', '.thumb', '[aria-pressed=true]']];
  const rows = () => {
    for (const [row, item, current] of ROWS) {
      all(row).forEach((el) => {
        const items = [...el.querySelectorAll(item)];
        const stop = items.find((i) => i === document.activeElement) || items.find((i) => i.matches(current)) || items[0];
        items.forEach((i) => {
          set(i, 'tabindex', i === stop ? '0' : '-1');
          if (i.getAttribute('aria-controls') === '') i.removeAttribute('aria-controls');
        });
      });
    }
  };
  addEventListener('keydown', (e) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[e.key];
    if (!by || !e.target.matches?.('[role=tab], .thumb')) return;
    const [row, item] = ROWS.find((kind) => e.target.matches(kind[1]));
    const items = [...e.target.closest(row).querySelectorAll(item)];
    const next = items[(items.indexOf(e.target) + by + items.length) % items.length];
    next.focus();
    if (next.matches('[role=tab]')) next.click();
    e.preventDefault();
    rows();
  });

  // --- a variant that was chosen keeps the focus when its row is sent anew ---
  let held = null;
  addEventListener('focusin', (e) => { held = e.target.closest?.('.variants') ? e.target.dataset.target : null; });
  addEventListener('pointerdown', (e) => { if (!e.target.closest?.('.variants')) held = null; });
  const refocus = () => {
    if (held && document.activeElement === document.body) document.querySelector(`[data-target="${held}"]`)?.focus();
  };

  const uploads = () => all('button.upload-container, .upload-container > button').forEach((button) => {
    if (button.innerText.trim()) button.removeAttribute('aria-label');  // it has other words than those one sees
  });

  // --- what happens, in words: each once ---
  let live = null, said = '', working = '';
  const tell = () => {
    const title = document.querySelector('#progress .card h2')?.innerText || '';
    const failure = document.querySelector('#model [role=alert] h2')?.innerText || '';
    const name = document.querySelector('#progress [role=progressbar]')?.getAttribute('aria-label') || working;
    const words = title ? `${name}: ${title}` : working && `${working}: ${failure || 'finished'}`;
    working = title ? name : '';
    if (words && words !== said) live.textContent = said = words;
  };

  let waiting = false;
  const mend = () => {
    waiting = false;
    radios(); folds(); rows(); uploads(); refocus(); tell();
  };
  const begin = () => {
    live = document.createElement('div');
    live.id = 'live';
    live.className = 'unseen';
    live.setAttribute('role', 'status');
    document.body.append(live);
    const changed = () => { if (!waiting) { waiting = true; requestAnimationFrame(mend); } };
    new MutationObserver(changed).observe(document.body, {
      childList: true, subtree: true, attributes: true, attributeFilter: ['class', 'aria-selected', 'aria-pressed'],
    });
    mend();
  };
  if (document.readyState === 'loading') addEventListener('DOMContentLoaded', begin);
  else begin();
})();
