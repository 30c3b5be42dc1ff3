"""The recipe as a file and as models: YAML with lines, layers, names, every value with its origin, variants."""
