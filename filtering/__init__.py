"""Deciding: verifiers, readability rules, selection and the dataset."""
