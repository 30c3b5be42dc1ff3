"""Models: the model zoo, the trainer, proxies, evaluation and export. Imports `mixing` and `curation`."""
