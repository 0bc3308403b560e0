"""From raw text to token batches: corpora, cleaning, vocabularies, token store, batch plan."""
