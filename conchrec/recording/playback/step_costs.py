"""How much one call of a show does, so that each call is short for every recording."""

STEP = 32 * 1024
"""The ``work`` of a screen that one call does: some hundredths of a second."""
EVENT_COST = 64
"""The cost of an event in addition to its characters."""
PIECE = 2 * 1024
"""The characters of output that are shown between two checks of the work that is left."""
SKIP_COST = 512 * 1024
"""The characters, and ``EVENT_COST`` for each event, that one call skips or reads for the outline."""
