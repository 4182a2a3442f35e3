"""What runs models: on a device that is here, or that is lent to each call (ZeroGPU).

    progress       work that reports how far it is
    reading_cache  rows of texts, kept for whatever is asked of them next
    model_cache    loaded models, shared by all visitors
    tokenizers     the same of tokenizers alone; trials of what strangers name
    device         the decorator of calls that need a device
    analyze        read, fuse, compare, next characters
    generate       continuations, side by side
    train          a training inside an event, its estimate, samples of what it made

On ZeroGPU each call gets a device and a worker forked from this process. Arguments and results pass
between the two, so they are names, records and plain data; models are found in a `ModelCache` by
its key.
"""
