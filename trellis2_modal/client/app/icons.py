"""The page's few drawings: the logo, the sign of the light switch, and the page before anything was made."""

from __future__ import annotations

LOGO = (
    '<svg viewBox="0 0 32 32" width="30" height="30" aria-hidden="true" fill="none" stroke="currentColor" '
    'stroke-width="2" stroke-linejoin="round"><path d="M16 3 27.5 9.5v13L16 29 4.5 22.5v-13z"/>'
    '<path d="M4.5 9.5 16 16l11.5-6.5M16 16v13" opacity=".55"/></svg>'
)
LIGHT_OR_DARK = (
    '<svg viewBox="0 0 24 24" width="18" height="18" aria-hidden="true" fill="none" stroke="currentColor" '
    'stroke-width="2" stroke-linecap="round" stroke-linejoin="round">'
    '<path class="moon" d="M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z"/>'
    '<g class="sun"><circle cx="12" cy="12" r="4"/><path d="M12 2v2m0 16v2M2 12h2m16 0h2'
    'M4.9 4.9l1.4 1.4m11.4 11.4 1.4 1.4m0-14.2-1.4 1.4M6.3 17.7l-1.4 1.4"/></g></svg>'
)

PICTURE = "M4 5h16v14H4zM4 16l4.5-5 4 4.5 3-3L20 17"
CUBE = "M12 3l8 4.5v9L12 21l-8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9"
DOWNLOAD = "M12 4v11m-4-4 4 4 4-4M5 20h14"
STEPS = (
    ("Drop a picture", "One object on a plain ground works best.", PICTURE),
    ("Watch it turn", "A turntable, a 3D model, every render mode.", CUBE),
    ("Take the file", "GLB, OBJ or STL, sized for web, game or print.", DOWNLOAD),
)


PICTURE_SIGN = (
    '<svg viewBox="0 0 24 24" width="40" height="40" fill="none" stroke="currentColor" stroke-width="1.5" '
    f'stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><path d="{PICTURE}"/></svg>'
)

MESH_SIGN = PICTURE_SIGN.replace(PICTURE, CUBE)


def _step(title: str, words: str, path: str) -> str:
    return (
        '<li><svg viewBox="0 0 24 24" width="34" height="34" fill="none" stroke="currentColor" '
        'stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">'
        f'<path d="{path}"/></svg><b>{title}</b><span>{words}</span></li>'
    )


EMPTY = (
    '<div class="empty first"><strong>From a photo to a 3D asset</strong><ol>'
    + "".join(_step(*step) for step in STEPS)
    + "</ol></div>"
)
