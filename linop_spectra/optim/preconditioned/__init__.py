"""Methods with running diagonals or Kronecker factors of the curvature."""
