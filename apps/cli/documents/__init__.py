"""Commands on documents: translating files and folders."""
