"""Measures of scores and their intervals: numbers in, numbers out."""
