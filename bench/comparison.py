"""Cures of one disease compared, by textual inversion: ``python -m bench.comparison``.

Plain, the paper's anchor loss, our bounds and repair, masks, and the later methods, each at the values of its paper and
at a stronger one, since gradients of the miniature world are larger:

- *sphere*: directional textual inversion (Kim et al. 2025, arXiv 2512.13672), κ 0.0001.
- *TEA*: test-time embedding adjustment (Bui et al. 2025, arXiv 2506.22685) of the plain word, at the length of the
  class noun (β 1); a fifth of the angle to it, as its code has it.
- *CoRe*: context regularisation (Wu et al. 2024, arXiv 2408.15914), its loss on the text encoder alone, weight 0.00015.

Adjust and TEA differ in where the word is turned to: its sparse anchors, or the class noun alone. All have the same
things, seeds, nouns and pictures, on the miniature world's own things that are reported. Seconds are of one word's
training, or of its repair alone; of a training that was killed and went on only the rest; of words that a graphics card
learned in one batch there are none. A killed run goes on.
"""

from __future__ import annotations

from miniworld.laboratory.recipe import ANCHOR_LOSS

from .reproduce.protocol import PLAIN
from .variants import Variant, arguments, done, table

METHOD = "textual inversion"
CONCENTRATIONS, SHARES, CONTEXTS = (1e-4, 1e-2), (0.2, 0.5), (1.5e-4, 1.0)
COLUMNS = (
    "all_there", "identified", "object_alignment", "duplicates", "attention_share", "attention_ratio",
    "training_seconds",
)  # fmt: skip
"""``attention_share`` is the own thing's part of what the two phrases have; ``attention_ratio`` one over the other."""


def variants() -> dict[str, Variant]:
    """Every cure, by name."""
    found = {
        PLAIN: Variant(semantic=False),
        "masks": Variant(semantic=False, masked=True),
        "anchor loss": Variant(dict(ANCHOR_LOSS)),
        "radius 0.7": Variant({"hold": "radius", "radius": 0.7}),
        "direction 40": Variant({"hold": "direction", "angle": 40.0}),
        "adjust 0.4": Variant(semantic=False, repair={"strength": 0.4}),
    }
    found |= {f"sphere {kappa:g}": Variant({"hold": "sphere", "concentration": kappa}) for kappa in CONCENTRATIONS}
    found |= {
        f"TEA {share:g}": Variant(semantic=False, repair={"strength": share, "anchored": False}) for share in SHARES
    }
    found |= {f"CoRe {weight:g}": Variant({"context_weight": weight}, semantic=False) for weight in CONTEXTS}
    return found


def main() -> None:
    options = arguments(__doc__, "comparison").parse_args()
    rows = done(options, (METHOD,), variants(), choosing=False, guided=False)
    print(f"\n{table(rows, METHOD, variants(), COLUMNS)}")


if __name__ == "__main__":
    main()
