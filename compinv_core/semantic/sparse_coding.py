"""Non-negative sparse codes of one embedding over a dictionary of anchor embeddings.

scikit-learn's orthogonal matching pursuit and LARS refuse non-negative coefficients, and a negative code would turn an
anchor into a repeller without a lower bound. The default coder is therefore our own non-negative orthogonal matching
pursuit (Pati et al. 1993), refitted by non-negative least squares; the two lasso coders go through scikit-learn.
"""

from __future__ import annotations

import numpy as np
import torch

from ..basics.errors import UserError

CODERS = ("nn_omp", "lasso_lars", "lasso_cd")

LEAST_SHARE = 0.1
"""Share of a vector's length that an anchor has to explain to count; below it the code of a drifted word is noise."""

# An atom whose correlation with the residual is below this share of the embedding's norm adds only rounding noise.
_CORRELATION_TOLERANCE = 1e-7


def sparse_code(
    embedding: torch.Tensor, dictionary: torch.Tensor, max_active: int = 4, coder: str = "nn_omp"
) -> torch.Tensor:
    """Code an embedding as a non-negative sparse mixture of anchors, with weights that sum to 1.

    The code is the delta of the paper's Eq. 6; see `sparse_coefficients` for how the coders choose it.

    Parameters
    ----------
    embedding : Tensor (D,)
        Input token embedding to be coded.
    dictionary : Tensor (N, D)
        Anchor embeddings. Coding uses their directions only.
    max_active : int, default 4
        Largest number of non-zero weights (the paper's c - 1), at least 1.
    coder : {"nn_omp", "lasso_lars", "lasso_cd"}, default "nn_omp"

    Returns
    -------
    Tensor (N,), float32
        Non-negative, sums to 1, at most `max_active` non-zero. Where no anchor correlates positively with the
        embedding, all the weight goes to the anchor with the smallest angle to it.

    Raises
    ------
    UserError
        On an empty dictionary, a zero or non-finite embedding, a `max_active` below 1 or an unknown coder.
    """
    coefficients = sparse_coefficients(embedding, dictionary, max_active, coder)
    return (coefficients / coefficients.sum()).to(torch.float32)


def sparse_coefficients(
    embedding: torch.Tensor, dictionary: torch.Tensor, max_active: int = 4, coder: str = "nn_omp"
) -> torch.Tensor:
    """Return the coefficients over unit-norm anchors, before they are normalised to sum 1.

    Their sum, compared with the embedding's norm, tells how much of the embedding the anchors explain.

    Parameters and errors are those of `sparse_code`.

    Returns
    -------
    Tensor (N,), float64
        Non-negative, at least one and at most `max_active` non-zero.
    """
    target, atoms = _checked_arrays(embedding, dictionary, max_active, coder)
    correlation = atoms @ target
    if coder == "nn_omp":
        coefficients = _matching_pursuit(atoms, target, correlation, max_active)
    else:
        coefficients = _lasso(atoms, target, correlation, max_active, coder)
    if not coefficients.any():
        nearest = int(correlation.argmax())
        coefficients[nearest] = max(float(abs(correlation[nearest])), float(np.finfo(np.float64).tiny))
    return torch.from_numpy(coefficients)


def real_coefficients(
    embedding: torch.Tensor,
    dictionary: torch.Tensor,
    max_active: int = 4,
    coder: str = "nn_omp",
    least_share: float = LEAST_SHARE,
) -> torch.Tensor:
    """Return `sparse_coefficients` (N,), float64, without those of anchors that explain next to nothing.

    All of them may be zero then.
    """
    coefficients = sparse_coefficients(embedding, dictionary, max_active, coder)
    return torch.where(coefficients >= least_share * float(embedding.norm()), coefficients, 0.0)


def _checked_arrays(
    embedding: torch.Tensor, dictionary: torch.Tensor, max_active: int, coder: str
) -> tuple[np.ndarray, np.ndarray]:
    """Validate the inputs; return the embedding and the unit-norm anchors in float64."""
    if coder not in CODERS:
        raise UserError(f"sparse_coder is {coder!r}; choose one of {', '.join(CODERS)}.")
    if max_active < 1:
        raise UserError(f"max_active_anchors is {max_active}; give at least 1.")
    if dictionary.ndim != 2 or dictionary.shape[0] == 0:
        raise UserError("The list of anchors is empty; give at least one noun.")
    if embedding.shape != dictionary.shape[1:]:
        raise UserError(
            f"The embedding has shape {tuple(embedding.shape)}, the anchors are {dictionary.shape[1]} wide; "
            "load the anchors with the text encoder that the embedding was made for."
        )
    target = embedding.detach().cpu().float().numpy().astype(np.float64)
    rows = dictionary.detach().cpu().float().numpy().astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(target).all() or not np.isfinite(norms).all():
        raise UserError("An embedding holds NaN or infinity; use an undamaged embedding and text encoder.")
    if not target.any():
        raise UserError("The embedding is zero everywhere, so it has no direction to code; start from another word.")
    return target, rows / np.where(norms > 0, norms, 1.0)


def _matching_pursuit(atoms: np.ndarray, target: np.ndarray, correlation: np.ndarray, max_active: int) -> np.ndarray:
    """Non-negative orthogonal matching pursuit on unit-norm atoms (N, D)."""
    # Imported here, since it takes as long as the whole pack.
    from scipy.optimize import nnls

    coefficients = np.zeros(len(atoms))
    tolerance = _CORRELATION_TOLERANCE * np.linalg.norm(target)
    active: list[int] = []
    residual_correlation = correlation.copy()
    for _ in range(max_active):
        residual_correlation[active] = -np.inf
        best = int(residual_correlation.argmax())
        if residual_correlation[best] <= tolerance:
            break
        active.append(best)
        chosen = atoms[active]
        weights, _ = nnls(chosen.T, target)
        residual_correlation = atoms @ (target - weights @ chosen)
        coefficients[active] = weights
    return coefficients


def _lasso(atoms: np.ndarray, target: np.ndarray, correlation: np.ndarray, max_active: int, coder: str) -> np.ndarray:
    """Take the smallest penalty on scikit-learn's positive lasso path that keeps at most `max_active` atoms.

    A fixed penalty returns all zeros exactly when the embedding has drifted far from its anchors, which is when the
    anchors matter most; walking the path cannot.
    """
    # scikit-learn takes over a second to import, and most people never choose these coders.
    from sklearn.linear_model import lars_path, lasso_path

    if correlation.max() <= _CORRELATION_TOLERANCE * np.linalg.norm(target):
        return np.zeros(len(atoms))
    design = np.ascontiguousarray(atoms.T)
    if coder == "lasso_lars":
        # The path adds one atom per knot, and later knots are only needed when atoms leave again.
        _, _, path = lars_path(design, target, method="lasso", positive=True, max_iter=2 * max_active + 1)
    else:
        _, path, _ = lasso_path(design, target, positive=True, eps=1e-3, max_iter=5000)
    active = (path > 0).sum(axis=0)
    usable = np.flatnonzero((active >= 1) & (active <= max_active))
    return path[:, usable[-1]].astype(np.float64) if len(usable) else np.zeros(len(atoms))
