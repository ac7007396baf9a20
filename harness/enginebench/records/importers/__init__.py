"""The importers, one file per tool. A new file in this folder is a new importer; nothing else lists importers."""
