"""Deconvolution of planes and stacks, apart from any session: `Deconvolver` is all of it.

From the inside out: `recipe` (every number that a method is made of), `grid` (padding and borders), `solver` (the
iteration on one grid), `noise` (what a picture tells of its own noise), `tiles` (pictures larger than the memory),
`memory` (how much a solver takes), `whole` (one picture in, one out).
"""

from pellucid.deconvolution.recipe import Recipe
from pellucid.deconvolution.whole import Deconvolver

__all__ = ["Deconvolver", "Recipe"]
