"""How the app looks: system fonts, two calm palettes, one accent; nothing is fetched from elsewhere."""

from __future__ import annotations

from typing import Any

from .file_routes import STATIC

FONTS = ("Inter", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONOSPACE = ("ui-monospace", "SF Mono", "Cascadia Mono", "Menlo", "Consolas", "monospace")


def make_theme() -> Any:
    """The Gradio theme."""
    from gradio.themes import Base, Color, Size

    accent = Color(
        "#eef7f5", "#d5ece7", "#abd9cf", "#7cc1b3", "#4ba596", "#2f8a7b", "#236f63", "#1d5950", "#194841",
        "#153b36", "#0b2320", name="sea",
    )  # fmt: skip
    ink = Color(
        "#f8f8f7", "#f1f1ef", "#e4e4e1", "#cfcfcb", "#a3a39e", "#74746f", "#56565a", "#3c3d42", "#26272b",
        "#1b1c1f", "#121315", name="ink",
    )  # fmt: skip
    radius = Size(name="soft", xxs="3px", xs="4px", sm="6px", md="9px", lg="12px", xl="14px", xxl="18px")
    return Base(
        primary_hue=accent, secondary_hue=accent, neutral_hue=ink, radius_size=radius, font=FONTS,
        font_mono=MONOSPACE,
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_800",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_400",
        block_title_text_weight="500",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        input_background_fill="*neutral_50",
        input_background_fill_dark="*neutral_800",
        slider_color="*primary_500",
        slider_color_dark="*primary_400",
    )  # fmt: skip


SCRIPTS, MODULES = ("app.js", "pictures.js", "history.js"), ("viewer.js", "accessibility.js", "cutout.js")
CSS = sorted(STATIC.glob("*.css"))


def head() -> str:
    """The scripts of the page."""
    scripts = "".join(f"<script>\n{(STATIC / name).read_text('utf-8')}</script>" for name in SCRIPTS)
    modules = "".join(f'<script type="module" src="/static/app/{name}"></script>' for name in MODULES)
    return scripts + modules


DELEGATE = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-action]');
  if (!button) return;
  if (button.dataset.confirm && !confirm(button.dataset.confirm)) return;
  trigger('click', { action: button.dataset.action, target: button.dataset.target || '' });
});
"""
"""For HTML components: a button with data-action makes the component's click event, which carries it."""

GOES_BACK = """
const arrival = location.search;
const told = new MutationObserver(() => {  // what came says that the app listens
  if (!element.querySelector('[data-address]')) return;
  told.disconnect();
  trigger('click', { action: 'arrive', target: arrival });
});
if (arrival) told.observe(element, { childList: true, subtree: true });
addEventListener('popstate', () => trigger('click', { action: 'address', target: location.search }));
"""
"""For the HTML component with the address: the app is told where the page was opened, and of Back."""
