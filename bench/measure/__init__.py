"""Measurements of Everpoint beside its peers."""
