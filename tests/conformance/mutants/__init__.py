"""Back-ends with one fault each: what the conformance suite has to find.

A mutant is our own back-end with a patch of a few lines, applied in a process of its own (``__main__.py``).  It names
the cases that must catch it; a mutant that nobody catches says that a case has become dull.  Grouped by what is broken.
"""

from tests.conformance.mutants.registry import Mutant, all_mutants

__all__ = ["Mutant", "all_mutants"]
