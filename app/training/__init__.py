"""Trainings of visitors: from a form to files that can be taken home.

    form        what a visitor fills in, checked
    data        documents to learn from, and those that are held out
    plan        settings and steps that fit a budget
    job         one training in its folder
    queue       trainings that wait, a few of which run at a time
    downloads   files of a training
    store       the trainings of all visitors

Each may import those above it.
"""
