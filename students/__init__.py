"""Making a student: rendering the dataset, checking what would be trained, training, saving a model that serves."""
