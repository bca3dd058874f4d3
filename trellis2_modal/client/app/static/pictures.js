// Pictures and meshes: dropped anywhere, pasted, chosen or taken with a camera. Each file is sent as it is; the app
// answers, and says which of them it is.
(() => {
  const MOST = 24;
  const TEXT = 'input:not([type=file]), textarea';
  const MAIN = '#picture [data-slot], #texture-pictures [data-slot]';
  const main = () => [...document.querySelectorAll(MAIN)].find((slot) => slot.checkVisibility())
    || document.querySelector('#picture [data-slot]');
  const slotOf = (target) => (target.closest && target.closest('[data-slot]')) || main();

  const send = async (file, slot) => {
    const name = encodeURIComponent(file.name || 'picture.png');
    try {
      const reply = await fetch(`/received?name=${name}&slot=${slot}`, { method: 'POST', body: file });
      return await reply.json();
    } catch (_) {
      return { said: `“${file.name}” could not be sent: the app does not answer. Is it still running?` };
    }
  };

  // the tab's panes are made when it is first opened: then they look for what was dropped before
  const openMeshTab = (meshes, tell) => {
    const pane = document.querySelector('[data-slot=mesh]');
    if (pane) { tell(pane, meshes); return; }
    window.droppedMesh = JSON.stringify(meshes);
    [...document.querySelectorAll('#input-tabs [role=tab]')].find((tab) => tab.innerText.includes('mesh'))?.click();
  };

  const take = async (slot, files, said = []) => {
    if (!slot) return;
    const found = { slot: slot.dataset.slot, tokens: [], said };
    const meshes = slot.matches('[data-slot=mesh], [data-slot=look]') ? found : { slot: 'mesh', tokens: [], said: [] };
    if (files.length > MOST) said.push(`At most ${MOST} files are taken at once; the rest were left out.`);
    slot.dataset.busy = files.length > 1 ? `Reading ${Math.min(files.length, MOST)} files` : 'Reading the file';
    for (const file of files.slice(0, MOST)) {
      const reply = await send(file, slot.dataset.slot);
      if (reply.token) (reply.kind === 'mesh' ? meshes : found).tokens.push(reply.token);
      for (const words of reply.notes || []) said.push(words);
      if (reply.said) said.push(reply.said);
    }
    delete slot.dataset.busy;
    const tell = (to, what) => to.dispatchEvent(
      new CustomEvent('received', { bubbles: true, detail: JSON.stringify(what) }));
    if (meshes !== found && meshes.tokens.length) openMeshTab(meshes, tell);
    if (meshes === found || found.tokens.length || said.length) tell(slot, found);
  };

  // --- chosen ---
  addEventListener('change', (e) => {
    if (!e.target.matches || !e.target.matches('[data-slot] input[type=file]')) return;
    take(slotOf(e.target), [...e.target.files]);
    e.target.value = '';
  });

  // --- dropped, anywhere on the page ---
  const carries = (e) => [...((e.dataTransfer && e.dataTransfer.types) || [])].some((t) => t === 'Files' || t === 'text/uri-list');
  let over = 0;
  const mark = () => {
    for (const slot of document.querySelectorAll('[data-slot]')) slot.classList.toggle('dropping', over > 0);
  };
  addEventListener('dragenter', (e) => { if (carries(e)) { over += 1; mark(); } });
  addEventListener('dragleave', (e) => { if (carries(e)) { over = Math.max(0, over - 1); mark(); } });
  addEventListener('dragover', (e) => {
    if (!carries(e)) return;
    e.preventDefault();
    e.dataTransfer.dropEffect = 'copy';
  });
  const ownPicture = async (data) => {
    const link = data.getData('text/uri-list').split('\n').find((line) => line && !line.startsWith('#'));
    if (!link || !URL.canParse(link) || new URL(link).origin !== location.origin) return null;
    const reply = await fetch(link);
    const name = decodeURIComponent(new URL(link).pathname.split('/').pop());
    return reply.ok ? new File([await reply.blob()], name) : null;
  };
  addEventListener('drop', async (e) => {
    if (!carries(e)) return;
    e.preventDefault();
    over = 0;
    mark();
    const slot = slotOf(e.target), said = [], files = [];
    for (const item of e.dataTransfer.items) {
      const entry = item.webkitGetAsEntry && item.webkitGetAsEntry();
      if (entry && entry.isDirectory) said.push(`“${entry.name}” is a folder. Drop the pictures in it.`);
      else if (item.kind === 'file') files.push(item.getAsFile());
    }
    if (!files.length && !said.length) {
      const own = await ownPicture(e.dataTransfer).catch(() => null);
      if (own) files.push(own);
      else said.push('A link was dropped, not a picture. Save the picture first, or copy it and paste it here.');
    }
    take(slot, files, said);
  });

  // --- pasted, but into a text field ---
  addEventListener('paste', (e) => {
    if (!e.clipboardData || (e.target.matches && e.target.matches(TEXT))) return;
    const files = [...e.clipboardData.files];
    if (!files.length) return;
    e.preventDefault();
    take(main(), files.map((f) => (f.name === 'image.png' ? new File([f], 'pasted picture.png') : f)));
  });

  // --- taken with a camera ---
  const photograph = async (slot) => {
    const dialog = document.createElement('dialog');
    dialog.className = 'camera';
    dialog.innerHTML = '<video autoplay playsinline muted aria-label="Camera"></video><div class="under">'
      + '<button type="button" class="main" value="take">Take the photo</button>'
      + '<button type="button" class="plain" value="">Cancel</button></div>';
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { width: 1920, facingMode: 'environment' } });
    } catch (_) {
      take(slot, [], ['The camera cannot be used. Allow it for this page, or choose a file.']);
      return;
    }
    const video = dialog.querySelector('video');
    video.srcObject = stream;
    video.style.cssText = 'display: block; max-width: 100%; max-height: 70vh; margin: 0 auto 12px';
    (document.querySelector('.gradio-container .contain') || document.body).append(dialog);
    dialog.addEventListener('close', () => { stream.getTracks().forEach((t) => t.stop()); dialog.remove(); });
    dialog.addEventListener('click', (e) => {
      const button = e.target.closest('button');
      if (!button) return;
      if (button.value) {
        const canvas = document.createElement('canvas');
        canvas.width = video.videoWidth;
        canvas.height = video.videoHeight;
        canvas.getContext('2d').drawImage(video, 0, 0);
        canvas.toBlob((blob) => take(slot, [new File([blob], 'photo.jpg')]), 'image/jpeg', 0.95);
      }
      dialog.close();
    });
    dialog.showModal();
  };
  addEventListener('click', (e) => {
    const button = e.target.closest && e.target.closest('[data-camera]');
    if (button) photograph(slotOf(button));
  });
})();
