// History: which entries are selected, renaming in place, and the address of what is shown.
(() => {
  const near = (event, selector) => event.target.closest && event.target.closest(selector);
  const pane = () => document.querySelector('#history');
  const selected = new Set();

  // --- selection: kept here, for the cards are sent anew with every change ---
  const write = (el, words) => { if (el.textContent !== words) el.textContent = words; };  // else it never ends
  const paint = () => {
    const cards = [...pane().querySelectorAll('[data-entry]')];
    const here = new Set(cards.map((card) => card.dataset.entry));
    for (const id of selected) if (!here.has(id)) selected.delete(id);
    for (const card of cards) {
      const on = selected.has(card.dataset.entry);
      card.querySelector('.pick input').checked = on;
      card.classList.toggle('picked', on);
    }
    const bar = pane().querySelector('.selection');
    if (!bar) return;
    const ids = [...selected].join(' ');
    const all = bar.querySelector('[data-all]'), count = bar.querySelector('[data-count]');
    all.checked = selected.size > 0 && selected.size === cards.length;
    all.indeterminate = selected.size > 0 && !all.checked;
    write(count, selected.size ? `${selected.size} selected` : '');
    for (const button of bar.querySelectorAll('[data-selected]')) {
      button.dataset.target = ids;
      const needed = +button.dataset.selected;
      button.disabled = needed === 2 ? selected.size !== 2 : selected.size < 1;
    }
    const link = bar.querySelector('[data-download]');
    write(link, selected.size ? 'Download' : 'Download all');
    link.href = selected.size ? `/history.zip?ids=${encodeURIComponent(ids)}` : '/history.zip';
  };
  addEventListener('change', (e) => {
    const all = near(e, '#history [data-all]'), card = near(e, '#history .pick');
    if (!all && !card) return;
    const cards = all ? [...pane().querySelectorAll('[data-entry]')] : [card.closest('[data-entry]')];
    for (const each of cards) selected[e.target.checked ? 'add' : 'delete'](each.dataset.entry);
    paint();
  });

  // --- a name is changed where it stands ---
  const rename = (button) => {
    const title = button.closest('.title'), strong = title.querySelector('strong');
    const send = title.querySelector('[data-action=rename]'), input = document.createElement('input');
    input.value = strong.textContent;
    input.maxLength = 80;
    input.setAttribute('aria-label', 'New name');
    strong.replaceWith(input);
    input.focus();
    input.setSelectionRange(0, input.value.lastIndexOf('.') > 0 ? input.value.lastIndexOf('.') : input.value.length);
    let over = false;
    const end = (keep) => {
      if (over) return;
      over = true;
      const wanted = input.value.trim();
      input.replaceWith(strong);
      if (!keep || !wanted || wanted === strong.textContent) return;
      strong.textContent = wanted;
      send.dataset.target = `${button.dataset.rename} ${wanted}`;
      send.click();
    };
    input.addEventListener('keydown', (e) => {
      if (e.key === 'Enter') end(true);
      if (e.key === 'Escape') end(false);
    });
    input.addEventListener('blur', () => end(true));
  };
  addEventListener('click', (e) => {
    const button = near(e, '#history [data-rename]');
    if (button) rename(button);
  });

  // --- the address: what is shown, and the tab that was opened ---
  const go = (query) => {
    const now = new URLSearchParams(location.search), next = new URLSearchParams(query);
    const theme = now.get('__theme');
    if (theme) next.set('__theme', theme);
    if (next.toString() !== now.toString()) history.pushState(null, '', next.toString() ? `?${next}` : location.pathname);
  };
  const mainTab = (selector = '') =>
    document.querySelector(`#main-tabs > .tab-wrapper [role=tab]${selector}, #main-tabs [role=tablist] [role=tab]${selector}`);
  let told = null;
  const follow = () => {
    const found = document.querySelector('[data-address]');
    if (!found || found.dataset.address === told) return;
    const first = told === null;
    told = found.dataset.address;
    // what is shown may change, or arrive late, while another tab is open: that one keeps its address
    const tab = (mainTab('[aria-selected=true]') || mainTab())?.textContent.trim().toLowerCase();
    const elsewhere = tab !== 'create' && new URLSearchParams(location.search).get('tab') === tab;
    if ((!first || told) && (!elsewhere || told.startsWith('compare='))) go(told);
  };
  addEventListener('click', (e) => {
    const opener = near(e, '[data-action=open]');
    if (opener) go(`asset=${opener.dataset.target}`);
  });
  addEventListener('click', (e) => {
    const tab = near(e, '#main-tabs > .tab-wrapper [role=tab], #main-tabs [role=tablist] [role=tab]');
    if (!tab || tab.closest('#result-tabs, #input-tabs')) return;
    const name = tab.textContent.trim().toLowerCase();
    go(name === 'create' ? told || '' : `tab=${name}`);
  });
  const begin = () => new MutationObserver(() => {
    follow();
    if (pane()) paint();
  }).observe(document.body, { childList: true, subtree: true, attributes: true, attributeFilter: ['data-address'] });
  if (document.readyState === 'loading') addEventListener('DOMContentLoaded', begin);
  else begin();
})();
