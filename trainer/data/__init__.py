"""What a run is shown: the dataset as used, its order, its batches."""
