"""Text as kernels see it: Unicode properties, words, lines, sentences and n-grams over UTF-8 bytes."""
