"""The Fuse tab.

    view     an analysis and a comparison -> winners, tables
    layout   components and events

Each may import those above it.
"""
