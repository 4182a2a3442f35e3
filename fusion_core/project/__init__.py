"""Next-token rows -> the target's positions and vocabulary.

text         a text's rows, source by source
routes       from which source rows, and along which edges
rows         one source's rows, all positions at once
boundaries   what the target's own boundaries exclude
chain_rule   the probability of the token that followed, where it is known
attribution  which source tokens the mass of fused tokens came from
"""

from .attribution import attribute, probs_at
from .boundaries import at_boundaries
from .chain_rule import chain_rule, native_ce
from .routes import Route
from .rows import project_rows
from .text import aligned, mappings_of, project, project_row, routes_of

__all__ = [
    "Route",
    "aligned",
    "at_boundaries",
    "attribute",
    "chain_rule",
    "mappings_of",
    "native_ce",
    "probs_at",
    "project",
    "project_row",
    "project_rows",
    "routes_of",
]
