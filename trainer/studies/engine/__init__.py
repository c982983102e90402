"""What all studies share: the runs of a table, their statistics, their sheets."""
