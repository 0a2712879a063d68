"""The log: frames, the pure fold, the journal that writes manifests, writers and readers."""
