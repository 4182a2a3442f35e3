"""The web app: faces over `fusion_core`, which never imports anything from here.

    limits               what one visitor may ask for
    gpu                  devices that are lent to single calls
    shelf                loaded models, shared by all
    work, work_…         what runs models
    session              limits, models and kept analyses: the state that visitors share
    job, jobs, turns     trainings: a folder each, a queue
    forms, courses,      what a visitor fills in -> the settings and texts of a training
      teaching
    glyphs, views,       records -> plain data for the page
      cards, fusing,
      writing, curves
    plots                records -> Plotly figures, for notebooks
    downloads            a training's files
    components           drawings that Gradio has no component for
    tabs                 one file a tab: layout and handlers
    links                settings and text in the address
    arguments            what is posted is checked before anything is done with it
    api                  the same for programs
    ui                   puts the tabs together

What makes plain data imports neither gradio nor torch models; numbers are computed in
`fusion_core` only.
"""
