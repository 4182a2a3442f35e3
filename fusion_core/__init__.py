"""Knowledge fusion of large language models: read, project, fuse, train.

The rooms, in the order in which they may import one another (a test reads the imports):

    errors < numerics < records < config   data and checks only
    records.reading                        TextReading, Projection, FusedText, whose methods call
                                           the rooms that make the next of them
    text_display                           text -> grapheme clusters, cells, signs

    the stages
      io          file                     -> texts; files written whole or not at all
      corpus      seed                     -> texts and questions of the toy domains
      zoo         name                     -> folder of an embedded model
      tokens      text                     -> Encoding
      align       Encoding x Encoding      -> Alignment; stretches that every model can read
      mapping     vocabulary x vocabulary  -> VocabMapping
      models      encodings                -> NextTokenRows
      characters  NextTokenRows            -> NextCharacters
      project     TextReading x mapping    -> Projection
      fuse        Projection x operator    -> FusedText
      evaluate    rows                     -> cross-entropies, transfer cross-entropy
      cache       rows                     <-> shards on disk
      losses      logits x fused rows      -> nats of both parts
      baselines   weights                  -> merged weights

    reading                                text x models -> TextReading: runs the networks
    pipeline < compare                     read, project, fuse, in this order
    cache.building, generate, benchmark    many texts; texts that are written; toy tasks
    train < runs                           a run's settings -> a trained model, in its own process
    reports < plots                        records -> JSON objects and tables; Plotly figures
    commands < cli, __main__               the command line
    zoo.build, zoo.__main__                how the embedded models were made

Stages take records and give records. They do not import one another, with these exceptions:
`mapping`, `models`, `characters` and `project` hold a `tokens.TextTokenizer`; `mapping` counts the
pairs that `align` finds; `models` finds embedded models through `zoo`; `project` aligns windows and
asks a `mapping.VocabMapping`; what they write goes through `io`. Nothing here imports gradio or
`app`; `plots` alone imports plotly, when it draws.
"""

__version__ = "0.1.0"
