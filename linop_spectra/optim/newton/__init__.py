"""Newton's method in Krylov spaces and by conjugate gradients."""
