"""What a generation is made from: pictures as they arrive, how they are arranged and cut out, one press.

`received` reads files and refuses in sentences, `intake` arranges one, several or views, `matte` judges
cut-outs, `cutouts` corrects them, `presses` makes one job of a double click. Imports neither torch nor
trellis2.
"""
