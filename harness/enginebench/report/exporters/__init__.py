"""The exporters, one file per format. A new file in this folder is a new format; nothing else lists them."""
