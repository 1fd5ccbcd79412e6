"""Make docs/static/math.woff2, the font of formulas, from TeX Gyre Termes Math: what formulas use, under another name.

`pip install fonttools brotli`, then `python docs/make_math_font.py texgyretermes-math.otf`. Debian has the font in
fonts-texgyre-math.
"""

import sys
from pathlib import Path

NAME = "fc_arrayapi Math"  # the licence asks that a changed font has another name
# Latin, Greek, punctuation, arrows, operators, brackets and their parts; upright, italic and bold letters.
RANGES = (
    "20-7e a0-ff 131 237 300-338 370-3ff 2010-2057 20d0-20e1 2100-214f 2190-21ff 2200-22ff 2308-230b 239b-23b7 "
    "23d0 23dc-23e1 25a0-25ff 27e6-27ef 2a00-2a06 2a7d-2a7e 1d400-1d467 1d4d0-1d503 1d538-1d56b 1d6a4-1d71b 1d7ce-1d7d7"
)


def make(source):
    from fontTools import subset

    options = subset.Options(flavor="woff2", layout_features=["*"], name_IDs=["*"], notdef_outline=True)
    font = subset.load_font(source, options)
    subsetter = subset.Subsetter(options)
    parts = [part.split("-") for part in RANGES.split()]
    subsetter.populate(unicodes=[code for part in parts for code in range(int(part[0], 16), int(part[-1], 16) + 1)])
    subsetter.subset(font)
    for record in font["name"].names:
        text = {1: NAME, 3: NAME, 4: NAME, 6: "fc_arrayapi-Math", 16: NAME}.get(record.nameID)
        if text:
            record.string = text
    font["CFF "].cff.fontNames = ["fc_arrayapi-Math"]
    target = Path(__file__).parent / "static" / "math.woff2"
    subset.save_font(font, target, options)
    print(f"{target.name}: {target.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    make(sys.argv[1])
