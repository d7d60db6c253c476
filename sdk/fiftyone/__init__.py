"""Looking at datasets and predictions in FiftyOne; nothing here imports FiftyOne before it is used."""
