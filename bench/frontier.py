"""Identity against composition for every way of holding a word: ``python -m bench.frontier``.

On the miniature world's own things for choosing. Each variant of a method learns the word of each thing and paints it
beside other nouns; the table has, for each, how often all is there and how alike the thing is to its photos. A killed
run goes on.
"""

from __future__ import annotations

from compinv_core.semantic.hold import BOTH, DIRECTION, RADIUS
from miniworld.laboratory.recipe import ANCHOR_LOSS, TUNING

from .reproduce.protocol import METHODS, PLAIN
from .variants import Variant, arguments, done, table

RADII, ANGLES, WEIGHTS = (0.5, 0.6, 0.7, 1.0), (30.0, 45.0), (3e-4, 3e-3)
WORD_RATES, SHARES = (5e-3, 2e-2, 1e-4), (0.6, 0.95)
COLUMNS = ("all_there", "own", "composed", "duplicates", "identified", "object_alignment", "attention_ratio")


def variants(method: str) -> dict[str, Variant]:
    """Every way of holding a word, by name; of a method that trains the model too, also the word's own rate.

    There λ also says how much the model learns from the photos beside what it learns from its class.
    """
    plain = {"anchor_weight": 0.0}
    found: dict[str, Variant] = {}
    if method in TUNING:
        for rate in WORD_RATES:
            word, radius = {"token_learning_rate": rate}, RADII[0]
            found[f"plain, word's rate {rate:g}"] = Variant(plain | word, semantic=False)
            found[f"radius {radius:g}, word's rate {rate:g}"] = Variant({"hold": RADIUS, "radius": radius} | word)
            for share in SHARES:
                both = {"hold": BOTH, "radius": radius, "anchor_weight": share}
                found[f"radius {radius:g}, λ {share:g}, word's rate {rate:g}"] = Variant(both | word)
        return found
    found[PLAIN] = Variant(plain, semantic=False)
    found |= {f"anchor loss {weight:g}": Variant(ANCHOR_LOSS | {"anchor_weight": weight}) for weight in WEIGHTS}
    found |= {f"radius {radius:g}": Variant({"hold": RADIUS, "radius": radius}) for radius in RADII}
    found |= {f"direction {angle:g}": Variant({"hold": DIRECTION, "angle": angle}) for angle in ANGLES}
    return found


def main() -> None:
    parser = arguments(__doc__, "frontier")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options = parser.parse_args()
    for method in options.methods:
        rows = done(options, [method], variants(method), choosing=True, guided=False)
        print(f"\n### {method}\n\n{table(rows, method, variants(method), COLUMNS)}")


if __name__ == "__main__":
    main()
