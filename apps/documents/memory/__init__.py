"""Translation memories: what people said a sentence means, kept in a file, found again exactly or nearly."""
