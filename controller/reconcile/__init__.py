"""The shell of the control plane: observe one moment, let the pure rooms decide, apply, report."""
