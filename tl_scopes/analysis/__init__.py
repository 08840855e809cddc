"""One prompt looked into: layers, sinks, paths, spectra, verification, substitutions, patching."""
