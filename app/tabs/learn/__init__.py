"""The Learn tab.

    view     the steps of the walk; the notebooks
    layout   components and events

Each may import those above it.
"""
