"""Files: texts read from them (of tables in `parquet`), and whatever is written, whole or not at all."""
