"""Identity against composition for every way of holding a word: ``python -m bench.frontier``.

On the miniature world's own things for choosing. Each variant of a method learns the word of each thing and paints it
beside other nouns; the table has, for each, how often all is there and how alike the thing is to its photos. A killed
run goes on.
"""

from __future__ import annotations

from miniworld.laboratory.recipe import ANCHOR_LOSS

from .reproduce.protocol import METHODS, PLAIN
from .variants import Variant, arguments, done, table

RADII, ANGLES, WEIGHTS = (0.5, 0.6, 0.7, 1.0), (30.0, 45.0), (3e-4, 3e-3)
COLUMNS = ("all_there", "own", "composed", "duplicates", "identified", "object_alignment", "attention_ratio")


def variants() -> dict[str, Variant]:
    """Every way of holding a word, by name."""
    found = {PLAIN: Variant({"anchor_weight": 0.0}, semantic=False)}
    found |= {f"anchor loss {weight:g}": Variant(ANCHOR_LOSS | {"anchor_weight": weight}) for weight in WEIGHTS}
    found |= {f"radius {radius:g}": Variant({"hold": "radius", "radius": radius}) for radius in RADII}
    found |= {f"direction {angle:g}": Variant({"hold": "direction", "angle": angle}) for angle in ANGLES}
    return found


def main() -> None:
    parser = arguments(__doc__, "frontier")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options = parser.parse_args()
    rows = done(options, options.methods, variants(), choosing=True, guided=False)
    for method in options.methods:
        print(f"\n### {method}\n\n{table(rows, method, variants(), COLUMNS)}")


if __name__ == "__main__":
    main()
