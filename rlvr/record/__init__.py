"""What travels between sampling, scoring, storing and training: the record, its files, and rows of other layouts."""
