"""The web app: faces over `fusion_core`, which never imports anything from here.

The rooms, each of which may import those above it (a test reads the imports; the packages list
their rooms in the same way):

    limits          what one visitor may ask for
    fields          settings as fields of a form, and one way to read them
    requests        what a visitor asks of the models, checked before anything is loaded
    compute         what runs models
    training        trainings of visitors: form, plan, folder, queue, downloads
    state           loaded models and kept analyses, shared by visitors
    components      drawings that Gradio has no component for
    example_texts   texts and prompts to begin with
    tabs            one folder a tab: layout, and view (records -> plain data for the page)
    links           settings and text in the address
    arguments       what is posted is checked before anything is done with it
    gate            what comes from a client is counted before it is read
    api             the same for programs
    ui              puts the tabs together

Gradio is imported from `components` on; what makes plain data for the page imports neither it nor
models. Numbers are computed in `fusion_core` only.
"""
